"""The stages of a distilled learner: tokens, embeddings, teacher, students, baseline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer
from torch import Tensor
from tqdm import tqdm

from secondary_learners.errors import CorpusError
from secondary_learners.learners.embeddings import token_embeddings
from secondary_learners.learners.fitting import fit_baseline
from secondary_learners.learners.kernel_ridge import ContextKernel, fit_kernel_ridge
from secondary_learners.learners.nets import ConvNet, LinearNet, Net, round_to_half
from secondary_learners.recipes.distilled_learner.distilling import distil
from secondary_learners.recipes.distilled_learner.published import PublishedRows, fold_rows
from secondary_learners.recipes.distilled_learner.recipe import SPLICED, DistilledRecipe
from secondary_learners.text.corpus import Document
from secondary_learners.text.wikitext import wikitext_style

__all__ = [
    "Data",
    "StandardizedGains",
    "embed",
    "encode",
    "linear",
    "net",
    "raw",
    "ridge",
    "student",
    "teach",
]

_BASELINE_BIGRAMS = 2**15
_TOGETHER = 64  # documents tokenized at once
_EDGE = 4  # tokens that each half of a spliced context has at least

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class StandardizedGains:
    """Gains in standard deviations of the fitted rows'."""

    fitted: Floats
    reported: Floats
    mean: float
    sd: float


def standardized(published: PublishedRows) -> StandardizedGains:
    gains = published.fitted.gains
    mean, sd = float(gains.mean()), float(gains.std())
    return StandardizedGains((gains - mean) / sd, (published.reported.gains - mean) / sd, mean, sd)


@dataclass(frozen=True, eq=False)
class Data:
    """What others published, its gains standardized, and the fold of each fitted row [n]."""

    published: PublishedRows
    labels: StandardizedGains
    fold: npt.NDArray[np.int64]

    @classmethod
    def of(cls, recipe: DistilledRecipe, published: PublishedRows) -> Data:
        fold = fold_rows(published.fitted.input_ids, recipe.teacher.folds, seed=recipe.seed)
        return cls(published, standardized(published), fold)


def encode(documents: list[Document], tokenizer: Tokenizer, progress: bool) -> dict[str, Array]:
    """The token ids of each domain, int32, its documents one after the other."""
    ids: dict[str, list[Array]] = {}
    bar = tqdm(total=len(documents), desc="tokenizing", unit="document", disable=not progress)
    for begin in range(0, len(documents), _TOGETHER):
        chunk = documents[begin : begin + _TOGETHER]
        texts = [wikitext_style(document.text) for document in chunk]
        encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        for document, encoding in zip(chunk, encodings, strict=True):
            ids.setdefault(document.domain, []).append(np.array(encoding.ids, np.int32))
        bar.update(len(chunk))
    bar.close()
    return {domain: np.concatenate(parts) for domain, parts in ids.items()}


def embed(
    recipe: DistilledRecipe, tokens: Mapping[str, Array], published: PublishedRows, vocabulary: int
) -> dict[str, Array]:
    plan, own = recipe.embeddings, published.fitted.input_ids
    text = np.concatenate([tokens[domain] for domain in sorted(tokens)])
    embeddings = token_embeddings(
        [(text[None], 1.0), (own, plan.labelled_weight)],
        vocabulary=vocabulary,
        dimensions=plan.dimensions,
        neighbors=plan.neighbors,
        seed=recipe.seed,
    )
    counts = np.bincount(np.concatenate([text, own.reshape(-1)]), minlength=vocabulary)
    return {"embeddings": embeddings, "counts": counts}


def teach(
    recipe: DistilledRecipe,
    tokens: Mapping[str, Array],
    data: Data,
    table: Mapping[str, Array],
    progress: bool,
) -> dict[str, Array]:
    """Unlabelled contexts, and what the teacher says of them and of the labelled ones.

    The predictions are [contexts, 1 + folds]: by the teacher of all rows, then without each fold.
    """
    own, fold = data.published.fitted.input_ids, data.fold
    kernel = ContextKernel(own, table["counts"], table["embeddings"])
    teacher = fit_kernel_ridge(kernel, data.labels.fitted, fold, strength=recipe.teacher.strength)
    pool, origin = _pool(recipe, tokens, own, fold)
    return {
        "pool": pool,
        "origin": origin,
        "predicted": teacher.predict(pool, progress=progress),
        "own": teacher.predict(own, progress=progress),
    }


def _pool(
    recipe: DistilledRecipe, tokens: Mapping[str, Array], own: Array, fold: npt.NDArray[np.int64]
) -> tuple[Array, npt.NDArray[np.int64]]:
    """Unlabelled contexts [m, length]; the fold that each is made of [m], -1 for other text."""
    random = np.random.default_rng(recipe.seed)
    length = own.shape[1]
    contexts, origins = [], []
    for part in recipe.pool:
        if part.domain == SPLICED:
            edge, folds = min(_EDGE, length // 2), int(fold.max()) + 1
            for number in range(folds):
                count = len(range(number, part.contexts, folds))
                first, last = random.choice(np.flatnonzero(fold == number), (2, count))
                where = random.integers(edge, length - edge + 1, (count, 1))
                contexts.append(np.where(np.arange(length) < where, own[first], own[last]))
                origins.append(np.full(count, number))
            continue
        ids = tokens[part.domain]
        if len(ids) < length:
            raise CorpusError(
                f"domain {part.domain!r} has {len(ids)} tokens: a context needs {length}. Add text."
            )
        start = random.integers(0, len(ids) - length + 1, (part.contexts, 1))
        contexts.append(ids[start + np.arange(length)].astype(np.int64))
        origins.append(np.full(part.contexts, -1))
    return np.concatenate(contexts), np.concatenate(origins)


def student(
    recipe: DistilledRecipe,
    taught: Mapping[str, Array],
    table: Mapping[str, Array],
    data: Data,
    fit: int,
    progress: bool,
) -> dict[str, Array]:
    """The weights of the student of teacher `fit`: 0 is that of all rows, k + 1 lacks fold k."""
    plan = recipe.student
    published, fold = data.published, data.fold
    pool, own = taught["origin"] != fit - 1, fold != fit - 1
    if fit == 0:
        pool = np.ones_like(pool)  # -1 is other text there
    # The labelled contexts count twice, as the teacher is surest there.
    ids = [taught["pool"][pool], *[published.fitted.input_ids[own]] * 2]
    targets = [taught["predicted"][pool, fit], *[taught["own"][own, fit]] * 2]
    net = distil(
        np.concatenate(ids),
        np.concatenate(targets),
        table["embeddings"][:, : plan.embedding],
        table["counts"],
        plan,
        seed=recipe.seed,
        progress=progress,
    )
    return {name: tensor.numpy() for name, tensor in net.state_dict().items()}


def ridge(data: Data, vocabulary: int) -> dict[str, Array]:
    """The baseline: weights, the strength that was chosen, and predictions out of fold [n]."""
    baseline = fit_baseline(
        data.published.fitted.input_ids,
        data.labels.fitted,
        data.fold,
        vocabulary=vocabulary,
        bigrams=_BASELINE_BIGRAMS,
    )
    weights = {name: tensor.numpy() for name, tensor in baseline.net.state_dict().items()}
    return {**weights, "strength": np.array(baseline.strength), "out_of_fold": baseline.out_of_fold}


def linear(ridge: Mapping[str, Array]) -> LinearNet:
    """The net of what the function `ridge` gave."""
    net = LinearNet(len(ridge["weight"]) - _BASELINE_BIGRAMS, _BASELINE_BIGRAMS)
    net.load_state_dict({name: torch.from_numpy(ridge[name]) for name in ("weight", "bias")})
    return net.eval()


def net(recipe: DistilledRecipe, weights: Mapping[str, Array]) -> ConvNet:
    """The net as it will be stored, in float16."""
    plan = recipe.student
    with torch.device("meta"):  # no random numbers
        net = ConvNet(
            len(weights["embedding.weight"]),
            plan.embedding,
            plan.channels,
            plan.kernel,
            plan.hidden,
        )
    tensors = {name: torch.from_numpy(array) for name, array in weights.items()}
    net.load_state_dict(tensors, assign=True)
    round_to_half(net)
    return net.eval()


def raw(net: Net, input_ids: Array) -> Floats:
    """Raw predictions of contexts [n, length]: float64 [n]."""
    parts: list[Tensor] = []
    with torch.no_grad():
        for part in torch.from_numpy(input_ids).split(1024):
            parts.append(net(part, torch.ones_like(part, dtype=torch.bool)))
    raw: Floats = torch.cat(parts).double().numpy()
    return raw

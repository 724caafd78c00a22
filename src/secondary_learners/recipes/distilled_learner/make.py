"""A learner from published labels: text → embeddings → teacher → student → evaluation → package.

Each stage leaves its result in `out/work` under a digest of all that determines it, so that a
killed run goes on where it was. The labels kept for reporting meet nothing but the report.
"""

from __future__ import annotations

import datetime
import json
import logging
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import torch
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from torch import Tensor
from tqdm import tqdm

from secondary_learners.cards.card import About
from secondary_learners.cards.kinds import card
from secondary_learners.cards.render import render_card
from secondary_learners.errors import CorpusError
from secondary_learners.files import (
    atomic_path,
    json_bytes,
    sha256_bytes,
    write_bytes,
)
from secondary_learners.learners.artifact import Learner, save_learner, tokenizer_fingerprint
from secondary_learners.learners.config import Calibration, LearnerConfig, Reference, Score
from secondary_learners.learners.distilling import distil
from secondary_learners.learners.embeddings import token_embeddings
from secondary_learners.learners.fitting import fit_baseline
from secondary_learners.learners.kernel_ridge import ContextKernel, fit_kernel_ridge
from secondary_learners.learners.nets import ConvNet, LinearNet, Net, round_to_half
from secondary_learners.recipes.distilled_learner.figures import (
    RESAMPLES,
    cross_validated_figures,
    reported_figures,
    scoring_speed,
)
from secondary_learners.recipes.distilled_learner.published import (
    Published,
    fold_rows,
    found_file,
    read_published_labels,
)
from secondary_learners.recipes.distilled_learner.recipe import SPLICED, DistilledRecipe
from secondary_learners.recipes.gain_learner.data import describe_sources
from secondary_learners.recipes.gain_learner.make import Finished, token_weights
from secondary_learners.recipes.parsing import recipe_toml
from secondary_learners.recipes.provenance import file_digests
from secondary_learners.registry.index import Entry, entry_toml
from secondary_learners.text.corpus import Document, read_documents
from secondary_learners.text.wikitext import wikitext_style

__all__ = ["run_distilled"]

log = logging.getLogger(__name__)

_BASELINE_BIGRAMS = 2**15
_TOGETHER = 64  # documents tokenized at once
_EDGE = 4  # tokens that each half of a spliced context has at least

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]


def run_distilled(
    recipe: DistilledRecipe,
    corpus: Path | None,
    out: Path,
    *,
    command: str,
    progress: bool = True,
) -> Finished:
    """Make the learner of `recipe` in `out`, on the CPU; raises CorpusError for what is missing."""
    published = read_published_labels(recipe.labels, corpus)
    tokenizer = _tokenizer(found_file(recipe.tokenizer, corpus), published)
    documents = read_documents(recipe.sources, corpus, clean=str.strip)
    stages = _Stages(out / "work", progress)
    labels = _standardised(published)
    fold = fold_rows(published.fitted.input_ids, recipe.teacher.folds, seed=recipe.seed)

    text = _digest("text", tokenizer_fingerprint(tokenizer), *_contents(documents))
    tokens = stages.kept("tokens", text, lambda: _encode(documents, tokenizer, progress))
    rows = _digest(published.digest, recipe.labels.reported, recipe.teacher.folds, recipe.seed)
    known = _digest(text, rows, asdict(recipe.embeddings))
    table = stages.kept(
        "embeddings", known, lambda: _embed(recipe, tokens, published, tokenizer.get_vocab_size())
    )
    lesson = _digest(known, asdict(recipe.teacher), [asdict(part) for part in recipe.pool])
    taught = stages.kept(
        "lesson", lesson, lambda: _teach(recipe, tokens, published, labels, fold, table, progress)
    )

    nets = []
    for fit in range(recipe.teacher.folds + 1):
        log.info("student %d of %d", fit + 1, recipe.teacher.folds + 1)
        make = partial(_student, recipe, taught, table, published, fold, fit, progress)
        digest = _digest(lesson, asdict(recipe.student), fit)
        nets.append(_net(recipe, stages.kept(f"student-{fit}", digest, make)))
    vocabulary = tokenizer.get_vocab_size()
    ridge = stages.kept(
        "ridge", _digest(rows, vocabulary), lambda: _ridge(published, labels, fold, vocabulary)
    )
    raw = np.empty(len(fold))
    for number, net in enumerate(nets[1:]):
        raw[fold == number] = _raw(net, published.fitted.input_ids[fold == number])
    config = _config(recipe, published, labels, raw, tokenizer, text)
    learner = Learner(config, nets[0])
    evaluation = {
        **reported_figures(
            labels.reported,
            _predictions(published, labels, nets[0], _linear(ridge)),
            resamples=RESAMPLES,
            seed=recipe.seed,
        ),
        "cross_validation": cross_validated_figures(
            labels.fitted,
            fold,
            {
                "conv": raw,
                "ridge": ridge["out_of_fold"],
                "teacher": taught["own"][np.arange(len(fold)), fold + 1].astype(np.float64),
            },
        ),
        "ridge_strength": ridge["strength"].item(),
        "speed": scoring_speed(nets[0], published.reported.input_ids),
        "bytes": sum(2 * tensor.numel() for tensor in nets[0].state_dict().values()),
        "tokens": token_weights(learner, tokenizer, published.fitted.input_ids),
        "tokens_in_text": sum(map(len, tokens.values())),
        "pool": {part.domain: part.contexts for part in recipe.pool},
        "readings": recipe.labels.readings,
        "fine_tuning": None,
        "training_seconds": round(stages.seconds),
        "command": command,
        "device": f"CPU, {torch.get_num_threads()} threads, {platform.machine()}",
    }
    evaluation = json.loads(json_bytes(evaluation))  # as it will be read, for the card
    readme = render_card(card("distilled"), config.to_dict(), evaluation, About.of(recipe))
    save_learner(
        learner,
        out,
        recipe_toml=recipe_toml(recipe),
        evaluation=evaluation,
        readme=readme,
        half=True,
    )
    write_bytes(out / "work" / f"{recipe.name}.toml", entry_toml(_entry(recipe, out)).encode())
    return Finished(out, evaluation, None)


@dataclass
class _Stages:
    """What was made before is read; the seconds that it took, then or now, are added up."""

    folder: Path
    progress: bool
    seconds: float = 0.0

    def kept(
        self, name: str, digest: str, make: Callable[[], Mapping[str, Array]]
    ) -> dict[str, Array]:
        path = self.folder / f"{name}.safetensors"
        if path.is_file():
            try:
                with safetensors.safe_open(path, framework="numpy") as file:
                    meta = file.metadata() or {}
                    if meta.get("digest") == digest:
                        self.seconds += float(meta["seconds"])
                        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            except safetensors.SafetensorError:
                log.warning("%s is damaged: making it again", path)
        begun = time.monotonic()
        arrays = {key: np.ascontiguousarray(array) for key, array in make().items()}
        seconds = time.monotonic() - begun
        log.info("%s: %.0f s", name, seconds)
        with atomic_path(path) as temporary:
            save_file(arrays, temporary, metadata={"digest": digest, "seconds": str(seconds)})
        self.seconds += seconds
        return arrays


def _digest(*parts: object) -> str:
    return sha256_bytes(json_bytes(parts))


def _contents(documents: list[Document]) -> list[str]:
    return [sha256_bytes(f"{d.domain}\n{d.name}\n{d.text}".encode()) for d in documents]


def _tokenizer(path: Path, published: Published) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises nothing narrower
        raise CorpusError(f"{path} is no file of tokenizers: {error}. Get it again.") from error
    highest = max(part.input_ids.max() for part in (published.fitted, published.reported))
    if highest >= tokenizer.get_vocab_size():
        raise CorpusError(
            f"the labels have the token {highest}, and {path} knows "
            f"{tokenizer.get_vocab_size()}. Give the tokenizer that they were made with."
        )
    return tokenizer


@dataclass(frozen=True, eq=False)
class _Labels:
    """Gains in standard deviations of the fitted rows'."""

    fitted: Floats
    reported: Floats
    mean: float
    sd: float


def _standardised(published: Published) -> _Labels:
    gains = published.fitted.gains
    mean, sd = float(gains.mean()), float(gains.std())
    return _Labels((gains - mean) / sd, (published.reported.gains - mean) / sd, mean, sd)


def _encode(documents: list[Document], tokenizer: Tokenizer, progress: bool) -> dict[str, Array]:
    """The token ids of each domain, int32, its documents one after the other."""
    found: dict[str, list[Array]] = {}
    bar = tqdm(total=len(documents), desc="tokenizing", unit="document", disable=not progress)
    for begin in range(0, len(documents), _TOGETHER):
        chunk = documents[begin : begin + _TOGETHER]
        texts = [wikitext_style(document.text) for document in chunk]
        encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        for document, encoding in zip(chunk, encodings, strict=True):
            found.setdefault(document.domain, []).append(np.array(encoding.ids, np.int32))
        bar.update(len(chunk))
    bar.close()
    return {domain: np.concatenate(parts) for domain, parts in found.items()}


def _embed(
    recipe: DistilledRecipe, tokens: Mapping[str, Array], published: Published, vocabulary: int
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


def _teach(
    recipe: DistilledRecipe,
    tokens: Mapping[str, Array],
    published: Published,
    labels: _Labels,
    fold: npt.NDArray[np.int64],
    table: Mapping[str, Array],
    progress: bool,
) -> dict[str, Array]:
    """Unlabelled contexts, and what the teacher says of them and of the labelled ones.

    The predictions are [contexts, 1 + folds]: by the teacher of all rows, then without each fold.
    """
    own = published.fitted.input_ids
    kernel = ContextKernel(own, table["counts"], table["embeddings"])
    teacher = fit_kernel_ridge(kernel, labels.fitted, fold, strength=recipe.teacher.strength)
    pool, origin = _pool(recipe, tokens, own, fold)
    return {
        "pool": pool,
        "origin": origin,
        "said": teacher.predict(pool, progress=progress),
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


def _student(
    recipe: DistilledRecipe,
    taught: Mapping[str, Array],
    table: Mapping[str, Array],
    published: Published,
    fold: npt.NDArray[np.int64],
    fit: int,
    progress: bool,
) -> dict[str, Array]:
    """The weights of the student of teacher `fit`: 0 is that of all rows, k + 1 lacks fold k."""
    plan = recipe.student
    pool, own = taught["origin"] != fit - 1, fold != fit - 1
    if fit == 0:
        pool = np.ones_like(pool)  # -1 is other text there
    # The labelled contexts count twice, as the teacher is surest there.
    ids = [taught["pool"][pool], *[published.fitted.input_ids[own]] * 2]
    targets = [taught["said"][pool, fit], *[taught["own"][own, fit]] * 2]
    net = distil(
        np.concatenate(ids),
        np.concatenate(targets),
        table["embeddings"][:, : plan.embedding],
        table["counts"],
        channels=plan.channels,
        kernel=plan.kernel,
        hidden=plan.hidden,
        epochs=plan.epochs,
        batch_size=plan.batch_size,
        learning_rate=plan.learning_rate,
        embedding_learning_rate=plan.embedding_learning_rate,
        seed=recipe.seed,
        progress=progress,
    )
    return {name: tensor.numpy() for name, tensor in net.state_dict().items()}


def _ridge(
    published: Published, labels: _Labels, fold: npt.NDArray[np.int64], vocabulary: int
) -> dict[str, Array]:
    found = fit_baseline(
        published.fitted.input_ids,
        labels.fitted,
        fold,
        vocabulary=vocabulary,
        bigrams=_BASELINE_BIGRAMS,
    )
    weights = {name: tensor.numpy() for name, tensor in found.net.state_dict().items()}
    return {**weights, "strength": np.array(found.strength), "out_of_fold": found.out_of_fold}


def _linear(ridge: Mapping[str, Array]) -> LinearNet:
    net = LinearNet(len(ridge["weight"]) - _BASELINE_BIGRAMS, _BASELINE_BIGRAMS)
    net.load_state_dict({name: torch.from_numpy(ridge[name]) for name in ("weight", "bias")})
    return net.eval()


def _net(recipe: DistilledRecipe, weights: Mapping[str, Array]) -> ConvNet:
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


def _raw(net: Net, input_ids: Array) -> Floats:
    """Raw predictions of contexts [n, length]: float64 [n]."""
    found: list[Tensor] = []
    with torch.no_grad():
        for part in torch.from_numpy(input_ids).split(1024):
            found.append(net(part, torch.ones_like(part, dtype=torch.bool)))
    raw: Floats = torch.cat(found).double().numpy()
    return raw


def _predictions(
    published: Published, labels: _Labels, net: Net, baseline: Net
) -> dict[str, Floats]:
    """Of the rows kept for reporting, in standard deviations of the labels."""
    rows = published.reported
    line = np.polyfit(published.fitted.log_perplexity, labels.fitted, 1)
    return {
        "conv": _raw(net, rows.input_ids),
        "ridge": _raw(baseline, rows.input_ids),
        "log perplexity": line[0] * rows.log_perplexity + line[1],
    }


def _config(
    recipe: DistilledRecipe,
    published: Published,
    labels: _Labels,
    raw: Floats,
    tokenizer: Tokenizer,
    text: str,
) -> LearnerConfig:
    plan, student = recipe.labels, recipe.student
    return LearnerConfig(
        name=recipe.name,
        architecture="conv",
        sizes={
            "vocabulary": tokenizer.get_vocab_size(),
            "embedding": student.embedding,
            "channels": student.channels,
            "kernel": student.kernel,
            "hidden": student.hidden,
        },
        score=Score(labels.mean, labels.sd, plan.unit),
        calibration=Calibration(
            mean=float(raw.mean()),
            sd=float(raw.std()),
            quantiles=tuple(
                np.maximum.accumulate(np.quantile(raw, np.linspace(0, 1, 101))).tolist()
            ),
        ),
        context_length=published.fitted.input_ids.shape[1],
        # The weights themselves are never seen here, and so have no fingerprint.
        base_model=Reference(recipe.base, recipe.revision, "unknown"),
        tokenizer=Reference(recipe.base, recipe.revision, tokenizer_fingerprint(tokenizer)),
        objective={
            "domain": plan.corpus,
            "contexts": plan.objective_contexts,
            "digest": published.digest,
        },
        corpus={
            "name": plan.corpus,
            "description": f"{plan.corpus}, as published; unlabelled text: "
            + describe_sources(recipe.sources),
            "in_domain_share": 1.0,
            "digest": text,
        },
        optimizer={"name": plan.optimizer, "learning_rate": plan.learning_rate},
        labels={
            "count": len(labels.fitted),
            "reported": len(labels.reported),
            "method": plan.method,
            "spearman_with_exact": None,
            "source": plan.source,
            "commit": plan.commit,
            "license": plan.license,
        },
        versions={
            "secondary-learners": version("secondary-learners"),
            "torch": torch.__version__,
            "tokenizers": version("tokenizers"),
            "python": platform.python_version(),
        },
    )


def _entry(recipe: DistilledRecipe, out: Path) -> Entry:
    return Entry(
        name=recipe.name,
        kind="learner",
        summary=recipe.summary,
        base=recipe.base,
        tokenizer=recipe.base,
        corpus=recipe.labels.corpus,
        objective=recipe.labels.corpus,
        architecture="conv",
        optimizer=recipe.labels.optimizer,
        license=recipe.license,
        location="bundled",
        added=datetime.date.today(),
        **file_digests(out),
    )

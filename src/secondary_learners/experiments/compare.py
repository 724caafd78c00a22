"""Does a filter pay? The same fine-tuning with and without it, at equal budgets, over seeds."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from secondary_learners.errors import DivergedError, SecondaryLearnersError, UnknownNameError
from secondary_learners.experiments.candidates import Candidates, Flags, Ids, Select, best_of
from secondary_learners.experiments.comparison import (
    FORMAT,
    Arm,
    Comparison,
    Point,
    Row,
    Run,
    Settings,
)
from secondary_learners.experiments.runs import RunStore
from secondary_learners.experiments.tracking import track
from secondary_learners.files import json_bytes, sha256_bytes
from secondary_learners.filtering.stream import filtered
from secondary_learners.filtering.thresholds import Threshold
from secondary_learners.gains.fingerprints import weights_fingerprint
from secondary_learners.gains.precision import computed_in
from secondary_learners.gains.rows import rows_of
from secondary_learners.gains.subsets import trained
from secondary_learners.gains.trunk import repeated_losses
from secondary_learners.text.sequences import Examples

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from secondary_learners.learners.artifact import Learner

__all__ = ["Arm", "Comparison", "Point", "Row", "Run", "Settings", "compare", "finetune"]

_EVALUATED_TOGETHER = 64


def compare(
    model: PreTrainedModel,
    pool: Examples,
    test: Examples,
    learner: Learner,
    *,
    thresholds: Sequence[Threshold],
    seeds: Sequence[int],
    settings: Settings | None = None,
    in_domain: str | None = None,
    selectors: Mapping[str, Select] | None = None,
    everything: bool = False,
    folder: Path | None = None,
    progress: bool = True,
    device: str | torch.device | None = None,
) -> Comparison:
    """Fine-tune `model` on `pool` in every arm with every seed, and measure it on `test`.

    All arms but "everything drawn" take the same number of updates. A seed fixes the order of the
    candidates, the same for all its arms, and dropout. Filter and model never meet: a skipped
    candidate costs no pass of the model. The design follows figure 1 of Antonello et al. 2021
    (arXiv 2005.00175). The model is trained in place and has its weights, mode and device back
    afterwards, also after an error.

    Args:
        model: a causal language model of transformers.
        pool: contexts of one length to draw from.
        test: contexts whose perplexity is measured.
        learner: as `load_learner` gives it.
        thresholds: each gives a filtered and a randomly skipping arm.
        seeds: one run of every arm each.
        settings: of a run.
        in_domain: a name in `pool.domains`: an arm that draws from that domain only.
        selectors: other ways to select by their names, from token ids [n, length] to scores [n];
            see `selector_arms`. Each keeps as many of the very candidates that the first filtered
            arm drew with that seed, so that it is judged at the same draws and the same updates.
        everything: an arm that trains on all that the first filtered arm drew.
        folder: where finished runs are kept, a file each in `folder/runs`; a comparison that was
            killed goes on from them, and processes with other seeds or thresholds may share it.
        progress: whether a bar is shown.
        device: where to train; by default where the model is.

    Returns:
        The comparison; `rows()` has the figures of each arm, `table()` shows them.

    Raises:
        DivergedError: for a loss that is not finite.
        UnknownNameError: for an unknown domain.
        SecondaryLearnersError: for a folder of another comparison.
    """
    settings = settings or Settings()
    if not len(pool) or not len(test) or not seeds:
        raise SecondaryLearnersError(
            f"a comparison needs candidates, test contexts and seeds, and has {len(pool)}, "
            f"{len(test)} and {len(seeds)}. Try a larger corpus, or `--seeds 6`."
        )
    present = {pool.domains[number] for number in np.unique(pool.domain)}
    if in_domain is not None and in_domain not in present:
        raise UnknownNameError("domain", in_domain, present, "learners finetune --help")
    selectors = selectors or {}
    arms = _arms(thresholds, in_domain, list(selectors), everything)
    for what, values in (("seed", seeds), ("arm", [arm.name for arm in arms])):
        if len(set(values)) < len(values):  # a run counted twice would look like evidence
            raise SecondaryLearnersError(f"a {what} is given twice in {values}. Try each once.")
    store = RunStore.begin(folder, _identity(model, pool, test, learner, settings))
    runs: dict[tuple[str, int], Run] = {}
    with _trainer(model, pool, test, learner, settings, device) as trainer:
        for seed, arm in _with_progress([(s, a) for s in seeds for a in arms], progress):
            kept = store.read(f"{arm.name}-seed-{seed}", arm=arm.name, seed=seed)
            if kept is not None:
                run = Run.from_dict(kept.figures, kept.arrays.get("losses"))
            else:
                drawn = _drawn(arm, arms, seed, runs)
                run = trainer.run(arm, seed, drawn, in_domain, selectors.get(arm.name))
                assert run.losses is not None
                store.write(
                    f"{arm.name}-seed-{seed}",
                    run.to_dict(),
                    {"losses": run.losses},
                    arm=arm.name,
                    seed=seed,
                )
            runs[arm.name, seed] = run
    ordered = tuple(runs[arm.name, seed] for arm in arms for seed in seeds)
    return Comparison(settings, arms, tuple(seeds), ordered, test.document)


def finetune(
    model: PreTrainedModel,
    pool: Examples,
    test: Examples,
    learner: Learner,
    *,
    threshold: Threshold,
    seed: int = 0,
    settings: Settings | None = None,
    device: str | torch.device | None = None,
) -> Run:
    """Fine-tune `model` in place on what `learner` keeps of `pool`; its curve on `test`.

    The same run as the filtered arm of `compare` with this seed, but the model keeps what it
    learnt. Raises DivergedError for a loss that is not finite.
    """
    settings = settings or Settings()
    with _trainer(model, pool, test, learner, settings, device, keep=True) as trainer:
        run = trainer.run(Arm(str(threshold), "filtered", threshold), seed, None, None, None)
    model.eval()
    return run


def _arms(
    thresholds: Sequence[Threshold], in_domain: str | None, selectors: list[str], everything: bool
) -> tuple[Arm, ...]:
    arms = [Arm("standard", "standard")]
    arms += [Arm(str(threshold), "filtered", threshold) for threshold in thresholds]
    arms += [Arm(f"random {threshold}", "random", threshold) for threshold in thresholds]
    first = thresholds[0] if thresholds else None
    if first is None and (selectors or everything):
        raise SecondaryLearnersError(
            "other ways to select are judged at the draws of a filtered arm, and there is no "
            "threshold. Give one, such as 1."
        )
    arms += [Arm(name, "selector", first) for name in selectors]
    if everything:
        arms.append(Arm("everything drawn", "everything", first))
    if in_domain is not None:
        arms.append(Arm(f"{in_domain} only", "in-domain"))
    return tuple(arms)


def _drawn(
    arm: Arm, arms: Sequence[Arm], seed: int, runs: dict[tuple[str, int], Run]
) -> int | None:
    """How many candidates the filtered arm drew that this arm is held against; None without."""
    if arm.kind not in ("random", "selector", "everything"):
        return None
    filtered_arm = next(a for a in arms if (a.kind, a.threshold) == ("filtered", arm.threshold))
    return runs[filtered_arm.name, seed].points[-1].drawn_contexts


def _identity(
    model: PreTrainedModel, pool: Examples, test: Examples, learner: Learner, settings: Settings
) -> dict[str, Any]:
    """Everything that a run's figures depend on, but for its arm and seed."""
    config = sha256_bytes(json_bytes(learner.config.to_dict()))
    return {
        "format_version": FORMAT,
        "settings": _settings(settings),
        "pool": pool.digest,
        "test": test.digest,
        "model": weights_fingerprint(model),
        "learner": sha256_bytes(f"{config} {weights_fingerprint(learner.net)}".encode()),
    }


def _settings(settings: Settings) -> dict[str, Any]:
    """Those of a folder; what came later is left out where it is as it was before."""
    later = {each.name: each.default for each in fields(settings) if each.name in _LATER}
    values = asdict(settings)
    return {name: values[name] for name in values if values[name] != later.get(name, ...)}


_LATER = ("trainable", "precision")


def _with_progress(work: list[tuple[int, Arm]], progress: bool) -> Iterator[tuple[int, Arm]]:
    from tqdm import tqdm

    bar = tqdm(work, unit="run", disable=not progress)
    for seed, arm in bar:
        bar.set_description(f"{arm.name}, seed {seed}")
        yield seed, arm


@contextmanager
def _trainer(
    model: PreTrainedModel,
    pool: Examples,
    test: Examples,
    learner: Learner,
    settings: Settings,
    device: str | torch.device | None,
    *,
    keep: bool = False,
) -> Iterator[_Trainer]:
    """The model on its device, ready to be tuned; afterwards it is as it came.

    keep: whether it keeps what it learns; its device and what requires gradients it has back.
    """
    module: torch.nn.Module = model
    home, training = next(module.parameters()).device, module.training
    module.to(torch.device(device) if device is not None else home)
    try:
        with trained(module, settings.trainable), computed_in(module, settings.precision):
            trainer = _Trainer(module, pool, test, learner, settings)
            try:
                yield trainer
            finally:
                if not keep:
                    trainer.rewind()
    finally:
        module.train(training)
        module.to(home)


class _Trainer:
    """Runs on one model in place, each from the same weights."""

    def __init__(
        self,
        model: torch.nn.Module,
        pool: Examples,
        test: Examples,
        learner: Learner,
        settings: Settings,
    ) -> None:
        self._model, self._pool = model, pool
        self._learner, self._settings = learner, settings
        self._device = next(model.parameters()).device
        self._moving = [p for p in model.parameters() if p.requires_grad]
        held = [*self._moving, *model.buffers()]
        self._backup = [(tensor, tensor.detach().clone()) for tensor in held]
        tokens = _EVALUATED_TOGETHER * test.length
        self._test_losses = repeated_losses(model, rows_of(test, self._device), tokens)
        self._before: npt.NDArray[np.float64] | None = None

    def rewind(self) -> None:
        with torch.no_grad():
            for tensor, backup in self._backup:
                tensor.copy_(backup)
        self._model.zero_grad(set_to_none=True)

    def run(
        self, arm: Arm, seed: int, drawn: int | None, domain: str | None, select: Select | None
    ) -> Run:
        """drawn: by the filtered arm that this one is held against; select: of a selector arm."""
        self.rewind()
        self._model.eval()
        cuda = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda):
            torch.manual_seed(seed)
            inside = None
            if domain is not None:
                inside = self._pool.domain == self._pool.domains.index(domain)
            begun = time.perf_counter()
            source = self._candidates(arm, seed, drawn, inside, select)
            seconds = time.perf_counter() - begun
            return self._train(arm, seed, source, drawn, inside, seconds)

    def _candidates(
        self, arm: Arm, seed: int, drawn: int | None, inside: Flags | None, select: Select | None
    ) -> Candidates:
        kept = self._settings.updates * self._settings.batch_size
        if arm.kind == "random" and drawn is not None:
            return Candidates(self._pool, seed, rate=kept / drawn)
        if arm.kind == "selector" and drawn is not None and select is not None:
            return Candidates(
                self._pool, seed, first=best_of(self._pool, seed, drawn, kept, select)
            )
        return Candidates(self._pool, seed, present=inside if arm.kind == "in-domain" else None)

    def _train(
        self,
        arm: Arm,
        seed: int,
        candidates: Candidates,
        drawn: int | None,
        inside: Flags | None,
        seconds: float,
    ) -> Run:
        settings = self._settings
        optimizer = torch.optim.AdamW(
            self._moving, lr=settings.learning_rate, eps=1e-8, weight_decay=0.0
        )
        stream = None
        if arm.threshold is not None and arm.kind == "filtered":
            stream = filtered(
                candidates, self._learner, arm.threshold, batch_size=settings.batch_size
            )
        if self._before is None:
            self._before = self._evaluate(arm, seed, 0)
        points = [Point(0, 0, 0, 0.0, _perplexity(self._before))]
        batches = iter(stream) if stream is not None else _batched(candidates, settings.batch_size)
        updates, every = settings.updates, float(settings.evaluate_every)
        if arm.kind == "everything" and drawn is not None:  # as many points, on a longer way
            updates = drawn // settings.batch_size
            every *= updates / settings.updates
        marks = {round(every * n) for n in range(1, updates + 1)}
        places: list[int] = []
        losses = self._before
        for update in range(1, updates + 1):
            start = time.perf_counter()
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * (1 - (update - 1) / updates)
            batch = next(batches)
            places += [example["place"] for example in batch]
            loss = self._step([example["input_ids"] for example in batch], optimizer)
            seconds += time.perf_counter() - start
            if not math.isfinite(loss):
                raise _diverged(arm, seed, update, "training loss", loss)
            if update in marks or update == updates:
                count = stream.report.seen if stream is not None else candidates.drawn
                losses = self._evaluate(arm, seed, update)
                tokens = count * self._pool.length
                figures = round(seconds, 4), _perplexity(losses)
                points.append(Point(update, count, tokens, *figures))
                track({f"{arm.name}/seed {seed}/perplexity": points[-1].perplexity}, update)
        forced = stream.report.forced if stream is not None else 0
        share = None if inside is None else float(inside[places].mean())
        return Run(arm.name, seed, forced, tuple(points), share, losses)

    def _step(self, batch: list[Ids], optimizer: torch.optim.Optimizer) -> float:
        self._model.train()
        ids = torch.from_numpy(np.stack(batch)).to(self._device)
        logits = (
            self._model(input_ids=ids).logits[:, :-1].float()
        )  # [batch, length - 1, vocabulary]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._moving, self._settings.max_grad_norm)
        optimizer.step()
        return loss.item()

    def _evaluate(self, arm: Arm, seed: int, update: int) -> npt.NDArray[np.float64]:
        """The mean next-token loss of each test context, in nats."""
        self._model.eval()
        losses: npt.NDArray[np.float64] = self._test_losses().double().cpu().numpy()
        if not losses.mean() < 700:  # beyond it, or not a number, exp overflows
            raise _diverged(arm, seed, update, "test loss", float(losses.mean()))
        return losses


def _perplexity(losses: npt.NDArray[np.float64]) -> float:
    return math.exp(losses.mean())


def _batched(source: Iterable[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    examples = iter(source)
    while True:
        yield [next(examples) for _ in range(size)]


def _diverged(arm: Arm, seed: int, update: int, what: str, value: float) -> DivergedError:
    return DivergedError(
        f"the {what} of arm {arm.name!r}, seed {seed} is {value} at update {update}. "
        "Try a lower --learning-rate."
    )

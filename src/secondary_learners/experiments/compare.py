"""Does a filter pay? The same fine-tuning with and without it, at equal budgets, over seeds."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from secondary_learners.errors import DivergedError, SecondaryLearnersError, UnknownNameError
from secondary_learners.experiments.runs import RunStore
from secondary_learners.experiments.statistics import (
    mean,
    permutation_test,
    standard_error,
    updates_to_reach,
)
from secondary_learners.experiments.tracking import track
from secondary_learners.files import json_bytes, sha256_bytes
from secondary_learners.filtering.stream import filtered
from secondary_learners.filtering.thresholds import Threshold, parse_threshold
from secondary_learners.gains.fingerprints import weights_fingerprint
from secondary_learners.text.sequences import Examples

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from secondary_learners.learners.artifact import Learner

__all__ = ["Arm", "Comparison", "Point", "Row", "Run", "Settings", "compare", "finetune"]

_FORMAT = 1
_EVALUATED_TOGETHER = 64
_HEAD = (
    "arm",
    "perplexity",
    "drawn per kept",
    "p (standard)",
    "p (random)",
    "updates to standard",
    "seconds",
)


@dataclass(frozen=True)
class Settings:
    """One fine-tuning run: AdamW without weight decay, its learning rate falling to 0."""

    updates: int = 60
    batch_size: int = 16
    learning_rate: float = 2e-4
    evaluate_every: int = 10
    max_grad_norm: float = 3.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not (math.isfinite(value) and value > 0):
                raise SecondaryLearnersError(
                    f"the setting {name} is {value!r}, and must be above 0. "
                    "Try `learners finetune --help`."
                )


@dataclass(frozen=True)
class Arm:
    """One way of choosing what to train on.

    kind: "standard" takes every candidate; "filtered" those whose score reaches `threshold`;
        "random" skips as many as the filtered arm of that threshold and seed, but blindly;
        "in-domain" takes every candidate of one domain.
    """

    name: str
    kind: str
    threshold: Threshold | None = None


@dataclass(frozen=True)
class Point:
    """One evaluation: after `update` updates, which drew so many candidates.

    seconds: training and filtering so far, without evaluation. perplexity: on the test contexts.
    """

    update: int
    drawn_contexts: int
    drawn_tokens: int
    seconds: float
    perplexity: float


@dataclass(frozen=True)
class Run:
    """One arm with one seed. forced: contexts taken under the threshold, see `max_skips`."""

    arm: str
    seed: int
    forced: int
    points: tuple[Point, ...]

    @property
    def perplexity(self) -> float:
        return self.points[-1].perplexity

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Run:
        points = tuple(Point(**point) for point in data["points"])
        return cls(data["arm"], data["seed"], data["forced"], points)


@dataclass(frozen=True)
class Row:
    """One arm over all seeds.

    perplexity, error: final test perplexity, mean and standard error (None with one seed).
    drawn_per_kept: candidates drawn for each one trained on.
    p_standard, p_random: two-sided p of a paired permutation test over the seeds, against the
        standard arm and (filtered arms only) against random skipping at the same rate.
    updates_to_standard: updates after which the mean curve is at the standard arm's final one.
    seconds: training and filtering, mean of the seeds.
    """

    arm: str
    kind: str
    perplexity: float
    error: float | None
    drawn_per_kept: float
    p_standard: float | None
    p_random: float | None
    updates_to_standard: float | None
    seconds: float


@dataclass(frozen=True)
class Comparison:
    """All runs of a comparison, by arm in order and then by seed."""

    settings: Settings
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    runs: tuple[Run, ...]

    def of(self, arm: Arm) -> list[Run]:
        """The runs of one arm, in the order of `seeds`."""
        return [run for run in self.runs if run.arm == arm.name]

    def curves(self, arm: Arm) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """The updates [points] and the test perplexities [seeds, points] of one arm."""
        runs = self.of(arm)
        updates = np.array([point.update for point in runs[0].points], dtype=np.int64)
        values = [[point.perplexity for point in run.points] for run in runs]
        return updates, np.array(values, dtype=np.float64)

    def rows(self) -> list[Row]:
        """The arms' figures, as `table` shows them."""
        standard = self._finals(self.arms[0])
        return [self._row(arm, standard) for arm in self.arms]

    def _finals(self, arm: Arm) -> list[float]:
        return [run.perplexity for run in self.of(arm)]

    def _row(self, arm: Arm, standard: list[float]) -> Row:
        finals, last = self._finals(arm), [run.points[-1] for run in self.of(arm)]
        random = [
            other
            for other in self.arms
            if arm.kind == "filtered" and (other.kind, other.threshold) == ("random", arm.threshold)
        ]
        updates, values = self.curves(arm)
        kept = self.settings.updates * self.settings.batch_size
        return Row(
            arm=arm.name,
            kind=arm.kind,
            perplexity=mean(finals),
            error=standard_error(finals),
            drawn_per_kept=mean([point.drawn_contexts for point in last]) / kept,
            p_standard=None if arm.kind == "standard" else permutation_test(finals, standard),
            p_random=permutation_test(finals, self._finals(random[0])) if random else None,
            updates_to_standard=updates_to_reach(
                updates.tolist(), values.mean(axis=0).tolist(), mean(standard)
            ),
            seconds=mean([point.seconds for point in last]),
        )

    def table(self) -> str:
        """The arms as aligned text, with a line above that says what was measured."""
        settings, before = self.settings, self.runs[0].points[0].perplexity
        title = (
            f"Test perplexity after {settings.updates} updates of {settings.batch_size} contexts, "
            f"{len(self.seeds)} {'seed' if len(self.seeds) == 1 else 'seeds'} "
            f"(mean ± standard error; {before:.2f} before)"
        )
        lines = [_HEAD, *map(_cells, self.rows())]
        widths = [max(len(line[column]) for line in lines) for column in range(len(_HEAD))]
        text = [
            "  ".join(
                cell.ljust(width) if column == 0 else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        ]
        rule = "  ".join("-" * width for width in widths)
        return "\n".join([title, "", text[0], rule, *text[1:]])

    def to_dict(self) -> dict[str, Any]:
        """The comparison in JSON's types; `from_dict` reads it back."""
        return {
            "format_version": _FORMAT,
            "settings": asdict(self.settings),
            "arms": [
                {"name": arm.name, "kind": arm.kind, "threshold": _text(arm.threshold)}
                for arm in self.arms
            ],
            "seeds": list(self.seeds),
            "runs": [run.to_dict() for run in self.runs],
            "rows": [asdict(row) for row in self.rows()],
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Comparison:
        if data["format_version"] > _FORMAT:
            raise SecondaryLearnersError(
                f"this comparison has format {data['format_version']}, newer than {_FORMAT}. "
                "Try `pip install --upgrade secondary-learners`."
            )
        arms = tuple(
            Arm(
                arm["name"],
                arm["kind"],
                parse_threshold(arm["threshold"]) if arm["threshold"] else None,
            )
            for arm in data["arms"]
        )
        runs = tuple(map(Run.from_dict, data["runs"]))
        return cls(Settings(**data["settings"]), arms, tuple(data["seeds"]), runs)


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
    folder: Path | None = None,
    progress: bool = True,
    device: str | torch.device | None = None,
) -> Comparison:
    """Fine-tune `model` on `pool` in every arm with every seed, and measure it on `test`.

    The arms: standard; one filtered and one randomly skipping arm for each threshold; and, given
    `in_domain` (a name in `pool.domains`), one that draws from that domain only. All arms take the
    same number of updates. A seed fixes the order of the candidates, the same for all its arms,
    and dropout. Filter and model never meet: a skipped candidate costs no pass of the model.

    folder: where finished runs are kept, one JSON file each in `folder/runs`; a comparison that was
        killed goes on from them, and processes with other seeds or thresholds may share it.
    device: where to train; by default where the model is.

    The model is trained in place and has its weights, mode and device back afterwards, also after
    an error.

    Raises DivergedError for a loss that is not finite, UnknownNameError for an unknown domain and
    SecondaryLearnersError for a folder of another comparison. The design follows figure 1 of
    Antonello et al. 2021 (arXiv 2005.00175).
    """
    settings = settings or Settings()
    if not len(pool) or not len(test) or not seeds:
        raise SecondaryLearnersError(
            f"a comparison needs candidates, test contexts and seeds, and has {len(pool)}, "
            f"{len(test)} and {len(seeds)}. Try a larger corpus, or `--seeds 5`."
        )
    present = {pool.domains[number] for number in np.unique(pool.domain)}
    if in_domain is not None and in_domain not in present:
        raise UnknownNameError("domain", in_domain, present, "learners finetune --help")
    arms = _arms(thresholds, in_domain)
    for what, values in (("seed", seeds), ("arm", [arm.name for arm in arms])):
        if len(set(values)) < len(values):  # a run counted twice would look like evidence
            raise SecondaryLearnersError(f"a {what} is given twice in {values}. Try each once.")
    store = RunStore.begin(folder, _identity(model, pool, test, learner, settings))
    trainer = _Trainer(model, pool, test, learner, settings, device)
    runs: dict[tuple[str, int], Run] = {}
    try:
        for seed, arm in _with_progress([(s, a) for s in seeds for a in arms], progress):
            kept = store.read(f"{arm.name}-seed-{seed}", arm=arm.name, seed=seed)
            if kept is not None:
                run = Run.from_dict(kept.figures)
            else:
                keep = _keep_rate(arm, arms, seed, runs, settings)
                run = trainer.run(arm, seed, keep, in_domain)
                store.write(f"{arm.name}-seed-{seed}", run.to_dict(), arm=arm.name, seed=seed)
            runs[arm.name, seed] = run
    finally:
        trainer.restore()
    ordered = tuple(runs[arm.name, seed] for arm in arms for seed in seeds)
    return Comparison(settings, arms, tuple(seeds), ordered)


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
    trainer = _Trainer(model, pool, test, learner, settings, device)
    run = trainer.run(Arm(str(threshold), "filtered", threshold), seed, 1.0, None)
    model.eval()
    return run


def _arms(thresholds: Sequence[Threshold], in_domain: str | None) -> tuple[Arm, ...]:
    arms = [Arm("standard", "standard")]
    arms += [Arm(str(threshold), "filtered", threshold) for threshold in thresholds]
    arms += [Arm(f"random {threshold}", "random", threshold) for threshold in thresholds]
    if in_domain is not None:
        arms.append(Arm(f"{in_domain} only", "in-domain"))
    return tuple(arms)


def _keep_rate(
    arm: Arm, arms: Sequence[Arm], seed: int, runs: dict[tuple[str, int], Run], settings: Settings
) -> float:
    """The share that a random arm keeps: that of its filtered arm with the same seed."""
    if arm.kind != "random":
        return 1.0
    filtered_arm = next(a for a in arms if (a.kind, a.threshold) == ("filtered", arm.threshold))
    drawn = runs[filtered_arm.name, seed].points[-1].drawn_contexts
    return settings.updates * settings.batch_size / drawn


def _identity(
    model: PreTrainedModel, pool: Examples, test: Examples, learner: Learner, settings: Settings
) -> dict[str, Any]:
    """Everything that a run's figures depend on, but for its arm and seed."""
    config = sha256_bytes(json_bytes(learner.config.to_dict()))
    return {
        "format_version": _FORMAT,
        "settings": asdict(settings),
        "pool": pool.digest,
        "test": test.digest,
        "model": weights_fingerprint(model),
        "learner": sha256_bytes(f"{config} {weights_fingerprint(learner.net)}".encode()),
    }


def _with_progress(work: list[tuple[int, Arm]], progress: bool) -> Iterator[tuple[int, Arm]]:
    from tqdm import tqdm

    bar = tqdm(work, unit="run", disable=not progress)
    for seed, arm in bar:
        bar.set_description(f"{arm.name}, seed {seed}")
        yield seed, arm


class _Trainer:
    """Runs on one model in place, each from the same weights."""

    def __init__(
        self,
        model: torch.nn.Module,
        pool: Examples,
        test: Examples,
        learner: Learner,
        settings: Settings,
        device: str | torch.device | None,
    ) -> None:
        self._model = model
        self._pool, self._learner, self._settings = pool, learner, settings
        self._training = model.training
        self._home = next(self._model.parameters()).device
        self._device = torch.device(device) if device is not None else self._home
        self._model.to(self._device)
        self._test = torch.from_numpy(test.input_ids).to(self._device)
        # Each tensor once, where a state_dict would hold tied weights twice.
        self._backup = [(tensor, tensor.detach().clone()) for tensor in self._tensors()]
        self._before: float | None = None

    def _tensors(self) -> Iterator[torch.Tensor]:
        yield from self._model.parameters()
        yield from self._model.buffers()

    def _rewind(self) -> None:
        with torch.no_grad():
            for tensor, backup in self._backup:
                tensor.copy_(backup)
        self._model.zero_grad(set_to_none=True)

    def restore(self) -> None:
        """Give the model back as it came."""
        self._rewind()
        self._model.train(self._training)
        self._model.to(self._home)

    def run(self, arm: Arm, seed: int, keep: float, in_domain: str | None) -> Run:
        self._rewind()
        cuda = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda):
            torch.manual_seed(seed)
            return self._train(arm, seed, _Candidates(self._pool, arm, seed, keep, in_domain))

    def _train(self, arm: Arm, seed: int, candidates: _Candidates) -> Run:
        settings, model = self._settings, self._model
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(
            parameters, lr=settings.learning_rate, eps=1e-8, weight_decay=0.0
        )
        stream = None
        source: Iterator[Any] = iter(candidates)
        if arm.threshold is not None and arm.kind == "filtered":
            stream = filtered(source, self._learner, arm.threshold, batch_size=settings.batch_size)
        if self._before is None:
            self._before = self._evaluate(arm, seed, 0)
        points = [Point(0, 0, 0, 0.0, self._before)]
        batches = iter(stream) if stream is not None else _batched(source, settings.batch_size)
        seconds = 0.0
        for update in range(1, settings.updates + 1):
            start = time.perf_counter()
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * (1 - (update - 1) / settings.updates)
            loss = self._step(next(batches), optimizer, parameters)
            seconds += time.perf_counter() - start
            if not math.isfinite(loss):
                raise _diverged(arm, seed, update, "training loss", loss)
            if update % settings.evaluate_every == 0 or update == settings.updates:
                drawn = stream.report.seen if stream is not None else candidates.drawn
                points.append(
                    Point(
                        update,
                        drawn,
                        drawn * self._pool.length,
                        round(seconds, 4),
                        self._evaluate(arm, seed, update),
                    )
                )
                track({f"{arm.name}/seed {seed}/perplexity": points[-1].perplexity}, update)
        return Run(arm.name, seed, stream.report.forced if stream is not None else 0, tuple(points))

    def _step(
        self,
        batch: list[npt.NDArray[np.int64]],
        optimizer: torch.optim.Optimizer,
        parameters: list[torch.nn.Parameter],
    ) -> float:
        self._model.train()
        ids = torch.from_numpy(np.stack(batch)).to(self._device)
        loss = self._losses(ids).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, self._settings.max_grad_norm)
        optimizer.step()
        return loss.item()

    def _losses(self, ids: torch.Tensor) -> torch.Tensor:
        """The loss of each predicted token [batch * (length - 1)], in nats."""
        logits = (
            self._model(input_ids=ids).logits[:, :-1].float()
        )  # [batch, length - 1, vocabulary]
        return torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none"
        )

    def _evaluate(self, arm: Arm, seed: int, update: int) -> float:
        self._model.eval()
        total = torch.zeros((), dtype=torch.float64, device=self._device)
        with torch.inference_mode():
            for first in range(0, len(self._test), _EVALUATED_TOGETHER):
                ids = self._test[first : first + _EVALUATED_TOGETHER]
                total += self._losses(ids).sum(dtype=torch.float64)
        nats = total.item() / (len(self._test) * (self._test.shape[1] - 1))
        if not nats < 700:  # beyond it, or not a number, exp overflows
            raise _diverged(arm, seed, update, "test loss", nats)
        return math.exp(nats)


class _Candidates:
    """The endless order of one seed: permutations of the pool, one after the other.

    The in-domain arm meets its candidates in the same order, with all others absent; a random arm
    drops candidates by a coin of its own, so that every arm of a seed sees one order.
    """

    def __init__(
        self, pool: Examples, arm: Arm, seed: int, keep: float, in_domain: str | None
    ) -> None:
        self._ids, self._keep = pool.input_ids, keep
        self._order, self._coin = np.random.default_rng([seed, 0]), np.random.default_rng([seed, 1])
        self._present = np.ones(len(pool), dtype=bool)
        if arm.kind == "in-domain" and in_domain is not None:
            self._present = pool.domain == pool.domains.index(in_domain)
        self.drawn = 0

    def __iter__(self) -> Iterator[npt.NDArray[np.int64]]:
        while True:
            for place in self._order.permutation(len(self._ids)):
                if self._present[place]:
                    self.drawn += 1
                    if self._keep >= 1 or self._coin.random() < self._keep:
                        yield self._ids[place]


def _batched(
    source: Iterator[npt.NDArray[np.int64]], size: int
) -> Iterator[list[npt.NDArray[np.int64]]]:
    while True:
        yield [next(source) for _ in range(size)]


def _diverged(arm: Arm, seed: int, update: int, what: str, value: float) -> DivergedError:
    return DivergedError(
        f"the {what} of arm {arm.name!r}, seed {seed} is {value} at update {update}. "
        "Try a lower --learning-rate."
    )


def _text(threshold: Threshold | None) -> str | None:
    return None if threshold is None else str(threshold)


def _cells(row: Row) -> tuple[str, ...]:
    def shown(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    error = "" if row.error is None else f" ± {row.error:.2f}"
    return (
        row.arm,
        f"{row.perplexity:.2f}{error}",
        shown(row.drawn_per_kept, ".2f"),
        shown(row.p_standard, ".3g"),
        shown(row.p_random, ".3g"),
        shown(row.updates_to_standard, ".1f"),
        shown(row.seconds, ".1f"),
    )

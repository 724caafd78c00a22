"""One trial: a classifier fine-tuned from two seeds, evaluated on its way.

The initialization seed sets the weights of the layers that the base model does not have, and
nothing else. The order seed sets everything from then on: the order of the examples and dropout.
Neither depends on the other, nor on the filter: two trials with the same initialization seed start
from the same weights, two with the same order seed draw the same candidates in the same order.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.torch
import torch

from secondary_learners.errors import TrialsError, UnknownNameError
from secondary_learners.experiments.checkpoint import held, restore
from secondary_learners.files import atomic_path
from secondary_learners.filtering.selection import Scorer
from secondary_learners.filtering.stream import FilteredStream, filtered
from secondary_learners.filtering.thresholds import Threshold
from secondary_learners.tasks.batches import halves
from secondary_learners.tasks.classifier import Backbone, Head
from secondary_learners.tasks.encoding import Encoded, EncodedTask
from secondary_learners.tasks.metrics import score
from secondary_learners.tasks.training import predict, rate_share, set_rates, update

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = [
    "PRECISIONS",
    "Evaluation",
    "Job",
    "KnownScores",
    "TrialSettings",
    "Work",
    "candidates",
    "evaluation_steps",
    "train",
]

PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class TrialSettings:
    """How every trial of a sweep is trained: AdamW without weight decay.

    The learning rate rises over the first `warmup` of the steps and then falls to 0. epochs count
    batches, not examples seen: with a filter, as many steps as without. evaluations: per epoch, on
    all of the task's dev examples. max_length: in tokens, or less where the model takes less.
    threads: of each process; figures may differ in their last
    digits with another number, so it is fixed and does not follow the machine. precision: of the
    matrix products, float32 or bfloat16, which takes half of the time where a core has it; weights
    and the optimizer's state are float32 in both.
    """

    epochs: float = 3.0
    batch_size: int = 16
    learning_rate: float = 2e-4
    warmup: float = 0.1
    max_grad_norm: float = 1.0
    evaluations: int = 10
    max_length: int = 128
    threads: int = 1
    precision: str = "float32"

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise UnknownNameError(
                "precision", self.precision, PRECISIONS, "learners trials run --help"
            )
        for name, value in asdict(self).items():
            if name == "precision":
                continue
            least = 0 <= value < 1 if name == "warmup" else value > 0
            if not (math.isfinite(value) and least):
                wanted = "at least 0 and below 1" if name == "warmup" else "above 0"
                raise TrialsError(
                    f"the setting {name} is {value!r}, and must be {wanted}. "
                    "Try `learners trials run --help`."
                )

    def steps(self, examples: int) -> int:
        """How many batches a trial takes on so many training examples."""
        return math.ceil(self.epochs * examples / self.batch_size)


def evaluation_steps(settings: TrialSettings, examples: int) -> tuple[int, ...]:
    """After which steps a trial is evaluated, the last step among them."""
    steps = settings.steps(examples)
    count = max(1, round(settings.epochs * settings.evaluations))
    return tuple(sorted({max(1, round(place * steps / count)) for place in range(1, count + 1)}))


@dataclass(frozen=True)
class KnownScores:
    """A learner whose scores of the training examples were measured before; stands in for it.

    A "sequence" is the place of one example. quantiles: of the learner, at 0, 0.01, ... 1.
    """

    scores: npt.NDArray[np.float64]
    quantiles: tuple[float, ...]

    def score(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, /) -> torch.Tensor:
        return torch.from_numpy(self.scores[input_ids[:, 0].numpy()])

    def quantile(self, q: float, /) -> float:
        return float(np.interp(q, np.linspace(0, 1, len(self.quantiles)), self.quantiles))

    def check_vocabulary(self, size: int, /) -> None:
        """Scores computed beforehand fit the examples that they are of."""

    def check_tokenizer(self, tokenizer: Any, /) -> None:
        return None

    @classmethod
    def of(cls, learner: Scorer, examples: Encoded) -> KnownScores:
        from secondary_learners.filtering.selection import pad

        scores: list[float] = []
        for begin in range(0, len(examples), 64):
            ids, mask = pad(examples.ids[begin : begin + 64])
            scores += learner.score(torch.from_numpy(ids), torch.from_numpy(mask)).tolist()
        quantiles = tuple(learner.quantile(share / 100) for share in range(101))
        return cls(np.array(scores), quantiles)

    @classmethod
    def blind(cls, examples: int, order_seed: int) -> KnownScores:
        """Scores that say nothing: even between 0 and 1, others for each order of the examples."""
        scores = np.random.default_rng([order_seed, 1]).random(examples)
        return cls(scores, tuple(np.linspace(0, 1, 101).tolist()))


@dataclass(frozen=True)
class Work:
    """What every process of a sweep knows.

    fingerprint: of the base. filters: by (task, arm); none for an arm without one, and no scores
    for one that skips blindly.
    """

    base: Backbone
    fingerprint: str
    tasks: Mapping[str, EncodedTask]
    filters: Mapping[tuple[str, str], tuple[KnownScores | None, Threshold]]
    settings: TrialSettings
    device: str = "cpu"


@dataclass(frozen=True)
class Job:
    """A trial, or the part of it after step `begin`, from the state in `resume`.

    until: the step it goes to. keep: where its state is then written.
    """

    task: str
    arm: str
    number: int
    init_seed: int
    order_seed: int
    until: int
    begin: int = 0
    resume: Path | None = None
    keep: Path | None = None


@dataclass(frozen=True)
class Evaluation:
    """After `step` steps. loss: mean on dev, in nats, None where it is not finite.

    seconds: of training and filtering so far in this process. constant: all dev examples were
    given one class. broken: the training loss or the weights are not finite: from then on the score
    is that of the most frequent class. seen, kept: candidates of the filter so far.
    """

    step: int
    score: float
    loss: float | None
    seconds: float
    constant: bool
    broken: bool
    seen: int
    kept: int


def candidates(examples: int, order_seed: int) -> Iterator[int]:
    """The endless order of one seed: random orders of all examples, one after the other."""
    rng = np.random.default_rng([order_seed, 0])
    while True:
        yield from rng.permutation(examples).tolist()


class _Batches:
    """The batches of a trial, as places of training examples; drawn: candidates so far."""

    def __init__(self, work: Work, job: Job) -> None:
        self._size = work.settings.batch_size
        self._kept = 0
        self._stream: FilteredStream | None = None
        examples = len(work.tasks[job.task].train)
        places = candidates(examples, job.order_seed)
        filter_ = work.filters.get((job.task, job.arm))
        if filter_ is None:
            self._batches: Iterator[Sequence[Any]] = iter(
                lambda: [next(places) for _ in range(self._size)], []
            )
        else:
            rows = (np.array([place]) for place in places)
            scores = filter_[0] or KnownScores.blind(examples, job.order_seed)
            self._stream = filtered(rows, scores, filter_[1], batch_size=self._size)
            self._batches = iter(self._stream)

    def __next__(self) -> list[int]:
        batch = [int(place) for place in np.ravel(next(self._batches))]
        self._kept += len(batch)
        return batch

    @property
    def seen(self) -> int:
        return self._stream.report.seen if self._stream is not None else self._kept

    @property
    def kept(self) -> int:
        return self._kept


def train(work: Work, job: Job) -> Iterator[Evaluation]:
    """Do `job`, giving each evaluation as it is made; to be run to its end.

    A trial whose loss or weights are not finite is not trained further: every evaluation that is
    left, to the end of the training, is given at once as broken.
    """
    task, settings = work.tasks[job.task], work.settings
    device = torch.device(work.device)
    steps = settings.steps(len(task.train))
    points = evaluation_steps(settings, len(task.train))
    model = work.base.classifier(Head(len(task.classes), job.init_seed, task.pad))
    torch.nn.Module.to(model, device)  # PreTrainedModel.to lost its types
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=settings.learning_rate, weight_decay=0.0, fused=True
    )
    batches = _Batches(work, job)
    for _ in range(job.begin):
        next(batches)
    seconds, bfloat16 = 0.0, settings.precision == "bfloat16"
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(job.order_seed)
        if job.resume is not None:
            _restore(job.resume, model, optimizer, device)
        for step in range(job.begin + 1, job.until + 1):
            begun = time.perf_counter()
            set_rates(optimizer, rate_share(step, steps, settings.warmup * steps))
            loss = update(
                model,
                optimizer,
                task.train,
                halves(next(batches), task.train.lengths),
                max_grad_norm=settings.max_grad_norm,
                bfloat16=bfloat16,
            )
            seconds += time.perf_counter() - begun
            broken = not math.isfinite(loss)
            if not broken and step in points:
                evaluated = _evaluate(model, task, bfloat16)
                broken = evaluated is None
                if evaluated is not None:
                    value, nats, constant = evaluated
                    seen, kept = batches.seen, batches.kept
                    yield Evaluation(step, value, nats, seconds, constant, False, seen, kept)
            if broken:
                for point in (point for point in points if point >= step):
                    seen, kept = batches.seen, batches.kept
                    yield Evaluation(point, task.floor, None, seconds, True, True, seen, kept)
                return
        if job.keep is not None:
            _keep(job.keep, model, optimizer, device)


def _evaluate(
    model: PreTrainedModel, task: EncodedTask, bfloat16: bool
) -> tuple[float, float, bool] | None:
    """Score, loss, and whether all answers are the same; None where they are not finite."""
    logits, targets = predict(model, task.dev, bfloat16=bfloat16), task.dev.targets
    if not np.isfinite(logits).all():
        return None
    nats = torch.nn.functional.cross_entropy(
        torch.from_numpy(logits).double(), torch.tensor(targets)
    ).item()
    guesses = logits.argmax(axis=1)
    return score(task.metric, guesses, targets), nats, len(np.unique(guesses)) == 1


def _keep(
    path: Path, model: PreTrainedModel, optimizer: torch.optim.Optimizer, device: torch.device
) -> None:
    """Write weights, the optimizer's state and that of dropout, from which `_restore` goes on."""
    tensors = held(model, [optimizer]) | {"dropout": torch.get_rng_state()}
    if device.type == "cuda":
        tensors["dropout.cuda"] = torch.cuda.get_rng_state(device)
    with atomic_path(path) as temporary:
        safetensors.torch.save_file(tensors, temporary)


def _restore(
    path: Path, model: PreTrainedModel, optimizer: torch.optim.Optimizer, device: torch.device
) -> None:
    try:
        tensors = safetensors.torch.load_file(path)
        restore(model, [optimizer], tensors)
    except (safetensors.SafetensorError, OSError, KeyError) as error:
        raise TrialsError(f"{path} cannot be read: {error}. Delete it and run again.") from error
    torch.set_rng_state(tensors["dropout"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(tensors["dropout.cuda"], device)

"""One trial: a classifier fine-tuned from two seeds, evaluated on its way.

The initialization seed sets the weights of the layers that the base model does not have, and
nothing else. The order seed sets everything from then on: the order of the examples and dropout.
Neither depends on the other, nor on the filter: two trials with the same initialization seed start
from the same weights, two with the same order seed draw the same candidates in the same order.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.torch
import torch

from secondary_learners.errors import SecondaryLearnersError, TrialsError, UnknownNameError
from secondary_learners.experiments.trials.tasks import EncodedTask, Examples, Integers, score
from secondary_learners.files import atomic_path
from secondary_learners.filtering.selection import Scorer
from secondary_learners.filtering.stream import FilteredStream, filtered
from secondary_learners.filtering.thresholds import Threshold

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = [
    "PRECISIONS",
    "Base",
    "Evaluation",
    "Job",
    "KnownScores",
    "TrialSettings",
    "Work",
    "candidates",
    "evaluation_steps",
    "initial_model",
    "train",
]

PRECISIONS = ("float32", "bfloat16")
_TOGETHER = 1024  # tokens evaluated at once: what a core does fastest
_WORTH_SPLITTING = 0.9


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
class Base:
    """The layers that all trials start from: a pretrained model without its head."""

    config: Any
    weights: Mapping[str, npt.NDArray[np.float32]]

    @classmethod
    def of(cls, model: PreTrainedModel) -> Base:
        """Of any model of transformers; its own head, such as a language model's, is left out."""
        weights = {
            name: tensor.detach().float().cpu().numpy().copy()
            if tensor.is_floating_point()
            else tensor.detach().cpu().numpy().copy()
            for name, tensor in model.base_model.state_dict().items()
        }
        return cls(copy.deepcopy(model.config), weights)


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
    def of(cls, learner: Scorer, examples: Examples) -> KnownScores:
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

    filters: by (task, arm); none for an arm without one, and no scores for one that skips blindly.
    """

    base: Base
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
    """After `step` steps. loss: mean on dev, in nats, None where it is no finite number.

    seconds: of training and filtering so far in this process. constant: all dev examples were
    given one label. broken: the training loss or the weights are not finite: from then on the score
    is that of the most frequent label. seen, kept: candidates of the filter so far.
    """

    step: int
    score: float
    loss: float | None
    seconds: float
    constant: bool
    broken: bool
    seen: int
    kept: int


def initial_model(base: Base, labels: int, pad: int, init_seed: int) -> PreTrainedModel:
    """The classifier that a trial starts from: `base`, and new layers drawn from `init_seed`."""
    import transformers

    config = copy.deepcopy(base.config)
    config.num_labels = labels
    config.pad_token_id = pad
    config.problem_type = "single_label_classification"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(init_seed)
        try:
            model = transformers.AutoModelForSequenceClassification.from_config(
                config, dtype=torch.float32
            )
        except ValueError as error:
            raise SecondaryLearnersError(
                f"transformers has no classifier for {config.model_type}: {error}"
            ) from error
    # numpy memory is shared with no one: load_state_dict copies.
    weights = {name: torch.from_numpy(array) for name, array in base.weights.items()}
    found = model.base_model.load_state_dict(weights, strict=False)
    if found.unexpected_keys:
        raise SecondaryLearnersError(
            f"the classifier of {config.model_type} has no place for the base model's "
            f"{', '.join(found.unexpected_keys[:3])}. Give the base model itself."
        )
    return model  # type: ignore[no-any-return]


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
            rows: Iterable[Integers] = (np.array([place]) for place in places)
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


def train(work: Work, job: Job, report: Callable[[Evaluation], None]) -> None:
    """Do `job`, handing each evaluation to `report`.

    A trial whose loss or weights are not finite is not trained further: every evaluation that is
    left, to the end of the training, is reported at once as broken.
    """
    task, settings = work.tasks[job.task], work.settings
    device = torch.device(work.device)
    steps = settings.steps(len(task.train))
    points = evaluation_steps(settings, len(task.train))
    model = initial_model(work.base, len(task.labels), task.pad, job.init_seed)
    module: torch.nn.Module = model
    module.to(device)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=settings.learning_rate, weight_decay=0.0, fused=True
    )
    batches = _Batches(work, job)
    for _ in range(job.begin):
        next(batches)
    seconds, broken = 0.0, False
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(job.order_seed)
        if job.resume is not None:
            _restore(job.resume, model, optimizer, device)
        for step in range(job.begin + 1, job.until + 1):
            begun = time.perf_counter()
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * _schedule(step, steps, settings.warmup)
            loss = _step(model, task, next(batches), optimizer, parameters, settings, device)
            seconds += time.perf_counter() - begun
            broken = not math.isfinite(loss)
            if not broken and step in points:
                found = _evaluate(model, task, settings.precision, device)
                broken = found is None
                if found is not None:
                    value, nats, constant = found
                    seen, kept = batches.seen, batches.kept
                    report(Evaluation(step, value, nats, seconds, constant, False, seen, kept))
            if broken:
                for point in (point for point in points if point >= step):
                    seen, kept = batches.seen, batches.kept
                    report(Evaluation(point, task.floor, None, seconds, True, True, seen, kept))
                return
        if job.keep is not None:
            _keep(job.keep, model, optimizer, device)


def _schedule(step: int, steps: int, warmup: float) -> float:
    """The share of the learning rate at step 1, 2, ... `steps`."""
    rising = warmup * steps
    if step <= rising:
        return step / rising
    return (steps - step + 1) / max(1.0, steps - rising)


def _step(
    model: PreTrainedModel,
    task: EncodedTask,
    batch: Sequence[int],
    optimizer: torch.optim.Optimizer,
    parameters: list[torch.nn.Parameter],
    settings: TrialSettings,
    device: torch.device,
) -> float:
    """One update on the mean loss of `batch`, which it returns."""
    model.train()
    optimizer.zero_grad(set_to_none=True)
    total = 0.0
    for part in _parts(batch, task.train):
        logits = _logits(model, task, task.train, part, settings.precision, device)
        labels = torch.from_numpy(task.train.labels[part]).to(device)
        loss = torch.nn.functional.cross_entropy(logits, labels, reduction="sum") / len(batch)
        loss.backward()
        total += loss.item()
    torch.nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm)
    optimizer.step()
    return total


def _parts(batch: Sequence[int], examples: Examples) -> list[list[int]]:
    """The batch in one part, or short and long ones apart where that saves a tenth of the padding.

    Their gradients are added up before the step: the batch, and the order of the data, stay.
    """
    ordered = sorted(batch, key=lambda place: len(examples.ids[place]))
    half = len(ordered) // 2
    if not half:
        return [ordered]
    parts = [ordered[:half], ordered[half:]]
    split = sum(len(part) * len(examples.ids[part[-1]]) for part in parts)
    whole = len(ordered) * len(examples.ids[ordered[-1]])
    return parts if split < _WORTH_SPLITTING * whole else [ordered]


def _logits(
    model: PreTrainedModel,
    task: EncodedTask,
    examples: Examples,
    places: Sequence[int],
    precision: str,
    device: torch.device,
) -> torch.Tensor:
    """[examples, labels]"""
    width = max(len(examples.ids[place]) for place in places)
    ids = np.full((len(places), width), task.pad, dtype=np.int64)
    mask = np.zeros((len(places), width), dtype=np.int64)
    types = None if examples.types is None else np.zeros_like(mask)
    for row, place in enumerate(places):
        length = len(examples.ids[place])
        ids[row, :length], mask[row, :length] = examples.ids[place], 1
        if types is not None and examples.types is not None:
            types[row, :length] = examples.types[place]
    inputs = {"input_ids": ids, "attention_mask": mask}
    if types is not None:
        inputs["token_type_ids"] = types
    batch = {name: torch.from_numpy(array).to(device) for name, array in inputs.items()}
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        logits: torch.Tensor = model(**batch).logits
    return logits.float()


def _evaluate(
    model: PreTrainedModel, task: EncodedTask, precision: str, device: torch.device
) -> tuple[float, float, bool] | None:
    """Score, loss, and whether all answers are the same; None where they are not finite."""
    model.eval()
    dev = task.dev
    logits = torch.empty(len(dev), len(task.labels))
    with torch.inference_mode():
        for places in _by_length(dev):
            logits[places] = _logits(model, task, dev, places, precision, device).cpu()
    if not bool(logits.isfinite().all()):
        return None
    nats = torch.nn.functional.cross_entropy(logits.double(), torch.from_numpy(dev.labels)).item()
    predicted = logits.argmax(dim=1).numpy()
    constant = len(np.unique(predicted)) == 1
    return score(task.metric, predicted, dev.labels), nats, constant


def _by_length(examples: Examples) -> Iterator[list[int]]:
    group: list[int] = []
    for place in sorted(range(len(examples)), key=lambda place: len(examples.ids[place])):
        if group and (len(group) + 1) * len(examples.ids[place]) > _TOGETHER:
            yield group
            group = []
        group.append(place)
    yield group


def _tensors(model: PreTrainedModel) -> list[torch.Tensor]:
    """Each once, where a state_dict would hold tied weights twice."""
    return [*model.parameters(), *model.buffers()]


def _keep(
    path: Path, model: PreTrainedModel, optimizer: torch.optim.Optimizer, device: torch.device
) -> None:
    """Write weights, the optimizer's state and that of dropout, from which `_restore` goes on."""
    held = {f"model.{place}": tensor for place, tensor in enumerate(_tensors(model))}
    for place, state in optimizer.state_dict()["state"].items():
        held |= {f"optimizer.{place}.{name}": value for name, value in state.items()}
    held["dropout"] = torch.get_rng_state()
    if device.type == "cuda":
        held["dropout.cuda"] = torch.cuda.get_rng_state(device)
    tensors = {name: value.detach().cpu().contiguous() for name, value in held.items()}
    with atomic_path(path) as temporary:
        safetensors.torch.save_file(tensors, temporary)


def _restore(
    path: Path, model: PreTrainedModel, optimizer: torch.optim.Optimizer, device: torch.device
) -> None:
    try:
        held = safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise TrialsError(f"{path} cannot be read: {error}. Delete it and run again.") from error
    with torch.no_grad():
        for place, tensor in enumerate(_tensors(model)):
            tensor.copy_(held[f"model.{place}"])
    state = optimizer.state_dict()
    parts = [name.split(".") for name in held if name.startswith("optimizer.")]
    state["state"] = {
        int(place): {name: held[f"optimizer.{place}.{name}"] for _, p, name in parts if p == place}
        for place in {place for _, place, _ in parts}
    }
    optimizer.load_state_dict(state)
    torch.set_rng_state(held["dropout"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(held["dropout.cuda"], device)

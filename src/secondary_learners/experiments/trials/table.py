"""A table of fine-tuning trials: who ran, with which two seeds, and how well it did.

CSV in two forms, told apart by their columns. One row a trial, as published tables have it:
`task, init_seed, order_seed, score`; or one row an evaluation, which keeps the curve:
`task, init_seed, order_seed, fraction, score`. Both may also have `arm`, `diverged` and `floor`: of
the task, the score of always answering the most frequent class.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from secondary_learners.errors import TrialsError, UnknownNameError
from secondary_learners.files import write_bytes

__all__ = [
    "Floats",
    "Trial",
    "TrialsTable",
    "curves",
    "grid",
    "present",
    "read_table",
    "write_table",
]

Floats = npt.NDArray[np.float64]

# The names that a column may have; the first is ours.
_COLUMNS = {
    "task": ("task", "dataset"),
    "init_seed": ("init_seed", "init_rank"),
    "order_seed": ("order_seed", "data_seed", "order_rank", "data_rank"),
    "score": ("score", "best_val", "best", "best_score"),
    "arm": ("arm", "filter"),
    "fraction": ("fraction",),
    "diverged": ("diverged",),
    "floor": ("floor",),
}
_REQUIRED = ("task", "init_seed", "order_seed", "score")
_TRUTH = {"": None, "0": False, "1": True, "false": False, "true": True}


@dataclass(frozen=True)
class Trial:
    """One fine-tuning run. Higher scores are better: give a loss with its sign changed.

    score: the best evaluation. arm: "" without arms, else which filter or method it used.
    fractions, scores: the curve, when known: after which fractions of the training (increasing,
        above 0, at most 1) the score was what.
    diverged: whether it did, or None where nobody said.
    """

    task: str
    init_seed: int
    order_seed: int
    score: float
    arm: str = ""
    fractions: tuple[float, ...] = ()
    scores: tuple[float, ...] = ()
    diverged: bool | None = None

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (self.score, *self.scores))):
            raise TrialsError(
                f"{self.label} has a score that is not a finite number. Give a diverged trial the "
                "score of its last good evaluation, and mark it in a column `diverged`."
            )
        if len(self.fractions) != len(self.scores):
            raise TrialsError(
                f"{self.label} has {len(self.fractions)} fractions and {len(self.scores)} scores."
            )
        if not self.fractions:
            return
        steps = zip((0.0, *self.fractions), self.fractions, strict=False)
        if any(not before < after <= 1 for before, after in steps):
            raise TrialsError(
                f"{self.label} was evaluated at {self.fractions}: fractions of the training must "
                "increase, each once, above 0 and at most 1."
            )
        if self.score != max(self.scores):
            raise TrialsError(
                f"{self.label} has the score {self.score}, and its curve's best is "
                f"{max(self.scores)}."
            )

    @property
    def label(self) -> str:
        arm = f", arm {self.arm}" if self.arm else ""
        return f"the trial {self.task}{arm}, seeds {self.init_seed} and {self.order_seed}"

    @property
    def final(self) -> float:
        """The last evaluation, or `score` where there is no curve."""
        return self.scores[-1] if self.scores else self.score

    @property
    def finished(self) -> bool:
        """Whether it ran to the end of its training, and was not stopped on the way."""
        return not self.fractions or self.fractions[-1] == 1


@dataclass(frozen=True)
class TrialsTable:
    """Trials, each (task, arm, init_seed, order_seed) once.

    ranks: the "seeds" are ranks within each task, so that the same number in two tasks is not the
        same seed.
    floors: of each task where it is known, the score of always answering the most frequent class.
    """

    trials: tuple[Trial, ...]
    ranks: bool = False
    floors: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.trials:
            raise TrialsError("the table has no trials.")
        seen: set[tuple[str, str, int, int]] = set()
        for trial in self.trials:
            key = (trial.task, trial.arm, trial.init_seed, trial.order_seed)
            if key in seen:  # counted twice it would look like evidence
                raise TrialsError(f"{trial.label} is in the table twice. Keep one of them.")
            seen.add(key)

    @property
    def tasks(self) -> tuple[str, ...]:
        """In the table's order."""
        return tuple(dict.fromkeys(trial.task for trial in self.trials))

    def arms(self, task: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(trial.arm for trial in self.trials if trial.task == task))

    def of(self, task: str, arm: str | None = None) -> tuple[Trial, ...]:
        """The finished trials of a task, of one arm or (None) of its only one."""
        if task not in self.tasks:
            raise UnknownNameError("task", task, self.tasks, "learners trials analyze TABLE")
        arms = self.arms(task)
        if arm is None and len(arms) > 1:
            raise TrialsError(f"{task} has the arms {', '.join(arms)}: name one.")
        if arm is not None and arm not in arms:
            raise UnknownNameError("arm", arm, arms, "learners trials analyze TABLE")
        wanted = arms[0] if arm is None else arm
        return tuple(t for t in self.trials if (t.task, t.arm) == (task, wanted) and t.finished)

    def unfinished(self) -> int:
        return sum(not trial.finished for trial in self.trials)

    def finals(self) -> TrialsTable:
        """The same trials judged by their last evaluation and not by their best; no curves."""
        return replace(
            self,
            trials=tuple(
                replace(trial, score=trial.final, fractions=(), scores=())
                for trial in self.trials
                if trial.finished
            ),
        )


def grid(trials: Sequence[Trial]) -> tuple[tuple[int, ...], tuple[int, ...], Floats]:
    """The seeds in order, and the scores [initializations, orders], NaN where there is none."""
    inits = tuple(sorted({trial.init_seed for trial in trials}))
    orders = tuple(sorted({trial.order_seed for trial in trials}))
    scores = np.full((len(inits), len(orders)), np.nan)
    for trial in trials:
        scores[inits.index(trial.init_seed), orders.index(trial.order_seed)] = trial.score
    return inits, orders, scores


def present(scores: Floats) -> list[float]:
    """The scores of a grid that are there."""
    values: list[float] = scores[~np.isnan(scores)].tolist()
    return values


def curves(trials: Sequence[Trial]) -> tuple[Floats, Floats]:
    """The fractions [points] that all curves share, and the scores there [trials, points].

    Raises TrialsError for trials without curves, or whose curves share no fraction before the end.
    """
    if not trials or not all(trial.fractions for trial in trials):
        raise TrialsError(
            "early stopping needs the curve of every trial: a table with a column `fraction`, one "
            "row an evaluation."
        )
    shared = set(trials[0].fractions).intersection(*(trial.fractions for trial in trials[1:]))
    fractions = sorted(shared)
    if len(fractions) < 2:
        raise TrialsError(
            f"the curves of {trials[0].task} share only the fractions {fractions}: evaluate every "
            "trial at the same points of its training."
        )
    scores = [
        [score for at, score in zip(t.fractions, t.scores, strict=True) if at in shared]
        for t in trials
    ]
    return np.array(fractions), np.array(scores)


def read_table(path: Path) -> TrialsTable:
    """Read a CSV table in either form. Raises TrialsError, naming the line, for a bad one."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise TrialsError(f"{path} is not UTF-8 text. Save it as CSV in UTF-8.") from error
    reader = csv.reader(io.StringIO(text, newline=""))
    header = [name.strip() for name in next(reader, [])]
    places = _places(header, path)
    rows: list[tuple[int, dict[str, Any]]] = []
    for cells in reader:
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(header):
            raise TrialsError(
                f"{path}, line {reader.line_num}: {len(cells)} cells under {len(header)} columns."
            )
        where = f"{path}, line {reader.line_num}"
        rows.append((reader.line_num, _row(cells, places, header, where)))
    if not rows:
        raise TrialsError(f"{path} has no trials: a header and nothing below it.")
    ranks = any(header[places[name]].endswith("_rank") for name in ("init_seed", "order_seed"))
    try:
        trials = _join(rows) if "fraction" in places else [_trial([row]) for _, row in rows]
        return TrialsTable(tuple(trials), ranks, _floors(row for _, row in rows))
    except TrialsError as error:
        raise TrialsError(f"{path}: {error}") from None


def _places(header: Sequence[str], path: Path) -> dict[str, int]:
    places = {
        ours: header.index(name)
        for ours, names in _COLUMNS.items()
        for name in reversed(names)  # so that our own name wins
        if name in header
    }
    missing = [name for name in _REQUIRED if name not in places]
    if missing:
        raise TrialsError(
            f"{path} has no column {' and no column '.join(missing)}; it has "
            f"{', '.join(header) or 'nothing'}. A trials table has {', '.join(_REQUIRED)}, and may "
            "have fraction, arm, diverged and floor."
        )
    twice = {name for name in header if header.count(name) > 1}
    if twice:
        raise TrialsError(f"{path} has the column {', '.join(sorted(twice))} twice.")
    return places


def _row(
    cells: Sequence[str], places: dict[str, int], header: Sequence[str], where: str
) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for ours, place in places.items():
        cell = cells[place].strip()
        try:
            if ours in ("init_seed", "order_seed"):
                row[ours] = int(cell)
            elif ours == "score" or (ours in ("fraction", "floor") and cell):
                row[ours] = float(cell)
            elif ours == "diverged":
                row[ours] = _TRUTH[cell.lower()]
            elif ours in ("fraction", "floor"):
                row[ours] = None
            else:
                row[ours] = cell
        except (ValueError, KeyError):
            number = dict.fromkeys(("score", "fraction", "floor"), "a number")
            wanted = {**number, "diverged": "0, 1 or empty"}
            raise TrialsError(
                f"{where}: {header[place]} is {cell!r}, and must be "
                f"{wanted.get(ours, 'a whole number')}."
            ) from None
    return row


def _floors(rows: Iterable[dict[str, Any]]) -> dict[str, float]:
    """The floor of each task; raises TrialsError for a task with two."""
    floors: dict[str, float] = {}
    for row in rows:
        floor = row.get("floor")
        if floor is not None and floors.setdefault(row["task"], floor) != floor:
            raise TrialsError(
                f"{row['task']} has the floors {floors[row['task']]} and {floor}. Keep one of them."
            )
    return floors


def _join(rows: Iterable[tuple[int, dict[str, Any]]]) -> list[Trial]:
    """The trials of one-row-an-evaluation, whose rows may come in any order."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for _, row in rows:
        key = (row["task"], row.get("arm", ""), row["init_seed"], row["order_seed"])
        groups.setdefault(key, []).append(row)
    return [_trial(group) for group in groups.values()]


def _trial(rows: list[dict[str, Any]]) -> Trial:
    first = rows[0]
    points = sorted(
        (row["fraction"], row["score"]) for row in rows if row.get("fraction") is not None
    )
    flags = {row.get("diverged") for row in rows}
    trial = Trial(
        first["task"],
        first["init_seed"],
        first["order_seed"],
        max(row["score"] for row in rows),
        first.get("arm", ""),
        tuple(at for at, _ in points),
        tuple(score for _, score in points),
        True if True in flags else False if False in flags else None,
    )
    if len(points) not in (0, len(rows)) or (not points and len(rows) > 1):
        raise TrialsError(f"{trial.label} has {len(rows)} rows, some of them without a fraction.")
    return trial


def write_table(table: TrialsTable, path: Path) -> None:
    """Write `table` as CSV, whole or not at all: a row an evaluation where there are curves."""
    curved = any(trial.fractions for trial in table.trials)
    init, order = ("init_rank", "order_rank") if table.ranks else ("init_seed", "order_seed")
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    floor_too = ["floor"] if table.floors else []
    head = ["task", "arm", init, order, *(["fraction"] if curved else []), "score", "diverged"]
    writer.writerow([*head, *floor_too])
    for trial in table.trials:
        flag = "" if trial.diverged is None else int(trial.diverged)
        begin = [trial.task, trial.arm, trial.init_seed, trial.order_seed]
        points: list[tuple[object, float]] = [*zip(trial.fractions, trial.scores, strict=True)]
        for fraction, score in points or [("", trial.score)]:
            row = [*begin, *([fraction] if curved else []), score, flag]
            writer.writerow([*row, table.floors.get(trial.task, "")] if floor_too else row)
    write_bytes(path, text.getvalue().encode())

"""A scorer as plain data, from which another process or machine makes the same scorer."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secondary_learners.errors import DigestMismatchError
from secondary_learners.files import json_bytes, sha256_bytes, sha256_file
from secondary_learners.registry.load import load_learner, locate
from secondary_learners.registry.references import FolderReference, parse_reference

if TYPE_CHECKING:
    from secondary_learners.engines.scoring import RowScorer

__all__ = ["ScorerSpecification", "load_scorer", "one_thread", "specify"]

_SCORING = ("config.json", "model.safetensors")  # the files of a learner that scores depend on


@dataclass(frozen=True, kw_only=True)
class ScorerSpecification:
    """Which learner scores which column.

    learner: a reference as `load_learner` takes it. commit: "" for what has none. digest: of the
    files that its scores depend on. normalization: what is done to a text before it is tokenized:
    "layout" (see `text.corpus.normalize`), or "none" of prompts with completions, whose columns
    are `columns`, and of what reads text by itself. tokenizer: a file, or "" for the recorded one.
    """

    learner: str
    commit: str
    digest: str
    normalization: str
    column: str = "text"
    columns: tuple[str, str] | None = None
    tokenizer: str = ""

    @property
    def identity(self) -> dict[str, Any]:
        """What scores depend on: of two equal ones, the scores of a text are equal."""
        return {
            "digest": self.digest,
            "normalization": self.normalization,
            "columns": list(self.columns or [self.column]),
        }


def specify(
    learner: str,
    *,
    column: str = "text",
    columns: tuple[str, str] | None = None,
    tokenizer: Path | None = None,
) -> ScorerSpecification:
    """The specification of a learner by its reference; raises what `load_learner` raises."""
    from secondary_learners.learners.artifact import read_learner

    reference = parse_reference(learner)
    if isinstance(reference, FolderReference):  # workers may run in another folder
        learner = os.path.abspath(reference.path)
    place = locate(learner, kind="learner")
    config = read_learner(place.folder, place.digests, remedy=place.remedy or None).config
    whole = config.reads_text or config.corpus.get("format") == "instructions"
    return ScorerSpecification(
        learner=learner,
        commit=place.commit,
        digest=_digest(place.folder),
        normalization="none" if whole else "layout",
        column=column,
        columns=columns,
        tokenizer="" if tokenizer is None else os.path.abspath(tokenizer),
    )


@cache
def load_scorer(specification: ScorerSpecification) -> RowScorer:
    """The scorer that is specified, loaded once a process.

    Raises DigestMismatchError where the reference leads to another learner than was specified.
    """
    from secondary_learners.engines.scoring import row_scorer, tokenizer_of

    reference = specification.learner
    learner = load_learner(reference)
    digest = _digest(locate(reference, kind="learner").folder)
    if digest != specification.digest:
        raise DigestMismatchError(
            f"{reference} is another learner now (digest {digest}) than the one that scoring began "
            f"with ({specification.digest}). Name the commit: owner/name@COMMIT."
        )
    file = Path(specification.tokenizer) if specification.tokenizer else None
    tokenizer = tokenizer_of(learner, file)
    return row_scorer(learner, tokenizer, specification.column, specification.columns)


def _digest(folder: Path) -> str:
    return sha256_bytes(json_bytes({name: sha256_file(folder / name) for name in _SCORING}))


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for tokenizing and for the net, so that processes do not fight for cores.

    It also makes scores the same bits for any number of processes.
    """
    torch = sys.modules.get("torch")  # absent where the scorer reads text: load it before
    threads = torch.get_num_threads() if torch else 0
    variable = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(variable)
    if torch:
        torch.set_num_threads(1)
    os.environ[variable] = "false"
    try:
        yield
    finally:
        if torch:
            torch.set_num_threads(threads)
        os.environ.pop(variable)
        if before is not None:
            os.environ[variable] = before

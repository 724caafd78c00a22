"""The record of a recipe for a learner without a tokenizer, taught by one of token ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from secondary_learners.artifacts.reading import read_file
from secondary_learners.artifacts.records import read_record, read_toml
from secondary_learners.errors import RecipeError
from secondary_learners.recipes.record import Record, above_zero, check_name
from secondary_learners.recipes.sources import portable_names
from secondary_learners.registry.load import locate
from secondary_learners.text.corpus import Source

__all__ = ["RECIPE", "StudentRecipe", "own_sources", "own_student", "portable", "sources_of"]


@dataclass(frozen=True, kw_only=True)
class StudentRecipe(Record):
    """All that determines a student.

    teacher: a learner of token ids, as `load_learner` takes it. sources: text without labels.
    contexts: how many runs of `context_words` words the teacher scores, cut from it at random.
    shares: of each domain in them, by default that of its text. window: words of the student's own
    counting (a sign is one) that it scores together. words, grams: its hash buckets. unseen: text
    of other kinds, of which `unseen_contexts` are scored by both, and which nothing is fitted on.
    """

    name: str
    teacher: str
    sources: tuple[Source, ...]
    summary: str = ""
    kind: str = "student"
    license: str = "unknown"
    attribution: str = ""
    language: str = ""
    seed: int = 0
    contexts: int = 60_000
    context_words: int = 24
    shares: Mapping[str, float] = field(default_factory=dict)
    window: int = 32
    words: int = 65_536
    grams: int = 65_536
    unseen: tuple[Source, ...] = ()
    unseen_contexts: int = 8_000

    WHAT = "taught by another learner"
    OPTIONS = frozenset(("license", "seed"))

    def __post_init__(self) -> None:
        check_name(self.name)
        above_zero(
            contexts=self.contexts,
            context_words=self.context_words,
            window=self.window,
            unseen_contexts=self.unseen_contexts,
        )
        domains = {source.domain for source in self.sources}
        if self.shares and (set(self.shares) != domains or min(self.shares.values()) <= 0):
            raise RecipeError(
                f"recipe {self.name!r}: shares are {dict(self.shares)}, and must be one above 0 "
                f"for each domain of its sources ({', '.join(sorted(domains))})."
            )


def own_sources(texts: tuple[Path, ...]) -> tuple[Source, ...]:
    """Of one's own text: files and folders, each a domain."""
    return tuple(
        Source(path.stem, files=str(path.absolute()), block_characters=2000) for path in texts
    )


def sources_of(teacher: str) -> tuple[Source, ...]:
    """Those that a learner was made from; raises RecipeError where its recipe names none."""
    folder = locate(teacher, kind="learner").folder
    values = read_toml(read_file(folder / "recipe.toml"), f"recipe of {teacher}", RecipeError)
    if not values.get("sources"):
        raise RecipeError(f"the recipe of {teacher} names no text. Give your own with --text.")
    where = f"recipe of {teacher}, sources"
    return tuple(read_record(Source, each, where, RecipeError) for each in values["sources"])


def own_student(name: str, teacher: str, sources: tuple[Source, ...]) -> StudentRecipe:
    """The recipe of `learners distil`."""
    return StudentRecipe(
        name=name,
        teacher=teacher,
        sources=sources,
        summary=f"Scores text as {teacher} does, without a tokenizer.",
    )


def portable(recipe: StudentRecipe) -> StudentRecipe:
    """`recipe` as it is published: own text by its name, below a corpus folder, not by its path."""
    names = portable_names(source.files for source in recipe.sources if source.files)
    sources = tuple(
        replace(source, files=names.get(source.files or "", source.files))
        for source in recipe.sources
    )
    return replace(recipe, sources=sources)


RECIPE = StudentRecipe

"""What is wrong with a card, found offline: what the Hub would refuse, what a reader would miss.

A card that is checked in its folder is also compared with the evaluation.json beside it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from secondary_learners.artifacts.kinds import artifact_kinds
from secondary_learners.cards.card import EVERY, Card
from secondary_learners.cards.kinds import card_of
from secondary_learners.cards.metadata import MetadataError, read_front_matter
from secondary_learners.cards.render import figures
from secondary_learners.cards.vocabulary import (
    HUB_ID,
    LANGUAGE,
    LICENSE_NAME,
    LICENSES,
    UNSTATED,
)

__all__ = ["CardFault", "Problem", "check_card", "machine_paths"]


class CardFault(StrEnum):
    """Why a card is refused."""

    METADATA = "metadata"  # the block at the top does not parse, or a key of it has a wrong type
    LICENSE = "license"  # none, or one that the Hub does not know
    IDENTIFIER = "identifier"  # a model, data set or language that is not an id on the Hub
    RESULTS = "results"  # the model-index does not parse, or has no figures
    SECTION = "section"  # something a reader looks for is missing
    FIGURE = "figure"  # a figure is missing, or is not the one in evaluation.json
    PLACEHOLDER = "placeholder"  # something was left to be filled in
    LINK = "link"  # a relative link to nothing
    PATH = "path"  # a folder of the machine that it was made on


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: its kind as a value, and what to do about it in words."""

    kind: StrEnum
    message: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


# The names and values of a model-index.
_Named = list[tuple[str | None, Any]]
# Headings by what they must speak of, so that a maker may word them otherwise.
_HEADINGS = {
    "how it is used": r"\buse\b|\busage\b",
    "its figures": r"figures|results|evaluation",
    "how it was made": r"made",
    "what it looks for": r"looks for|tokens",
    "intended use and limits": r"intended|limit",
    "energy and CO₂": r"energy|co2|co₂|emission",
    "how it is rebuilt": r"rebuil|reproduc",
    "its license": r"licen[cs]e",
}
_LINK = re.compile(r"\]\(\s*<?([^)>\s]+)")
_LEFT_OPEN = re.compile(
    r"\{\{.*?\}\}|\{%.*?%\}|\[More Information Needed\]|\bTODO\b|\bFIXME\b|\bTBD\b"
)
_QUOTED = re.compile(r"(`{2,}).*?\1", re.DOTALL)
_ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:|#", re.IGNORECASE)
# A posix path of two parts or more that starts a word, or one on a Windows drive.
_MACHINE = re.compile(r"(?<![\w/:.~<])(?:/[\w.@+-]+){2,}/?|\b[A-Za-z]:\\[\w\\.-]+|~/[\w./-]+")


def check_card(card: str | Path, folder: Path | None = None) -> list[Problem]:
    """Everything that is wrong with a card: its text, its path, or the path of its folder.

    folder: where a text's other files are; of a path it is the path's own. With it the figures must
    be those of evaluation.json and links must lead somewhere. Raises OSError for a card that cannot
    be read.
    """
    if isinstance(card, str):
        return list(_check(card, folder))
    path = card / "README.md" if card.is_dir() else card
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        return [Problem(CardFault.METADATA, f"{path} is not UTF-8: {error}.")]
    return list(_check(text, path.parent))


def _check(text: str, folder: Path | None) -> Iterator[Problem]:
    config, evaluation = _json(folder, "config.json"), _json(folder, "evaluation.json")
    card = None if folder is None else card_of(folder)
    data = yield from _metadata(text)
    results = None
    if data is not None:
        yield from _license(data, folder)
        yield from _identifiers(data)
        measured = card is None or evaluation is None or _has_results(card, config, evaluation)
        results = yield from _results(data, needed=measured)
    yield from _sections(text, EVERY if card is None else card.sections)
    if card is not None and evaluation is not None:
        yield from _figures(text, results, card, config, evaluation)
    yield from _placeholders(text)
    yield from _links(text, folder)
    if paths := machine_paths(text):
        yield Problem(
            CardFault.PATH,
            f"it names {' and '.join(paths)}, which is on the machine it was made on. Name the "
            "file alone.",
        )


def machine_paths(text: str) -> list[str]:
    """The absolute paths in a text, each once: nobody else has them, and they tell on the maker."""
    return list(dict.fromkeys(_MACHINE.findall(text)))


def _json(folder: Path | None, name: str) -> Any:
    if folder is None or not (folder / name).is_file():
        return None
    try:
        return json.loads((folder / name).read_bytes())
    except (ValueError, RecursionError):
        return None  # said by the audit, in words of its own


def _metadata(text: str) -> Generator[Problem, None, dict[str, Any] | None]:
    """Yields problems and returns the metadata, or None when it does not parse."""
    from huggingface_hub import ModelCard

    if text.startswith("\ufeff"):
        yield Problem(
            CardFault.METADATA,
            "it starts with a byte order mark (U+FEFF), and so the Hub finds no metadata. Save it "
            "as UTF-8 without one.",
        )
        text = text.lstrip("\ufeff")
    try:
        data = read_front_matter(text)
    except MetadataError as error:
        yield Problem(CardFault.METADATA, str(error))
        return None
    try:
        ModelCard(text)
    except (ValueError, TypeError) as error:  # the client's own reading
        yield Problem(CardFault.RESULTS, f"huggingface_hub cannot read its metadata: {error}")
    for key in ("library_name", "pipeline_tag", "license_name", "license_link"):
        if key in data and not isinstance(data[key], str):
            yield Problem(CardFault.METADATA, f"`{key}` must be a string, not {data[key]!r}.")
    if not isinstance(data.get("library_name"), str):
        yield Problem(CardFault.METADATA, "`library_name` is missing: secondary-learners.")
    tags = data.get("tags")
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        yield Problem(CardFault.METADATA, f"`tags` must be a list of strings, not {tags!r}.")
    co2 = data.get("co2_eq_emissions")
    grams = co2.get("emissions") if isinstance(co2, dict) else co2
    if co2 is not None and not _is_number(grams):
        yield Problem(
            CardFault.METADATA,
            f"`co2_eq_emissions` must have `emissions` in grams, not {grams!r}.",
        )
    return data


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _license(data: Mapping[str, Any], folder: Path | None) -> Iterator[Problem]:
    license, name = data.get("license"), data.get("license_name")
    if license is None or license == UNSTATED:
        yield Problem(
            CardFault.LICENSE,
            "nobody has said under which license it may be used. State it when it is made "
            "(`learners run … --license apache-2.0`), or as `license:` at the top of README.md and "
            "as `license` in recipe.toml.",
        )
    elif not isinstance(license, str) or license not in LICENSES:
        yield Problem(
            CardFault.LICENSE,
            f"{license!r} is not a license of the Hub's list "
            "(https://huggingface.co/docs/hub/repositories-licenses). For one of your own write "
            "`license: other`, `license_name: a-name` and `license_link: LICENSE`.",
        )
    elif license == "other":
        if not isinstance(name, str) or not LICENSE_NAME.fullmatch(name):
            yield Problem(
                CardFault.LICENSE,
                f"`license: other` needs a `license_name` such as my-license-1.0, not {name!r}.",
            )
        link = data.get("license_link")
        if (
            folder is not None
            and link in ("LICENSE", "LICENSE.md")
            and not (folder / link).is_file()
        ):
            yield Problem(
                CardFault.LICENSE, f"`license_link` is {link}, and there is no such file."
            )


def _identifiers(data: Mapping[str, Any]) -> Iterator[Problem]:
    rules = (
        ("base_model", HUB_ID, "ids of models on a Hub, such as openai-community/gpt2"),
        ("datasets", HUB_ID, "ids of data sets on a Hub, such as Salesforce/wikitext"),
        ("language", LANGUAGE, "codes of two or three letters, such as en"),
    )
    for key, pattern, what in rules:
        given = data.get(key, [])
        for value in given if isinstance(given, list) else [given]:
            if not isinstance(value, str) or not pattern.fullmatch(value):
                quoted = " YAML reads `no` as false: put it in quotes." if value is False else ""
                yield Problem(CardFault.IDENTIFIER, f"`{key}` takes {what}, not {value!r}.{quoted}")


def _has_results(card: Card, config: Any, evaluation: Any) -> bool:
    """Whether a kind of artifact has figures to show; where that cannot be told, it should."""
    try:
        return bool(card.results(config, evaluation))
    except (KeyError, TypeError, ValueError, AttributeError):
        return True


def _results(data: Mapping[str, Any], *, needed: bool) -> Generator[Problem, None, _Named | None]:
    """Yields problems and returns what the model-index has, or None when it does not parse."""
    from huggingface_hub.repocard_data import model_index_to_eval_results

    index = data.get("model-index")
    try:
        results = model_index_to_eval_results(index)[1] if index else []
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        yield Problem(CardFault.RESULTS, f"its model-index lacks {error}, or has it elsewhere.")
        return None
    if needed and not results:
        yield Problem(
            CardFault.RESULTS,
            "it has no figures: a model-index with at least one metric is needed.",
        )
    for result in results:
        if not _is_number(result.metric_value):
            yield Problem(
                CardFault.RESULTS,
                f"the value of {result.metric_type} is {result.metric_value!r}, not a number.",
            )
        if not isinstance(result.dataset_type, str) or not HUB_ID.fullmatch(result.dataset_type):
            yield Problem(
                CardFault.RESULTS,
                f"the Hub refuses the data set type {result.dataset_type!r} of a result: letters, "
                "digits, . _ and - only.",
            )
    return [(result.metric_name, result.metric_value) for result in results]


def _sections(text: str, sections: Iterable[str]) -> Iterator[Problem]:
    headings = "\n".join(re.findall(r"^#{2,}\s+(.*)", text, re.MULTILINE)).lower()
    for section in sections:
        if not re.search(_HEADINGS[section], headings):
            yield Problem(CardFault.SECTION, f"no heading speaks of {section}.")
    loaders = "|".join([*(kind.loader for kind in artifact_kinds()), "from_pretrained"])
    if not re.search(rf"\b({loaders})\(", text):
        yield Problem(
            CardFault.SECTION, "it does not show how to load it: `load_learner(…)` in a code block."
        )


def _figures(
    text: str, results: _Named | None, card: Card, config: Any, evaluation: Any
) -> Iterator[Problem]:
    """results: those of the card's model-index; None when that was not read."""
    from jinja2 import UndefinedError

    try:
        missing = card.missing(config, evaluation)
        expected = card.results(config, evaluation)
        shown = figures(card, config, evaluation)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        yield Problem(
            CardFault.FIGURE, f"config.json or evaluation.json lacks a figure: {error!r}."
        )
        return
    except UndefinedError as error:
        yield Problem(CardFault.FIGURE, f"config.json or evaluation.json lacks a figure: {error}.")
        return
    for name in missing:
        yield Problem(CardFault.FIGURE, f"evaluation.json lacks `{name}`.")
    for result in expected:
        if results is not None and (result.name, result.value) not in results:
            yield Problem(
                CardFault.FIGURE,
                f"its model-index lacks {result.name or result.metric!r} = {result.value}, which "
                "evaluation.json has.",
            )
    for figure in shown:
        if not re.search(rf"(?<![\d.,]){re.escape(figure)}(?!\d)", text):
            yield Problem(CardFault.FIGURE, f"it lacks {figure!r}, which evaluation.json has.")


def _placeholders(text: str) -> Iterator[Problem]:
    plain = _QUOTED.sub("", text)  # a token or a command may well be `` {{ name }} ``
    for word in dict.fromkeys(_LEFT_OPEN.findall(plain)):
        yield Problem(CardFault.PLACEHOLDER, f"{word!r} was left to be filled in.")


def _links(text: str, folder: Path | None) -> Iterator[Problem]:
    for target in dict.fromkeys(_LINK.findall(_QUOTED.sub("", text))):
        if _ELSEWHERE.match(target):
            continue
        name = target.split("#")[0].split("?")[0]
        if folder is not None and not (folder / name).is_file():
            yield Problem(CardFault.LINK, f"it links to {target!r}, and there is no such file.")

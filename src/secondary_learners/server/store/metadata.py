"""The metadata at the head of a README, and the labels by which repositories are found."""

from __future__ import annotations

import json
from typing import Any

import yaml

__all__ = ["MetadataError", "labels", "metadata_json"]

_LIMIT = 16 * 1024  # bytes
_MAX_DEPTH = 32
_MAX_EVENTS = 5_000
_SafeLoader: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class MetadataError(ValueError):
    """Metadata that is not plain YAML."""


class _Loader(_SafeLoader):  # type: ignore[misc]
    """YAML without numbers to the base of 60: a long one costs the square of its length."""


def _number(loader: Any, node: yaml.ScalarNode) -> Any:
    if ":" in node.value:
        return node.value
    if node.tag.endswith(":float"):
        return loader.construct_yaml_float(node)
    return loader.construct_yaml_int(node)


for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _number)


def metadata_json(readme: bytes) -> str:
    """The metadata between the two `---` lines as JSON, "" where there is none.

    Raises MetadataError for what is not a plain YAML mapping, or would cost more to read than any
    card does: anyone may send it. Aliases are refused: a few lines of them unfold to gigabytes.
    """
    text = readme[:_LIMIT].decode(errors="replace").lstrip("\ufeff").replace("\r\n", "\n")
    if not text.startswith("---\n"):
        return ""
    head, end, _ = text.removeprefix("---").partition("\n---")
    if not end:
        raise MetadataError(f"the metadata has no closing '---' within {_LIMIT:,} bytes")
    try:
        _check_cost(head)
        value = yaml.load(head, Loader=_Loader)
        if value is None:
            return ""
        if not isinstance(value, dict):
            raise MetadataError("the metadata is not a mapping of names to values")
        return json.dumps(value, default=str, allow_nan=False)
    except yaml.YAMLError as error:
        raise MetadataError(f"the metadata is not YAML: {error}") from error
    except MetadataError:
        raise
    except (ValueError, TypeError, RecursionError, OverflowError) as error:
        raise MetadataError(f"the metadata cannot be read: {error}") from error


def _check_cost(head: str) -> None:
    """Walk the events, which are read one by one, no further than they are allowed to go."""
    depth = 0
    for count, event in enumerate(yaml.parse(head, Loader=_Loader), start=1):
        if isinstance(event, yaml.AliasEvent):
            raise MetadataError("aliases are not allowed in metadata")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise MetadataError(f"the metadata is nested more than {_MAX_DEPTH} deep")
        if count > _MAX_EVENTS:
            raise MetadataError("the metadata has too many parts")


def labels(card: str) -> list[str]:
    """What `filter=` finds a repository by, from its metadata as JSON."""
    value = json.loads(card) if card else {}
    values = [
        *_texts(value.get("library_name")),
        *_texts(value.get("pipeline_tag")),
        *_texts(value.get("tags")),
        *_texts(value.get("language")),
        *(f"license:{text}" for text in _texts(value.get("license"))),
        *(f"dataset:{text}" for text in _texts(value.get("datasets"))),
        *(f"base_model:{text}" for text in _texts(value.get("base_model"))),
    ]
    return list({label.lower(): label for label in values}.values())


def _texts(value: object) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [text for text in values if isinstance(text, str) and 0 < len(text) <= 256][:256]

"""The block of YAML at the top of a card: written here for every kind, and read again strictly."""

from __future__ import annotations

import re
from typing import Any

import yaml

from secondary_learners.cards.card import About, Card, Data
from secondary_learners.cards.vocabulary import HUB_ID, LICENSES, hub_id

__all__ = ["MetadataError", "front_matter", "read_front_matter"]

_BLOCK = re.compile(r"\s*---(?:\r\n|\r|\n)(.*?)(?:\r\n|\r|\n)---[ \t]*(?:\r\n|\n|$)", re.DOTALL)
_LINE_BREAKS = re.compile("[\n\r\x85\u2028\u2029]")


class MetadataError(ValueError):
    """Metadata that does not parse; the message says why."""


def front_matter(card: Card, config: Data, evaluation: Data, about: About) -> str:
    """The metadata as the Hub reads it, with the two lines of dashes around it."""
    from huggingface_hub import EvalResult, ModelCardData

    results = card.results(config, evaluation)
    data = ModelCardData(
        **_license(about.license),
        **_base(config),
        datasets=list(about.datasets) or None,
        language=about.language or None,
        library_name=card.library,
        pipeline_tag=card.task,
        tags=["secondary-learners", *card.tags(config)],
        model_name=about.name,
        metrics=list(dict.fromkeys(result.metric for result in results)) or None,
        eval_results=[
            EvalResult(
                task_type=result.task,
                dataset_type=hub_id(result.dataset),
                dataset_name=f"{result.dataset}, {result.split}",
                metric_type=result.metric,
                metric_name=result.name,
                metric_value=result.value,
            )
            for result in results
        ]
        or None,
        co2_eq_emissions=_emissions(evaluation),
    )
    values: dict[str, Any] = data.to_dict()  # type: ignore[no-untyped-call]
    text = yaml.dump(
        values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=float("inf")
    )
    return f"---\n{text}---\n"


def read_front_matter(text: str) -> dict[str, Any]:
    """The metadata of a card; raises MetadataError for what two readers may read differently."""
    block = _BLOCK.match(text)
    if block is None:
        raise MetadataError("there is no metadata between two lines `---` at its top.")
    if "\ufeff" in block[1]:
        raise MetadataError("there is a byte order mark (U+FEFF) within its metadata.")
    try:
        data = yaml.load(block[1], Loader=_Loader)
    except yaml.YAMLError as error:
        raise MetadataError(f"its metadata is not YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise MetadataError("its metadata is nested too deeply.") from error
    if not isinstance(data, dict):
        raise MetadataError("its metadata is not a table of keys and values.")
    return data


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]
    """No value spans two lines, so that none can look like the end of the block."""


def _string(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = '"' if _LINE_BREAKS.search(value) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _string)


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """A key that comes twice and a value that cannot be (30 February) are errors with a place."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        seen = set()
        for key in names:
            if key.value in seen:
                raise MetadataError(f"the key {key.value!r} comes twice: {_line(key)}.")
            seen.add(key.value)
        values: dict[Any, Any] = super().construct_mapping(node, deep)
        return values

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except MetadataError:
            raise
        except (ValueError, OverflowError) as error:
            raise MetadataError(
                f"{str(node.value)[:40]!r} cannot be: {error}; {_line(node)}."
            ) from error


def _line(node: yaml.Node) -> str:
    return f"line {node.start_mark.line + 1} of its metadata"


def _license(license: str) -> dict[str, Any]:
    if license in LICENSES:
        return {"license": license}
    return {"license": "other", "license_name": license, "license_link": "LICENSE"}


def _base(config: Data) -> dict[str, Any]:
    """The base model, if it is on a Hub: only that has a commit, and a bundled one has no id there.

    Of the relations that the Hub knows, it is that of what works beside an unchanged base model.
    """
    base = config.get("base_model")
    if base is None or base["revision"] is None or not HUB_ID.fullmatch(base["repo"]):
        return {}
    return {"base_model": base["repo"], "base_model_relation": "adapter"}


def _emissions(evaluation: Data) -> dict[str, Any] | None:
    energy = evaluation.get("energy")
    if not energy:
        return None
    return {
        "emissions": float(f"{energy['co2_kg'] * 1000:.4g}"),  # the Hub reads grams
        "source": energy["tool"],
        "geographical_location": energy["country"],
        "hardware_used": evaluation["device"],
    }

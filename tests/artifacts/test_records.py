"""Records are read from TOML and JSON with messages that name file, field and value."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Literal

import pytest

from secondary_learners.artifacts.records import as_values, read_record, read_toml, record_toml
from secondary_learners.errors import ArtifactError, RecipeError, SecondaryLearnersError


@dataclass(frozen=True)
class Place:
    license: str
    neighbors: int = 3
    unit: Literal["nats", "bits"] = "nats"


@dataclass(frozen=True)
class Thing:
    name: str
    added: date | None = None
    rates: tuple[float, ...] = ()
    where: str | tuple[str, ...] | None = None
    place: Place | None = None
    places: tuple[Place, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name == "bad":
            raise SecondaryLearnersError("the name is bad")


def read(text: str) -> Thing:
    return read_record(Thing, read_toml(text, "x.toml", RecipeError), "x.toml", RecipeError)


def test_a_record_survives_its_file_with_records_lists_dates_and_strange_strings() -> None:
    thing = Thing(
        'q"\\\x7f\n\tü',
        date(2026, 11, 27),
        (1.0, 5e-5),
        ("a", "b"),
        Place("mit"),
        (Place("apache-2.0", 4, "bits"), Place("cc0")),
        {"a b": 1},
    )
    assert read(record_toml(thing)) == thing
    assert read(record_toml(Thing("x"))) == Thing("x")


def test_what_is_none_is_left_out_and_tables_are_plain_values() -> None:
    assert "where" not in record_toml(Thing("x"))
    values = as_values(Thing("x", date(2026, 1, 2), place=Place("mit")))
    assert values["place"] == {"license": "mit", "neighbors": 3, "unit": "nats"}
    assert values["added"] == date(2026, 1, 2)


def test_defaults_are_written_out_of_what_was_read_without_them() -> None:
    thing = read('name = "x"\nplace = {license = "mit"}')
    values = {"license": "mit", "neighbors": 3, "unit": "nats"}
    assert as_values(thing)["place"] == values
    assert as_values(thing)["rates"] == []
    assert "neighbors = 3" in record_toml(thing)


def test_old_spellings_are_read() -> None:
    thing = read('name = "x"\nplace = {licence = "mit", neighbours = 2}')
    assert thing.place == Place("mit", 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = 1", "x.toml: name is 1, and should be a string."),
        ('title = "x"', "x.toml: unknown field 'title'; known are added, counts, name, place, "),
        ("", "x.toml: the field 'name' is missing."),
        ('name = "bad"', "x.toml: the name is bad"),
        ('name = "x"\nrates = [1, "a"]', "x.toml: rates is 'a', and should be a number."),
        ('name = "x"\nwhere = 3', "x.toml: where is 3, and should be a string or a list."),
        ('name = "x"\nplace = 3', "x.toml: place is 3, and should be a table."),
        ('name = "x"\nplace = {}', "x.toml: place: the field 'license' is missing."),
        ('name = "x"\n[[places]]\nlicense = 1', "x.toml: places: license is 1, and should be a"),
        ('name = "x"\n[place]\nlicense = ""\nunit = "b"', "unit is 'b', and must be one of nats, "),
        ('name = "x"\n[place]\nlicense = ""\nunit = 1', "unit is 1, and must be one of nats, bits"),
        ('name = "x"\nadded = 3', "x.toml: added is 3, and should be a date such as 2026-01-31."),
        ("= 1", "x.toml is not TOML: "),
    ],
)
def test_what_is_wrong_is_named(text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(message)):
        read(text)


def test_a_date_with_a_time_is_not_a_date() -> None:
    values = {"name": "x", "added": datetime(2026, 1, 2, 3, 4)}
    with pytest.raises(ArtifactError, match=r"x\.json: added is datetime"):
        read_record(Thing, values, "x.json", ArtifactError)

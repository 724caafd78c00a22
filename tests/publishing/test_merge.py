from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from secondary_learners.publishing.merge import Conflict, merge_cards

BASE = "a\nb\nc\nd\ne\nf\n"
LINES = st.lists(st.sampled_from("abcxyz"), max_size=8).map(
    lambda it: "".join(f"{x}\n" for x in it)
)


def test_edits_in_different_places_are_both_kept() -> None:
    assert merge_cards(BASE, BASE.replace("b", "B"), BASE + "g\n") == "a\nB\nc\nd\ne\nf\ng\n"


def test_the_same_edit_on_both_sides_is_made_once() -> None:
    edited = BASE.replace("c\n", "C\nC\n")
    assert merge_cards(BASE, edited, edited) == edited


def test_edits_in_one_place_conflict_with_the_lines_of_each() -> None:
    found = merge_cards(BASE, BASE.replace("c", "ours"), BASE.replace("c", "theirs"))
    assert found == [Conflict("ours\n", "theirs\n")]


def test_line_ends_of_an_editor_are_no_edit() -> None:
    ours, theirs = BASE.replace("b", "B"), (BASE + "g").replace("\n", "\r\n")
    assert merge_cards(BASE, ours, theirs) == "a\nB\nc\nd\ne\nf\ng\n"


@given(LINES, LINES)
def test_one_side_s_edit_alone_is_taken_whole(base: str, edited: str) -> None:
    assert merge_cards(base, edited, base) == edited
    assert merge_cards(base, base, edited) == edited


@given(LINES, LINES, LINES)
def test_sides_may_change_places(base: str, one: str, other: str) -> None:
    first, second = merge_cards(base, one, other), merge_cards(base, other, one)
    if isinstance(first, str):
        assert first == second
    else:
        assert [Conflict(it.theirs, it.ours) for it in first] == second

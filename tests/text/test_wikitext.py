from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secondary_learners.text.wikitext import wikitext_style


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A well-known man, he said.", " A well @-@ known man , he said . \n"),
        ("It cost 1,200.50 pounds in all.", " It cost 1 @,@ 200 @.@ 50 pounds in all . \n"),
        ("It\u2019s his; don\u2019t “go”!", " It 's his ; do n't \" go \" ! \n"),
        ("Early life", " \n = = Early life = = \n \n"),
        ("One.\n\n  \nTwo (2).", " One . \n Two ( 2 ) . \n"),
        ("The <unk> is here.", " The <unk> is here . \n"),
        ("", ""),
        (" \n\t", ""),
    ],
)
def test_text_is_spelled_as_wikitext_spells_it(text: str, expected: str) -> None:
    assert wikitext_style(text) == expected


@given(st.text())
def test_nothing_but_white_space_and_marks_is_added_or_lost(text: str) -> None:
    def letters(value: str) -> list[str]:
        return [character for character in value if character.isalpha()]

    assert letters(wikitext_style(text)) == letters(text)

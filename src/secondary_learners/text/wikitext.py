"""Ordinary text in the spelling of WikiText, so that a learner meets the tokens it was made on."""

from __future__ import annotations

import re

__all__ = ["wikitext_style"]

_QUOTES = str.maketrans(
    {"\u201c": '"', "\u201d": '"', "\u2018": "'", "\u2019": "'", "\u2014": "\u2013"}
)
_RULES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"(?<=\d),(?=\d{3})", " @,@ "),
        (r"(?<=\d)\.(?=\d)", " @.@ "),
        (r"(?<=\w)-(?=\w)", " @-@ "),
        (r'([;:?!"()\[\]{}\u2013$%£&])', r" \1 "),
        (r"(?<!@),(?!@)", " , "),
        (r"\.{3}", " ... "),
        (r"(\w)'(s|re|ll|ve|d|m|t)\b", r"\1 '\2"),
        (r"n 't\b", " n't"),
        (r"(?<=s)'(?=\s)", " '"),
        (r"(?<![A-Z@.])\.(?=\s|$)", " . "),
        (r"< unk >", "<unk>"),
        (r"\s+", " "),
    )
)
_HEADING = 60  # characters: a shorter line that ends like no sentence is a heading
_ENDS = tuple('.!?:;,"')


def wikitext_style(text: str) -> str:
    """Each line of `text` as a paragraph or a heading of WikiText-103; "" for white space alone.

    Punctuation stands apart, hyphens and numbers are `@-@`, `@,@` and `@.@`, headings `= = … = =`.
    """
    paragraphs = []
    for line in filter(None, map(str.strip, text.split("\n"))):
        spelled = line.translate(_QUOTES)
        for pattern, replacement in _RULES:
            spelled = pattern.sub(replacement, spelled)
        spelled = spelled.strip()
        heading = len(line) < _HEADING and not line.endswith(_ENDS)
        paragraphs.append(f" \n = = {spelled} = = \n \n" if heading else f" {spelled} \n")
    return "".join(paragraphs)

"""A linear net on the words of a text and its runs of three bytes, hashed: text in, numpy alone.

Reading a text is part of artifact format 1, and is never changed:

- Its bytes are UTF-8. Curly quotes are straight ones, white space of any length one space, and of a
  visible ASCII character that is neither a letter nor a digit, repeated, the first is read.
- A word is a run of letters, digits and bytes above 127; any other visible character is one too.
- A window is as many words as the net was fitted on, the last one of a text shorter. A long text is
  first divided after at most 32,768 bytes, at a space or line end where there is one.
- In a window of n words and g grams (three bytes that lie within it) the words of a bucket, c of
  them, have the value (c / n)**0.5, and the grams (c / g)**0.5.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

__all__ = ["HashedText", "Windows", "buckets_of", "features_of", "read_windows", "windows_of"]

_TOGETHER = 65_536  # bytes read at once: what a core's cache holds
_LONGEST = 32_768
_GRAM = 3
# Odd numbers without meaning. A word's hash is the sum of its bytes' numbers times powers of _BASE,
# from differences of running sums modulo 2**64; the power of its place is divided out.
_BASE, _BYTE, _WORD, _TRIPLE = (
    0x9E3779B97F4A7C15,
    0xD6E8FEB86659FD93,
    0xBF58476D1CE4E5B9,
    0x9E3779B1,
)
_SPACE, _LETTER, _SIGN = 0, 1, 2
_QUOTES = {"\u2018": b"'", "\u2019": b"'", "\u201c": b'"', "\u201d": b'"'}

Integers = npt.NDArray[np.int64]
Words64 = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]


def _kinds() -> npt.NDArray[np.uint8]:
    kinds = np.full(256, _LETTER, np.uint8)
    kinds[:33], kinds[127] = _SPACE, _SPACE
    for code in range(33, 127):
        if not chr(code).isalnum():
            kinds[code] = _SIGN
    return kinds


def _powers(base: int) -> Words64:
    powers = np.full(_TOGETHER + 1, base, np.uint64)
    powers[0] = 1
    return np.cumprod(powers, dtype=np.uint64)


_KIND = _kinds()
_POWER, _INVERSE = _powers(_BASE), _powers(pow(_BASE, -1, 2**64))
_NUMBER = (np.arange(256, dtype=np.uint64) + np.uint64(1)) * np.uint64(_BYTE)


@dataclass(frozen=True, eq=False)
class Windows:
    """The windows of some pieces of text, what is in them, and where.

    data: the bytes that are read. first: where each word begins [words]. word: the hash of each
    [words]. window: of each word [words]. piece: of each window [windows]. pieces: how many.
    """

    data: npt.NDArray[np.uint8]
    first: Integers
    word: Words64
    window: Integers
    piece: Integers
    pieces: int

    @cached_property
    def sizes(self) -> Integers:
        """Words in each window [windows]."""
        return np.bincount(self.window, minlength=len(self.piece))

    @cached_property
    def grams(self) -> tuple[Integers, npt.NDArray[np.uint32], Integers]:
        """Where each gram begins, its number and its window, [grams] each."""
        width = np.diff(self.first, append=len(self.data))
        at = np.repeat(self.window, width)  # of each byte
        last = len(at) - _GRAM + 1
        begin = np.flatnonzero(at[:last] == at[_GRAM - 1 :]) if last > 0 else np.zeros(0, np.int64)
        data = self.data.astype(np.uint32)
        number = data[begin]
        for place in range(1, _GRAM):
            number = (number << np.uint32(8)) | data[begin + place]
        return begin, number, at[begin]


def read_windows(pieces: Sequence[bytes], length: int) -> Windows:
    """The windows of `length` words of pieces that have at most 65,536 bytes together."""
    raw = np.frombuffer(b"".join(pieces), np.uint8)
    kind = _KIND[raw]
    again = np.zeros(len(raw), np.bool_)
    again[:1] = kind[:1] == _SPACE
    again[1:] = (kind[1:] == kind[:-1]) & (
        (kind[1:] == _SPACE) | ((kind[1:] == _SIGN) & (raw[1:] == raw[:-1]))
    )
    shown = np.flatnonzero(~again)
    data, kind = raw[shown], kind[shown]
    data[kind == _SPACE] = 32
    letter, sign = kind == _LETTER, kind == _SIGN
    begins, ends = letter.copy(), letter.copy()
    begins[1:] &= ~letter[:-1]
    ends[:-1] &= ~letter[1:]
    first, last = np.flatnonzero(begins | sign), np.flatnonzero(ends | sign)
    sums = np.zeros(len(data) + 1, np.uint64)
    np.cumsum(_NUMBER[data] * _POWER[: len(data)], out=sums[1:])
    word = (sums[last + 1] - sums[first]) * _INVERSE[first]
    word ^= word >> np.uint64(29)

    starts = np.cumsum([0, *map(len, pieces)])
    bounds = np.searchsorted(first, np.searchsorted(shown, starts))  # words before each piece
    counts = np.diff(bounds)
    windows = -(-counts // length)
    before = np.cumsum(windows) - windows
    within = np.arange(len(first)) - np.repeat(bounds[:-1], counts)
    window = np.repeat(before, counts) + within // length
    piece = np.repeat(np.arange(len(pieces)), windows)
    return Windows(data, first, word, window, piece, len(pieces))


def windows_of(texts: Sequence[str], length: int) -> Iterator[tuple[Integers, Windows]]:
    """The windows of texts, some pieces at a time, with the text of each piece [pieces]."""
    owners: list[int] = []
    pieces: list[bytes] = []
    size = 0
    for number, text in enumerate(texts):
        for piece in _pieces(_bytes(text)):
            if pieces and size + len(piece) > _TOGETHER:
                yield np.array(owners), read_windows(pieces, length)
                owners, pieces, size = [], [], 0
            owners.append(number)
            pieces.append(piece)
            size += len(piece)
    if pieces:
        yield np.array(owners), read_windows(pieces, length)


def _bytes(text: str) -> bytes:
    """UTF-8 that ends in a space; half a surrogate pair is bytes too."""
    data = text.encode("utf-8", "surrogatepass")
    if b"\xe2\x80" in data:
        for curly, straight in _QUOTES.items():
            data = data.replace(curly.encode(), straight)
    return data.replace(b"\xc2\xa0", b" ") + b" "


def _pieces(data: bytes) -> Iterator[bytes]:
    begin = 0
    while len(data) - begin > _LONGEST:
        most = begin + _LONGEST
        end = max(data.rfind(space, begin, most) for space in (b" ", b"\n")) + 1 or most
        yield data[begin:end].rstrip() + b" "
        begin = end
    yield data[begin:]


def buckets_of(windows: Windows, words: int, grams: int) -> tuple[Integers, Integers]:
    """The column of each word [words] and of each gram [grams]; grams come after all words.

    words, grams: how many buckets there are, powers of two from 2 up, or 0 of grams for none.
    """
    mixed = windows.word * np.uint64(_WORD) >> np.uint64(64 - words.bit_length() + 1)
    if not grams:
        return mixed.astype(np.int64), np.zeros(0, np.int64)
    triples = windows.grams[1] * np.uint32(_TRIPLE) >> np.uint32(32 - grams.bit_length() + 1)
    return mixed.astype(np.int64), triples.astype(np.int64) + words


def features_of(
    windows: Windows, words: int, grams: int
) -> tuple[Integers, Integers, npt.NDArray[np.float64]]:
    """The values that are not 0, as window, column and value, [entries] each."""
    columns = buckets_of(windows, words, grams)
    parts = [_counted(windows.window, columns[0], len(windows.piece), words + grams)]
    if grams:
        parts.append(_counted(windows.grams[2], columns[1], len(windows.piece), words + grams))
    window, column, value = (np.concatenate(part) for part in zip(*parts, strict=True))
    return window, column, value


def _counted(
    window: Integers, column: Integers, windows: int, columns: int
) -> tuple[Integers, Integers, Floats]:
    bits = columns.bit_length()
    keys = window << bits | column
    keys.sort()
    new = np.ones(len(keys), np.bool_)
    np.not_equal(keys[1:], keys[:-1], out=new[1:])
    first = np.flatnonzero(new)
    counts = np.diff(first, append=len(keys))
    keys = keys[first]
    rows, places = keys >> bits, keys & (1 << bits) - 1
    sizes = np.bincount(window, minlength=windows)
    return rows, places, np.sqrt(counts / sizes[rows])


class HashedText:
    """The net: a weight for each bucket, and what a text without a word has."""

    def __init__(
        self, weight: npt.NDArray[np.float32], bias: float, *, words: int, length: int
    ) -> None:
        """weight: [words + grams]. length: of a window, in words."""
        self.weight, self.bias = weight, bias
        self.words, self.grams, self.length = words, len(weight) - words, length

    def raw(self, texts: Sequence[str]) -> tuple[Floats, Integers]:
        """The raw prediction and the number of words of each text [texts].

        A text has the mean of its windows, each weighted by its words.
        """
        total, words = np.zeros(len(texts)), np.zeros(len(texts))
        for owner, windows in windows_of(texts, self.length):
            window, column, value = features_of(windows, self.words, self.grams)
            raw = np.bincount(window, value * self.weight[column], len(windows.piece))
            text = owner[windows.piece]
            # One window after the other, so that sums do not depend on what is read together.
            np.add.at(total, text, raw * windows.sizes)
            np.add.at(words, text, windows.sizes)
        return total / np.maximum(words, 1) + self.bias, words.astype(np.int64)

    def shares(self, text: str) -> list[tuple[str, float]]:
        """Each word, with what comes before the next one, and what it adds to the raw prediction.

        They add up to that, less `bias`. A gram is its middle byte's word's.
        """
        answer: list[tuple[str, float]] = []
        read = [windows for _, windows in windows_of([text], self.length)]
        everything = [windows for windows in read if len(windows.first)]
        count = sum(len(windows.first) for windows in everything)
        for windows in everything:
            columns = buckets_of(windows, self.words, self.grams)
            share = self._shares(windows, windows.window, columns[0])
            if self.grams:
                begin, _, window = windows.grams
                word = np.searchsorted(windows.first, begin + _GRAM // 2, side="right") - 1
                each = self._shares(windows, window, columns[1])
                share += np.bincount(word, each, len(share))
            share *= windows.sizes[windows.window] / count
            ends = np.append(windows.first[1:], len(windows.data))
            answer += [
                (windows.data[begin:end].tobytes().decode("utf-8", "replace"), float(value))
                for begin, end, value in zip(windows.first, ends, share, strict=True)
            ]
        return answer

    def _shares(self, windows: Windows, window: Integers, column: Integers) -> Floats:
        """What each word or gram adds to its window."""
        keys = window * len(self.weight) + column
        _, where, counts = np.unique(keys, return_inverse=True, return_counts=True)
        sizes = np.bincount(window, minlength=len(windows.piece))
        scale = np.sqrt(counts[where] * sizes[window], dtype=np.float64)
        return np.asarray(self.weight[column] / scale)

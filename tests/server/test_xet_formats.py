from __future__ import annotations

import hashlib
import io
import os
import struct
from itertools import islice

import lz4.frame
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secondary_learners.server.store.xet_formats import (
    MAX_CHUNK_BYTES,
    MAX_CHUNKS,
    MAX_UNPACKED_BYTES,
    Term,
    XetFormatError,
    Xorb,
    index_xorb,
    shard_files,
    shard_terms,
)
from xet_helpers import GROUPED, LZ4, NONE, TAG, chunk, shard

HASH = "0123456789abcdef" * 4


def indexed(xorb: bytes) -> Xorb:
    file = io.BytesIO(xorb)
    index_xorb(file)
    return Xorb(file)


def refused(xorb: bytes, message: str) -> None:
    with pytest.raises(XetFormatError, match=message):
        index_xorb(io.BytesIO(xorb))


@given(
    st.lists(
        st.tuples(st.binary(min_size=1, max_size=300), st.sampled_from([NONE, LZ4, GROUPED])),
        min_size=1,
        max_size=8,
    ),
    st.data(),
)
def test_any_run_of_chunks_comes_out_as_it_went_in(chunks, data) -> None:
    xorb = indexed(b"".join(chunk(content, scheme) for content, scheme in chunks))
    start = data.draw(st.integers(0, len(chunks) - 1))
    end = data.draw(st.integers(start + 1, len(chunks)))
    expected = [content for content, _ in chunks[start:end]]
    term = Term(HASH, sum(map(len, expected)), start, end)
    xorb.check(term)
    assert list(xorb.read(term)) == expected
    assert xorb.chunks == len(chunks)


def test_the_footer_of_older_clients_is_left_out() -> None:
    file = io.BytesIO(chunk(b"abc") + b"XETBLOB" + os.urandom(500))
    index_xorb(file)
    term = Term(HASH, 3, 0, 1)
    assert list(Xorb(file).read(term)) == [b"abc"]
    assert len(file.getvalue()) < 100


@pytest.mark.parametrize(
    ("start", "end", "size", "message"),
    [
        (0, 4, 9, "which has 3"),
        (3, 4, 3, "which has 3"),
        (1, 1, 0, "which has 3"),
        (2, 1, 3, "which has 3"),
        (2**32 - 1, 2**32 - 1, 0, "which has 3"),
        (0, 3, 8, "are 9 bytes, not 8"),
        (1, 2, 4, "are 3 bytes, not 4"),
    ],
)
def test_a_term_must_fit_the_xorb(start: int, end: int, size: int, message: str) -> None:
    xorb = indexed(chunk(b"abc") + chunk(b"def", LZ4) + chunk(b"ghi"))
    with pytest.raises(XetFormatError, match=message):
        xorb.check(Term(HASH, size, start, end))


def test_damaged_chunks_are_refused() -> None:
    good = chunk(b"hello world" * 50, LZ4)
    refused(b"", "no chunks")
    refused(b"XETBLOB and no chunk", "no chunks")
    refused(good[:5], "chunk 0 is cut short")
    refused(good[:-1], "chunk 0 is cut short")
    refused(good + good[:-1], "chunk 1 is cut short")
    refused(chunk(b"abc", version=1), "chunk 0 has version 1")
    refused(chunk(b"abc", 3), "compression scheme 3")
    refused(chunk(b""), "claims 0 bytes")
    refused(chunk(b"abc", NONE, size=4), "another size than the 4 bytes")
    refused(chunk(b"abcd", LZ4, size=5), "another size than the 5 bytes")
    refused(chunk(b"abcd" * 9, GROUPED, size=35), "another size than the 35 bytes")
    refused(chunk(b"abc")[:4] + b"\1" + chunk(b"abc")[5:], "chunk 0 is not")  # text as a frame


def test_a_frame_with_bytes_after_it_is_refused() -> None:
    packed = lz4.frame.compress(b"abc") + b"more"
    refused(
        b"\0" + len(packed).to_bytes(3, "little") + b"\1" + (3).to_bytes(3, "little") + packed,
        "not exactly one LZ4 frame",
    )


def test_an_oversized_chunk_is_refused() -> None:
    indexed(chunk(bytes(MAX_CHUNK_BYTES), LZ4))
    refused(chunk(bytes(MAX_CHUNK_BYTES + 1), LZ4), "at most")
    refused(chunk(os.urandom(2 * MAX_CHUNK_BYTES), NONE), "at most")


def test_a_chunk_that_unpacks_to_more_than_it_claims_is_not_unpacked(monkeypatch) -> None:
    bomb = chunk(bytes(30_000_000), LZ4, size=1000)
    assert len(bomb) < 131_072
    sizes = []
    real = lz4.frame.LZ4FrameDecompressor.decompress

    def watched(self, data, max_length=-1):
        unpacked = real(self, data, max_length)
        sizes.append(len(unpacked))
        return unpacked

    monkeypatch.setattr(lz4.frame.LZ4FrameDecompressor, "decompress", watched)
    refused(bomb, "not exactly one LZ4 frame of 1000 bytes")
    assert max(sizes) <= 1001


def test_a_xorb_that_unpacks_to_too_much_is_refused() -> None:
    one = chunk(bytes(MAX_CHUNK_BYTES), LZ4)
    refused(one * (MAX_UNPACKED_BYTES // MAX_CHUNK_BYTES + 1), "unpacks to more than")
    refused(chunk(b"a") * (MAX_CHUNKS + 1), "more than 65536 chunks")


def test_the_files_of_a_shard() -> None:
    first, second = hashlib.sha256(b"1").hexdigest(), hashlib.sha256(b"2").hexdigest()
    terms = [(HASH, 10, 0, 2), (HASH[::-1], 2**32 - 1, 5, 2**32 - 1)]
    for verified in (True, False):
        file = io.BytesIO(shard((first, terms), (second, []), verified=verified))
        found = list(shard_files(file))
        assert [described.sha256 for described in found] == [first, second]
        assert list(shard_terms(file, found[0])) == [Term(*term) for term in terms]
        assert list(shard_terms(file, found[1])) == []


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "cut short"),
        (bytes(96), "not a shard of version 2"),
        (TAG + struct.pack("<QQ", 3, 0), "not a shard of version 2"),
        (TAG + struct.pack("<QQ", 2, 0), "cut short"),
        (shard((None, [(HASH, 1, 0, 1)])), "sha256 that a commit needs"),
        (shard((HASH, [(HASH, 1, 0, 1)]))[:-120], "cut short"),
        (
            TAG + struct.pack("<QQ", 2, 0) + bytes(32) + struct.pack("<IIQ", 3 << 30, 2**32 - 1, 0),
            "cut short",
        ),
    ],
)
def test_a_damaged_shard_is_refused(body: bytes, message: str) -> None:
    with pytest.raises(XetFormatError, match=message):
        list(shard_files(io.BytesIO(body)))


def mutated(good: bytes) -> st.SearchStrategy[bytes]:
    """`good`, with some bytes overwritten, then cut."""
    changes = st.lists(st.tuples(st.integers(0, len(good) - 1), st.integers(0, 255)), max_size=6)

    def apply(edits: list[tuple[int, int]], length: int) -> bytes:
        body = bytearray(good)
        for position, value in edits:
            body[position] = value
        return bytes(body[:length])

    return st.builds(apply, changes, st.integers(0, len(good)))


XORB = b"".join(chunk(bytes(range(n, n + 90)), scheme) for n, scheme in enumerate([0, 1, 2] * 2))
SHARD = shard((HASH, [(HASH, 100, 0, 1)] * 3), (HASH, [(HASH, 1, 0, 1)]))


@settings(max_examples=300)
@given(st.binary(max_size=400) | mutated(XORB))
def test_arbitrary_xorbs_are_read_or_refused(body: bytes) -> None:
    try:
        xorb = indexed(body)
    except XetFormatError:
        return
    for number in range(xorb.chunks):
        (content,) = xorb.read(Term(HASH, 0, number, number + 1))
        xorb.check(Term(HASH, len(content), number, number + 1))


@settings(max_examples=300)
@given(
    st.binary(max_size=400)
    | st.binary(max_size=400).map((TAG + b"\2" + bytes(15)).__add__)
    | mutated(SHARD)
)
def test_arbitrary_shards_are_read_or_refused(body: bytes) -> None:
    file = io.BytesIO(body)
    try:
        for described in shard_files(file):
            for term in islice(shard_terms(file, described), 100):
                assert len(term.xorb) == 64
    except XetFormatError:
        return

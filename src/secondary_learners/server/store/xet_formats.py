"""What a Xet client sends: xorbs (compressed chunks) and shards (how files are made of chunks).

Formats: https://huggingface.co/docs/xet/xorb and https://huggingface.co/docs/xet/shard. Whatever
the bytes, these functions return or raise XetFormatError, and hold one chunk in memory at a time.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from lz4.frame import LZ4FrameDecompressor

__all__ = [
    "MAX_SHARD_BYTES",
    "MAX_XORB_BYTES",
    "ShardFile",
    "Term",
    "XetFormatError",
    "Xorb",
    "index_xorb",
    "shard_files",
    "shard_terms",
]

# A client cuts a xorb at 64 MiB of unpacked bytes; chunk headers and a footer come on top.
MAX_UNPACKED_BYTES = 64 * 2**20
MAX_XORB_BYTES = MAX_UNPACKED_BYTES + 8 * 2**20
MAX_SHARD_BYTES = 64 * 2**20
MAX_CHUNKS = 65_536  # eight times what a client puts into one xorb
MAX_CHUNK_BYTES = 128 * 2**10
MAX_PACKED_BYTES = MAX_CHUNK_BYTES + 4096  # an LZ4 frame of bytes that do not compress

_NONE, _LZ4, _GROUPED_LZ4 = range(3)
_FOOTER = b"XETBLOB"  # begins the footer that older clients send after the last chunk
_HEADER_BYTES = 8
_BOUNDARY = struct.Struct("<II")
_COUNT = struct.Struct("<I")

_RECORD_BYTES = 48
_SHARD_TAG = b"HFRepoMetaData\0" + bytes.fromhex("556967456a7b815783a5bdd95ccdd14aa9")
_SHARD_HEADER = struct.Struct("<32sQQ")
_SHARD_VERSION = 2
_FILE_HEADER = struct.Struct("<32sII8x")
_TERM = struct.Struct("<32sIIII")
_BOOKEND = b"\xff" * 32
_WITH_VERIFICATION, _WITH_METADATA = 1 << 31, 1 << 30


class XetFormatError(ValueError):
    """Bytes that are not a xorb or a shard, or that ask for more than is given."""


@dataclass(frozen=True)
class Term:
    """A part of a file: the chunks `start` to `end` (exclusive) of a xorb, `size` bytes in all."""

    xorb: str
    size: int
    start: int
    end: int


@dataclass(frozen=True)
class ShardFile:
    """A file that a shard describes: its sha256 in hex, and where in the shard its terms are."""

    sha256: str
    offset: int
    terms: int


def index_xorb(file: BinaryIO) -> None:
    """Check every chunk of the xorb in `file`, and put an index in the place of its footer.

    The index makes any run of chunks two small reads away; `Xorb` reads it. Raises XetFormatError.
    """
    total = file.seek(0, os.SEEK_END)
    file.seek(0)
    boundaries = [(0, 0)]
    position = unpacked = 0
    while position < total:
        header = file.read(_HEADER_BYTES)
        if header.startswith(_FOOTER):
            break
        if len(boundaries) > MAX_CHUNKS:
            raise XetFormatError(f"it has more than {MAX_CHUNKS} chunks")
        where = f"chunk {len(boundaries) - 1}"
        packed_size, scheme, size = _chunk_header(header, where)
        unpacked += len(_unpack(file.read(packed_size), packed_size, scheme, size, where))
        if unpacked > MAX_UNPACKED_BYTES:
            raise XetFormatError(f"it unpacks to more than {MAX_UNPACKED_BYTES} bytes")
        position += _HEADER_BYTES + packed_size
        boundaries.append((position, unpacked))
    if position == 0:
        raise XetFormatError("it has no chunks")
    file.seek(position)
    file.truncate()
    for boundary in boundaries:
        file.write(_BOUNDARY.pack(*boundary))
    file.write(_COUNT.pack(len(boundaries) - 1))


class Xorb:
    """A xorb that `index_xorb` has checked."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        end = file.seek(-_COUNT.size, os.SEEK_END)
        (self.chunks,) = _COUNT.unpack(file.read(_COUNT.size))
        self._index = end - _BOUNDARY.size * (self.chunks + 1)

    @property
    def packed_size(self) -> int:
        """The bytes that were sent for it."""
        return int(self._index)

    def check(self, term: Term) -> None:
        """Raises XetFormatError when the xorb does not have these chunks, or not of this size."""
        if not term.start < term.end <= self.chunks:
            raise XetFormatError(
                f"chunks {term.start} to {term.end} of xorb {term.xorb}, which has {self.chunks}"
            )
        size = self._boundary(term.end)[1] - self._boundary(term.start)[1]
        if size != term.size:
            raise XetFormatError(
                f"chunks {term.start} to {term.end} of xorb {term.xorb} are {size} bytes, "
                f"not {term.size}"
            )

    def read(self, term: Term) -> Iterator[bytes]:
        """The chunks of a term that `check` has passed, unpacked, one after the other."""
        self._file.seek(self._boundary(term.start)[0])
        for number in range(term.start, term.end):
            where = f"chunk {number} of xorb {term.xorb}"
            packed_size, scheme, size = _chunk_header(self._file.read(_HEADER_BYTES), where)
            yield _unpack(self._file.read(packed_size), packed_size, scheme, size, where)

    def _boundary(self, number: int) -> tuple[int, int]:
        """Where chunk `number` begins: in the xorb, and in its unpacked bytes."""
        self._file.seek(self._index + _BOUNDARY.size * number)
        position, unpacked = _BOUNDARY.unpack(self._file.read(_BOUNDARY.size))
        return position, unpacked


def _chunk_header(header: bytes, where: str) -> tuple[int, int, int]:
    """Packed size in bytes, compression scheme, unpacked size in bytes."""
    if len(header) < _HEADER_BYTES:
        raise XetFormatError(f"{where} is cut short")
    if header[0] != 0:
        raise XetFormatError(f"{where} has version {header[0]}; only 0 is known")
    packed_size, scheme = int.from_bytes(header[1:4], "little"), header[4]
    size = int.from_bytes(header[5:8], "little")
    if not (0 < packed_size <= MAX_PACKED_BYTES and 0 < size <= MAX_CHUNK_BYTES):
        raise XetFormatError(
            f"{where} claims {packed_size} bytes that unpack to {size}; at most "
            f"{MAX_PACKED_BYTES} and {MAX_CHUNK_BYTES} can be"
        )
    return packed_size, scheme, size


def _unpack(packed: bytes, packed_size: int, scheme: int, size: int, where: str) -> bytes:
    if len(packed) < packed_size:
        raise XetFormatError(f"{where} is cut short")
    if scheme == _NONE:
        data = packed
    elif scheme == _LZ4:
        data = _lz4(packed, size, where)
    elif scheme == _GROUPED_LZ4:
        data = _ungroup(_lz4(packed, size, where))
    else:
        raise XetFormatError(f"{where} has compression scheme {scheme}; 0, 1 and 2 are known")
    if len(data) != size:
        raise XetFormatError(f"{where} unpacks to another size than the {size} bytes it claims")
    return data


def _lz4(packed: bytes, size: int, where: str) -> bytes:
    """At most `size` + 1 bytes, however many the frame holds."""
    decompressor = LZ4FrameDecompressor()
    try:
        data: bytes = decompressor.decompress(packed, max_length=size + 1)
    except (RuntimeError, EOFError) as error:
        raise XetFormatError(f"{where} is not an LZ4 frame: {error}") from None
    if not decompressor.eof or decompressor.unused_data:
        raise XetFormatError(f"{where} is not exactly one LZ4 frame of {size} bytes")
    return data


def _ungroup(grouped: bytes) -> bytes:
    """Bytes that were sorted by their position modulo 4, back in their places."""
    data = bytearray(len(grouped))
    begin = 0
    for group in range(4):
        end = begin + (len(grouped) + 3 - group) // 4
        data[group::4] = grouped[begin:end]
        begin = end
    return bytes(data)


def shard_files(file: BinaryIO) -> Iterator[ShardFile]:
    """The files of a shard, in its order.

    What follows them (a list of xorbs for later deduplication, an index) is not needed to put them
    together, nor are the hashes of chunks: the sha256 of the whole is checked.
    Raises XetFormatError.
    """
    total = file.seek(0, os.SEEK_END)
    tag, version, _ = _SHARD_HEADER.unpack(_record(file, 0))
    if tag != _SHARD_TAG or version != _SHARD_VERSION:
        raise XetFormatError("it is not a shard of version 2")
    position = _RECORD_BYTES
    while True:
        name, flags, terms = _FILE_HEADER.unpack(_record(file, position))
        if name == _BOOKEND:
            return
        offset = position + _RECORD_BYTES
        groups = 2 if flags & _WITH_VERIFICATION else 1
        position = offset + groups * terms * _RECORD_BYTES
        if not flags & _WITH_METADATA:
            raise XetFormatError("it has a file without the sha256 that a commit needs")
        if position > total:
            raise XetFormatError("it is cut short")
        yield ShardFile(_hex(_record(file, position)[:32]), offset, terms)
        position += _RECORD_BYTES


def shard_terms(file: BinaryIO, described: ShardFile) -> Iterator[Term]:
    """The terms of a file that `shard_files` found, in the order of the file's bytes."""
    for number in range(described.terms):
        xorb, _, size, start, end = _TERM.unpack(
            _record(file, described.offset + number * _RECORD_BYTES)
        )
        yield Term(_hex(xorb), size, start, end)


def _record(file: BinaryIO, position: int) -> bytes:
    file.seek(position)
    record = file.read(_RECORD_BYTES)
    if len(record) < _RECORD_BYTES:
        raise XetFormatError("it is cut short")
    return record


def _hex(digest: bytes) -> str:
    """A hash as this protocol spells it: four 64-bit numbers, each stored little-endian."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", digest))

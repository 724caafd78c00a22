"""The body of a commit, line by line: one JSON object each, the header first."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from secondary_learners.server.api.web import hold
from secondary_learners.server.errors import Refused
from secondary_learners.server.store.changes import AddFile, AddUpload, Delete, Operation
from secondary_learners.server.store.commits import NewCommit
from secondary_learners.server.store.hub import Hub
from secondary_learners.server.store.metadata import MetadataError, metadata_json
from secondary_learners.server.store.names import check_new_path, check_path, is_sha256
from secondary_learners.server.store.objects import MOST_IN_MEMORY, Contents
from secondary_learners.server.store.oids import blob_oid

__all__ = ["read_commit"]

_TEXT_LIMIT = 64 * 1024
_TOGETHER = 2**20  # bytes of lines that are worth a thread


async def read_commit(
    hub: Hub, request: Request, branch: str, author: str, contents: Contents
) -> NewCommit:
    """What `request` asks for. Files in it go to `contents`.

    Raises Refused 400 for what is not a commit, 413 for too much of it.
    """
    reading = _Reading(hub, contents)
    async for lines in _lines(request, hub.limits.regular_file * 4 // 3 + _TEXT_LIMIT):
        await run_in_threadpool(reading.add, lines)
    header = reading.header
    if header is None:
        raise Refused(400, "The body is empty: a commit has a header line.")
    parent = header.get("parentCommit")
    if not (parent is None or (isinstance(parent, str) and 5 <= len(parent) <= 40)):
        raise Refused(400, "parentCommit must be the oid of a commit.")
    return NewCommit(
        branch,
        parent,
        author,
        _text(header, "summary") or "Update",
        _text(header, "description"),
        reading.operations,
        contents,
        reading.card,
    )


class _Reading:
    """What has been read of a commit so far."""

    def __init__(self, hub: Hub, contents: Contents) -> None:
        self._hub, self._contents = hub, contents
        self.header: dict[str, Any] | None = None
        self.operations: list[Operation] = []
        self.card: str | None = None

    def add(self, lines: list[bytes]) -> None:
        for line in lines:
            self._add(*_parse(line))

    def _add(self, key: str, value: dict[str, Any]) -> None:
        if self.header is None:
            if key != "header":
                raise Refused(400, "The first line of a commit must be its header.")
            self.header = value
            return
        operation, data = _operation(self._hub, key, value, self._contents)
        self.operations.append(operation)
        most = self._hub.limits.files_per_commit
        if len(self.operations) > most:
            raise Refused(413, f"A commit changes at most {most:,} files: split it.")
        if operation.path == "README.md" and not isinstance(operation, Delete):
            self.card = _card(operation, data)


async def _lines(request: Request, limit: int) -> AsyncIterator[list[bytes]]:
    """The lines of the body that are not blank, in lists of those that came together."""
    rest = bytearray()
    gathered: list[bytes] = []
    size = total = 0
    async for chunk in request.stream():
        total += len(chunk)
        hold(request, len(rest) + size + min(total, MOST_IN_MEMORY))
        searched = len(rest)
        rest += chunk
        while (end := rest.find(b"\n", searched)) >= 0:
            line, searched = bytes(rest[:end]), 0
            del rest[: end + 1]
            if line.strip():
                gathered.append(line)
                size += len(line)
        if len(rest) > limit:
            raise Refused(
                413, "A file sent inside a commit is too large: upload it before, as a large file."
            )
        if size > _TOGETHER:
            yield gathered
            gathered, size = [], 0
    if rest.strip():
        gathered.append(bytes(rest))
    yield gathered


def _parse(line: bytes) -> tuple[str, dict[str, Any]]:
    try:
        item = json.loads(line)
    except (ValueError, RecursionError):
        raise Refused(400, "A line of the commit is not JSON.") from None
    if isinstance(item, dict):
        key, value = item.get("key"), item.get("value")
        if isinstance(key, str) and isinstance(value, dict):
            return key, value
    raise Refused(400, 'A line of the commit is not {"key": …, "value": {…}}.')


def _operation(
    hub: Hub, key: str, value: dict[str, Any], contents: Contents
) -> tuple[Operation, bytes]:
    path = value.get("path")
    if key in ("deletedFile", "deletedFolder"):
        folder = key == "deletedFolder"
        if folder and isinstance(path, str):
            path = path.removesuffix("/")  # the client sends folders with it
        return Delete(check_path(path), folder), b""
    path = check_new_path(path)
    if key == "lfsFile":
        sha256, size = value.get("oid"), value.get("size")
        if not is_sha256(sha256) or value.get("algo", "sha256") != "sha256":
            raise Refused(400, f"{path!r}: oid must be a sha256 in lower-case hex.")
        if not (size is None or type(size) is int):
            raise Refused(400, f"{path!r}: size must be a number of bytes.")
        return AddUpload(path, str(sha256), size), b""
    if key == "file":
        data = _content(path, value)
        if len(data) > hub.limits.regular_file:
            raise Refused(413, f"{path!r} is too large for a commit: upload it as a large file.")
        return AddFile(path, contents.add(data), blob_oid(data)), data
    raise Refused(400, f"Unknown operation in a commit: {key[:40]!r}.")


def _content(path: str, value: dict[str, Any]) -> bytes:
    content, encoding = value.get("content"), value.get("encoding", "utf-8")
    try:
        if isinstance(content, str) and encoding == "base64":
            return base64.b64decode(content, validate=True)
        if isinstance(content, str) and encoding == "utf-8":
            return content.encode()
    except (binascii.Error, ValueError):
        pass
    raise Refused(400, f"{path!r}: content must be text, encoded as base64 or utf-8.")


def _card(operation: AddFile | AddUpload, data: bytes) -> str:
    if isinstance(operation, AddUpload):
        return ""  # a README of megabytes: its metadata is not looked for
    try:
        return metadata_json(data)
    except MetadataError as error:
        raise Refused(400, f"Invalid metadata in README.md: {error}.") from error


def _text(header: dict[str, Any], key: str) -> str:
    text = header.get(key) or ""
    if not isinstance(text, str) or len(text) > _TEXT_LIMIT:
        raise Refused(400, f"{key} must be text of at most {_TEXT_LIMIT:,} characters.")
    return text.encode(errors="replace").decode()  # JSON can spell half a surrogate pair

"""Sending files: what kind each is, large ones by signed links, and the commit itself."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from secondary_learners.server.api.access import caller_from
from secondary_learners.server.api.operations import read_commit
from secondary_learners.server.api.web import (
    caller_of,
    hub_of,
    json_object,
    parameter,
    repository_url,
    writable_repository_of,
)
from secondary_learners.server.errors import Refused
from secondary_learners.server.store.commits import write_commit
from secondary_learners.server.store.hub import Hub
from secondary_learners.server.store.names import check_path, is_sha256
from secondary_learners.server.store.objects import Incoming, Stored
from secondary_learners.server.store.repositories import Repository, find_commit, grant, granted
from secondary_learners.server.store.signing import sign, verify
from secondary_learners.server.store.tokens import token_is_live
from secondary_learners.server.store.trees import TreeEntry, entries, find_entry

__all__ = ["GIT_ATTRIBUTES", "batch", "commit", "preupload", "receive", "verify_upload"]

_LARGE = 2**20
_FEW = 100
_BINARY = (
    *("7z", "arrow", "avro", "bin", "bz2", "ckpt", "gguf", "gz", "h5", "jpeg", "jpg", "mp3", "mp4"),
    *("npy", "npz", "onnx", "parquet", "pdf", "pickle", "pkl", "png", "pt", "pth", "safetensors"),
    *("tar", "tflite", "tgz", "wav", "webp", "xz", "zip", "zst"),
)
GIT_ATTRIBUTES = "".join(
    f"*.{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in _BINARY
).encode()


async def preupload(request: Request) -> JSONResponse:
    """POST …/preupload/{revision}: which files go ahead of the commit, and which are there.

    A file is large ("lfs") by its suffix, from 1 MiB on, or when its first bytes are not text.
    """
    hub, repository = hub_of(request), writable_repository_of(request)
    files = (await json_object(request)).get("files")
    if not isinstance(files, list) or len(files) > hub.limits.files_per_commit:
        raise Refused(400, "files must be a list.")
    head = find_commit(hub.database, repository, parameter(request, "revision"))
    return JSONResponse({"files": await run_in_threadpool(_how_to_send, hub, head.id, files)})


def _how_to_send(hub: Hub, head: int, files: Sequence[object]) -> list[dict[str, Any]]:
    """For each file of a preupload, whether it is large and what is stored under its path."""
    tree = None
    if len(files) > _FEW:  # one pass over all files costs less than so many look-ups
        tree = {entry.path: entry for entry in entries(hub.database, head)}

    def answer(file: object) -> dict[str, Any]:
        if not isinstance(file, dict):
            raise Refused(400, "files must hold objects.")
        path, size = check_path(file.get("path")), _size(hub, file.get("size"))
        known = find_entry(hub.database, head, path) if tree is None else tree.get(path)
        large = size > 0 and (
            size >= _LARGE
            or path.lower().endswith(tuple(f".{suffix}" for suffix in _BINARY))
            or not _is_text(file.get("sample"))
        )
        return {
            "path": path,
            "uploadMode": "lfs" if large else "regular",
            "shouldIgnore": False,
            "oid": _stored_oid(hub, known) if known and known.lfs == large else None,
        }

    return [answer(file) for file in files]


async def batch(request: Request) -> JSONResponse:
    """POST /{id}.git/info/lfs/objects/batch: a signed link for each content not held yet.

    Held means by this repository: what another holds must be sent, as proof that the sender
    has it.
    """
    hub, repository = hub_of(request), writable_repository_of(request)
    body, token = await json_object(request), caller_of(request).token
    objects = body.get("objects")
    if body.get("operation") != "upload" or body.get("hash_algo", "sha256") != "sha256":
        raise Refused(400, "Only uploads by sha256 are served here.")
    if not isinstance(objects, list) or len(objects) > hub.limits.files_per_commit:
        raise Refused(400, "objects must be a list.")
    assert token is not None
    there: list[Stored] = []
    url = repository_url(request, repository.kind, repository.full_name) + ".git/info/lfs/objects"

    def answer(item: object) -> dict[str, Any]:
        if not isinstance(item, dict) or not is_sha256(item.get("oid")):
            raise Refused(400, "oid must be a sha256 in lower-case hex.")
        sha256, size = item["oid"], _size(hub, item.get("size"))
        held = granted(hub.database, repository.id, sha256)
        if held == size and hub.objects.has(sha256, size):
            there.append(Stored(sha256, size))
            return {"oid": sha256, "size": size}
        payload = {
            "use": "upload",
            "repository": repository.id,
            "token": token.id,
            "sha256": sha256,
            "size": size,
        }
        signed = sign(hub.secret, payload, hub.limits.upload_lifetime_s)
        actions = {
            "upload": {"href": f"{url}/{sha256}?signed={signed}"},
            "verify": {"href": f"{url}/verify"},
        }
        return {"oid": sha256, "size": size, "actions": actions}

    answers = await run_in_threadpool(lambda: [answer(item) for item in objects])
    more = sum(item["size"] for item in answers if "actions" in item)
    if more:
        await run_in_threadpool(_check_quota, hub, repository, more)
    if there:
        await run_in_threadpool(_renew, hub, repository, there)
    return JSONResponse({"transfer": "basic", "objects": answers})


def _check_quota(hub: Hub, repository: Repository, more: int) -> None:
    """Before the bytes are sent: they are counted again when they are here."""
    with hub.database.reading() as connection:
        hub.check_quota(connection, repository.owner, more)


def _renew(hub: Hub, repository: Repository, contents: Sequence[Stored]) -> None:
    """What the client need not send again must still be there when it commits."""
    with hub.database.transaction() as connection:
        grant(connection, repository.id, *contents)


async def receive(request: Request) -> Response:
    """PUT …/objects/{sha256}?signed=…: the bytes of one file. The link says what it is for."""
    hub = hub_of(request)
    link = verify(hub.secret, request.query_params.get("signed", ""))
    if (
        link is None
        or link.get("use") != "upload"
        or link["sha256"] != parameter(request, "sha256")
        or not token_is_live(hub.database, link["token"])
    ):
        raise Refused(403, "This upload link is not valid, or no longer. Start the upload again.")
    with hub.objects.incoming() as incoming:
        await _fill(incoming, request, link["size"])
        await run_in_threadpool(hub.keep, link["repository"], incoming, link["sha256"])
    return Response(status_code=200)


async def _fill(incoming: Incoming, request: Request, size: int) -> None:
    """Write the body, `size` bytes, in pieces large enough to be worth a thread each."""
    piece = bytearray()
    async for chunk in request.stream():
        piece += chunk
        if incoming.size + len(piece) > size:
            raise Refused(413, f"More bytes were sent than the {size:,} that were announced.")
        if len(piece) >= _LARGE:
            await run_in_threadpool(incoming.write, piece)
            piece = bytearray()
    await run_in_threadpool(incoming.write, piece)
    if incoming.size != size:
        raise Refused(400, f"{incoming.size:,} bytes were sent, {size:,} were announced.")


async def verify_upload(request: Request) -> JSONResponse:
    """POST …/objects/verify {oid, size}: whether an upload has arrived."""
    hub, repository = hub_of(request), writable_repository_of(request)
    body = await json_object(request)
    sha256 = str(body.get("oid"))
    held = granted(hub.database, repository.id, sha256) if is_sha256(sha256) else None
    if held is None or held != body.get("size"):
        raise Refused(404, "This content has not arrived.", "EntryNotFound")
    return JSONResponse({})


async def commit(request: Request) -> JSONResponse:
    """POST …/commit/{revision}."""
    hub, repository = hub_of(request), writable_repository_of(request)
    token = caller_from(hub, request.headers.get("authorization")).token
    assert token is not None
    branch = parameter(request, "revision").removeprefix("refs/heads/")
    if request.query_params.get("create_pr"):
        raise Refused(400, "This server has no pull requests: commit to a branch.")
    contents = hub.objects.contents()
    try:
        new = await read_commit(hub, request, branch, token.user, contents)
        oid = await run_in_threadpool(write_commit, hub, repository, new)
    finally:
        await run_in_threadpool(contents.close)
    return JSONResponse(
        {
            "success": True,
            "commitOid": oid,
            "commitUrl": _commit_url(request, repository, oid),
            "hookOutput": "",
        }
    )


def _stored_oid(hub: Hub, file: TreeEntry) -> str | None:
    """What the client compares with its own, so as not to send a file again; None to have it."""
    return file.etag if hub.objects.has(file.sha256, file.size) else None


def _commit_url(request: Request, repository: Repository, oid: str) -> str:
    return f"{repository_url(request, repository.kind, repository.full_name)}/commit/{oid}"


def _size(hub: Hub, size: object) -> int:
    if type(size) is not int or size < 0:
        raise Refused(400, "size must be a number of bytes.")
    if size > hub.limits.file:
        raise Refused(413, f"A file has at most {hub.limits.file:,} bytes here, not {size:,}.")
    return size


def _is_text(sample: object) -> bool:
    """Whether the first bytes of a file, in base64, are UTF-8 that may end within a character."""
    try:
        data = base64.b64decode(sample) if isinstance(sample, str) else b""
        data.decode()
    except UnicodeDecodeError as error:
        return b"\0" not in data and error.reason == "unexpected end of data"
    except (binascii.Error, ValueError):
        raise Refused(400, "sample must be base64.") from None
    return b"\0" not in data

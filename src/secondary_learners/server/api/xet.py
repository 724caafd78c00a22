"""Uploads in the Xet protocol, with which huggingface_hub sends large files when hf_xet is there.

The client cuts files into chunks, sends the chunks in xorbs, then a shard that says how the files
are made of them (https://huggingface.co/docs/xet/upload-protocol). Each file is put together at
once, checked against its sha256 and kept as an ordinary object; downloads are plain HTTP. What the
protocol has beyond this (deduplication across users, grants, streamed answers) is not found here,
and the client does without.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import BinaryIO

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from secondary_learners.server.api.web import (
    base_url,
    caller_of,
    commit_of,
    hub_of,
    parameter,
    writable_repository_of,
)
from secondary_learners.server.errors import Refused
from secondary_learners.server.store.hub import Hub
from secondary_learners.server.store.names import is_sha256
from secondary_learners.server.store.signing import sign, verify
from secondary_learners.server.store.tokens import token_is_live
from secondary_learners.server.store.xet_formats import (
    MAX_SHARD_BYTES,
    MAX_XORB_BYTES,
    ShardFile,
    XetFormatError,
    shard_files,
    shard_terms,
)
from secondary_learners.server.store.xorbs import (
    XorbFolder,
    find_xorbs,
    incoming_file,
    xorbs_of_today,
)

__all__ = ["xet_routes"]

TOKEN_LIFETIME_S = 15 * 60  # the client asks for a new one half a minute before the end
# How many bytes a shard may make of those sent: LZ4 packs zeros 255 times.
UNPACKED_FACTOR, UNPACKED_FREE = 100, 256 * 2**20
WRITE_BYTES = 2**20  # received bytes go to disk in pieces of this size


def xet_routes() -> list[Route]:
    return [
        Route("/api/models/{owner}/{name}/xet-write-token/{revision}", _write_token),
        Route("/api/datasets/{owner}/{name}/xet-write-token/{revision}", _write_token),
        Route("/api/xet/{folder}/v1/xorbs/default/{xorb}", _upload_xorb, methods=["POST"]),
        Route("/api/xet/{folder}/v1/shards", _upload_shard, methods=["POST"]),
    ]


async def _write_token(request: Request) -> JSONResponse:
    hub = hub_of(request)
    repository = writable_repository_of(request)
    commit_of(request, repository)  # a revision that does not exist is said now, not at the end
    token = caller_of(request).token
    assert token is not None  # nobody in particular may not write
    folder = await run_in_threadpool(xorbs_of_today, hub.root, token.user)
    allowed = {
        "use": "xet",
        "user": token.user,
        "token": token.id,
        "repository": repository.id,
    }
    return JSONResponse(
        {
            "accessToken": sign(hub.secret, allowed, TOKEN_LIFETIME_S),
            "exp": int(time.time()) + TOKEN_LIFETIME_S,
            "casUrl": f"{base_url(request)}/api/xet/{folder.name}",
        }
    )


async def _upload_xorb(request: Request) -> JSONResponse:
    hub, name = hub_of(request), parameter(request, "xorb")
    folder, _ = await run_in_threadpool(_destination, request)
    if not is_sha256(name):
        raise Refused(400, f"{name!r} is not the hash of a xorb: 64 hexadecimal digits.")
    with incoming_file(hub.root) as (file, path):
        await _receive(request, file, MAX_XORB_BYTES)
        try:
            new = await run_in_threadpool(folder.keep, name, file, path)
        except XetFormatError as error:
            raise Refused(400, f"Xorb {name}: {error}.") from None
    return JSONResponse({"was_inserted": new})


async def _upload_shard(request: Request) -> JSONResponse:
    hub = hub_of(request)
    folder, repository = await run_in_threadpool(_destination, request)
    with incoming_file(hub.root) as (file, _):
        await _receive(request, file, MAX_SHARD_BYTES)
        try:
            await run_in_threadpool(_store_files, hub, repository, folder, file)
        except XetFormatError as error:
            raise Refused(400, f"The shard cannot be stored: {error}.") from None
    return JSONResponse({"result": 1})


def _destination(request: Request) -> tuple[XorbFolder, int]:
    """The folder of the request, and the repository its token is for. Raises Refused 401, 400."""
    hub = hub_of(request)
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    allowed = verify(hub.secret, token) if scheme.lower() == "bearer" else None
    if allowed is None or allowed.get("use") != "xet":
        raise Refused(401, "This upload needs a valid Xet token: ask for one at xet-write-token.")
    if not token_is_live(hub.database, allowed["token"]):
        raise Refused(401, "The token this upload began with has been revoked.")
    folder = find_xorbs(hub.root, allowed["user"], parameter(request, "folder"))
    return folder, allowed["repository"]


async def _receive(request: Request, file: BinaryIO, limit: int) -> None:
    """Write the body to `file`. Raises Refused 413 beyond `limit` bytes."""
    size, pending = 0, bytearray()
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise Refused(413, f"The body is larger than {limit:,} bytes.")
        pending += part
        if len(pending) >= WRITE_BYTES:
            await run_in_threadpool(file.write, bytes(pending))
            pending.clear()
    file.write(pending)


def _store_files(hub: Hub, repository: int, folder: XorbFolder, shard: BinaryIO) -> None:
    """Put the files of a shard together. Nothing is written before all it names has been found.

    Raises XetFormatError, or Refused 400 when a file does not have the sha256 that is said.
    """
    _check_terms(hub, folder, shard)
    for described in shard_files(shard):
        with hub.objects.incoming() as incoming:
            for chunk in _contents(folder, shard, described):
                incoming.write(chunk)
            hub.keep(repository, incoming, described.sha256)


def _check_terms(hub: Hub, folder: XorbFolder, shard: BinaryIO) -> None:
    """Whether all that the shard names is there, and is not too much. A term may name a chunk again
    and again: files must stay in proportion to what was sent for them.
    """
    total, sent = 0, dict[str, int]()
    for described in shard_files(shard):
        size = 0
        for term in shard_terms(shard, described):
            with folder.xorb(term.xorb) as xorb:
                xorb.check(term)
                sent[term.xorb] = xorb.packed_size
            size += term.size
        if size > hub.limits.file:
            raise Refused(
                413, f"A file of {size:,} bytes: this server takes at most {hub.limits.file:,}."
            )
        total += size
        if total > UNPACKED_FREE + UNPACKED_FACTOR * sum(sent.values()):
            raise Refused(
                413,
                f"{total:,} bytes are to be made of {sum(sent.values()):,}: upload such files "
                "without Xet, with HF_HUB_DISABLE_XET=1.",
            )


def _contents(folder: XorbFolder, shard: BinaryIO, described: ShardFile) -> Iterator[bytes]:
    for term in shard_terms(shard, described):
        with folder.xorb(term.xorb) as xorb:
            xorb.check(term)  # again: it may have been replaced meanwhile
            yield from xorb.read(term)

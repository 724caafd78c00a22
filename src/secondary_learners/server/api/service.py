"""What those who run the server ask: does it work, and what does it do?"""

from __future__ import annotations

import os
import shutil

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse

from secondary_learners.server.api.web import caller_of, hub_of
from secondary_learners.server.errors import Refused
from secondary_learners.server.hosts import is_loopback

__all__ = ["health", "metrics"]

_LEAST_FREE = 2**20  # bytes: with less, nothing can be stored


def health(request: Request) -> JSONResponse:
    """GET /health: 200 while files are read and written, 503 with the reason when not."""
    hub, problems = hub_of(request), []
    try:
        hub.database.row("SELECT 1 FROM settings LIMIT 1")
    except Exception as error:
        problems.append(f"database: {error}")
    if not os.access(hub.root / "incoming", os.W_OK):
        problems.append("the folder for uploads cannot be written to")
    if shutil.disk_usage(hub.root).free < _LEAST_FREE:
        problems.append("the disk is full")
    status = {"status": "failing" if problems else "ok", "problems": problems}
    return JSONResponse(status, status_code=503 if problems else 200)


def metrics(request: Request) -> PlainTextResponse:
    """GET /metrics: for this machine, and for whoever has a token."""
    hub, address = hub_of(request), request.client.host if request.client else ""
    if not is_loopback(address) and caller_of(request).token is None:
        raise Refused(401, "Send a token, or ask from the server's own machine.")
    row = hub.database.row(
        "SELECT count(*) AS repositories, coalesce(sum(bytes), 0) AS bytes FROM repositories"
    )
    assert row is not None
    disk = shutil.disk_usage(hub.root)
    gauges = {
        "repositories": row["repositories"],
        "stored_bytes": row["bytes"],
        "disk_free_bytes": disk.free,
        "disk_bytes": disk.total,
        "damaged_objects": hub.objects.damaged_count(),
        "memory_held_bytes": request.app.state.memory.used,
    }
    text = "\n".join(request.app.state.figures.lines(gauges)) + "\n"
    return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

"""A refusal as an answer: JSON for people, headers for the client."""

from __future__ import annotations

import re

from starlette.responses import JSONResponse

from secondary_learners.server.errors import Refused

__all__ = ["refusal"]

_NOT_IN_A_HEADER = re.compile(r"[\x00-\x1f\x7f]+")


def refusal(error: Refused) -> JSONResponse:
    headers = {**error.headers, "X-Error-Message": _header_text(error.message)}
    if error.code:
        headers["X-Error-Code"] = error.code
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse({"error": error.message}, status_code=error.status, headers=headers)


def _header_text(text: str) -> str:
    plain = _NOT_IN_A_HEADER.sub(" ", text.encode("ascii", errors="replace").decode())
    return " ".join(plain.split())[:1000]

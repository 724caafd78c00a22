"""Short-lived signed tokens: what a link may do, checked without a look-up."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import time
from typing import Any

__all__ = ["sign", "verify"]


def sign(secret: bytes, payload: dict[str, Any], lifetime_s: int) -> str:
    """`payload`, which must be JSON, as URL-safe text that `verify` accepts for `lifetime_s`."""
    signed = {"expires": int(time.time()) + lifetime_s, "payload": payload}
    body = json.dumps(signed, sort_keys=True, separators=(",", ":")).encode()
    return f"{_encode(body)}.{_encode(_digest(secret, body))}"


def verify(secret: bytes, token: str) -> dict[str, Any] | None:
    """The payload of a token that was signed with `secret` and has not expired, else None."""
    body_text = token.partition(".")[0]
    try:
        body = _decode(body_text)
    except (binascii.Error, ValueError):
        return None
    # Text against text: several texts decode to the same bytes, and one of them was signed.
    expected = f"{_encode(body)}.{_encode(_digest(secret, body))}"
    if not hmac.compare_digest(token.encode(errors="replace"), expected.encode()):
        return None
    signed: dict[str, Any] = json.loads(body)  # ours: the digest is right
    payload: dict[str, Any] = signed["payload"]
    return payload if time.time() < signed["expires"] else None


def _digest(secret: bytes, body: bytes) -> bytes:
    return hmac.new(secret, body, hashlib.sha256).digest()


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)

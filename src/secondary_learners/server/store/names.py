"""What a name, a revision and a path may be. Pure; everything a client sends passes here first."""

from __future__ import annotations

import re

from secondary_learners.server.errors import Refused

__all__ = [
    "check_namespace",
    "check_new_path",
    "check_path",
    "check_ref_name",
    "check_repository_name",
    "is_repository_name",
    "is_reserved",
    "is_sha256",
]

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_OID = re.compile(r"[0-9a-f]{40}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_FORBIDDEN_IN_REF = re.compile(r"[ ~^:?*\[\\]|\.\.|@\{|//")
_NOT_ON_WINDOWS = re.compile(r'[<>:"|?*]|[. ]$')
_DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])\s*(\..*)?", re.I | re.S)
_MOST_PARTS = 32
# First segments of our own routes: an owner of this name would hide them.
_RESERVED = {"api", "datasets", "models", "spaces", "kernels", "buckets", "v1", "v2", "static"}


def is_repository_name(text: str) -> bool:
    """Whether the client and the server both take `text` as one half of owner/name."""
    return (
        _NAME.fullmatch(text) is not None
        and "--" not in text
        and ".." not in text
        and not text.lower().endswith(".git")
    )


def check_repository_name(text: object) -> str:
    if isinstance(text, str) and is_repository_name(text):
        return text
    raise Refused(
        400,
        f"{_shown(text)} cannot name a repository: use at most 96 letters, digits, '-', '_' and "
        "'.', no '--' or '..', no '-' or '.' at either end, and no '.git'.",
    )


def is_reserved(owner: str) -> bool:
    """Whether the server's own paths begin so."""
    return owner.lower() in _RESERVED


def check_namespace(text: object) -> str:
    """A user or an organization."""
    name = check_repository_name(text)
    if is_reserved(name):
        raise Refused(400, f"{name!r} is taken by the server itself: choose another name.")
    return name


def check_ref_name(text: object) -> str:
    """A branch or a tag, by git's rules; and not 40 hex digits, which would read as a commit."""
    if (
        not isinstance(text, str)
        or not 0 < len(text) <= 200
        or not _encodable(text)
        or _CONTROL.search(text)
        or _FORBIDDEN_IN_REF.search(text)
        or text.startswith(("-", "/", "refs/"))
        or text.endswith(("/", ".", ".lock"))
        or text == "@"
        or any(part.startswith(".") or part.endswith(".lock") for part in text.split("/"))
        or _OID.fullmatch(text)
    ):
        raise Refused(400, f"{_shown(text)} cannot name a branch or a tag. Try v1.0.")
    return text


def check_path(text: object) -> str:
    """A file's or a folder's path inside a repository: relative, plain, safe on any disk."""
    if not isinstance(text, str) or not text or not _encodable(text):
        raise Refused(400, f"{_shown(text)} is not a path.")
    parts = text.split("/")
    if (
        len(text.encode()) > 1024
        or "\\" in text
        or _CONTROL.search(text)
        or any(part in ("", ".", "..") or len(part.encode()) > 255 for part in parts)
        or any(part.lower() == ".git" for part in parts)
    ):
        raise Refused(
            400,
            f"{_shown(text)} is not a path in a repository: it must be relative, with '/' between "
            "names, and without '.', '..', '.git', backslashes or control characters.",
        )
    return text


def check_new_path(text: object) -> str:
    """A path that a file is given: Windows and macOS must be able to hold it too."""
    path = check_path(text)
    parts = path.split("/")
    if len(parts) > _MOST_PARTS:
        raise Refused(400, f"{_shown(path)} lies more than {_MOST_PARTS} folders deep.")
    for part in parts:
        if _NOT_ON_WINDOWS.search(part) or _DEVICE.fullmatch(part):
            raise Refused(
                400,
                f"{_shown(path)} cannot be stored on Windows because of {part!r}: no name may hold "
                'any of <>:"|?*, end in a dot or a space, or be a device such as CON or LPT1.',
            )
    return path


def is_sha256(text: object) -> bool:
    return isinstance(text, str) and _SHA256.fullmatch(text) is not None


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can spell
        return False
    return True


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."

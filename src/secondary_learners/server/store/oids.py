"""Identifiers as git computes them, which the client compares with its own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from secondary_learners.files import git_sha1

__all__ = ["blob_oid", "folder_oids", "pointer_oid", "pointer_size"]


def blob_oid(data: bytes) -> str:
    """git's sha1 of a file."""
    return git_sha1(data)


def pointer_oid(sha256: str, size: int) -> str:
    """git's sha1 of the pointer file that stands for a large file."""
    return git_sha1(_pointer(sha256, size))


def pointer_size(sha256: str, size: int) -> int:
    return len(_pointer(sha256, size))


def folder_oids(files: Iterable[tuple[str, str]]) -> dict[str, str]:
    """git's sha1 of every folder of a tree, "" its root. `files`: (path, blob oid)."""
    folders: dict[str, dict[str, tuple[bytes, str]]] = {"": {}}
    for path, oid in files:
        folder, _, name = path.rpartition("/")
        while folder not in folders:
            folders[folder] = {}
            folder = folder.rpartition("/")[0]
        folders[path.rpartition("/")[0]][name] = (b"100644", oid)
    oids: dict[str, str] = {}
    for folder in sorted(folders, key=lambda path: path.count("/") + (path != ""), reverse=True):
        # git sorts a folder as if its name ended with a slash.
        rows = sorted(
            (name.encode() + (b"/" if mode == b"40000" else b""), mode, name, oid)
            for name, (mode, oid) in folders[folder].items()
        )
        data = b"".join(
            mode + b" " + name.encode() + b"\0" + bytes.fromhex(oid) for _, mode, name, oid in rows
        )
        whole = b"tree %d\0" % len(data) + data
        oids[folder] = hashlib.sha1(whole, usedforsecurity=False).hexdigest()
        if folder:
            above, _, name = folder.rpartition("/")
            folders[above][name] = (b"40000", oids[folder])
    return oids


def _pointer(sha256: str, size: int) -> bytes:
    lines = ("version https://git-lfs.github.com/spec/v1", f"oid sha256:{sha256}", f"size {size}")
    return "".join(f"{line}\n" for line in lines).encode()

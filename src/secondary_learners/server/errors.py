"""What the server refuses, as one exception with the status and the code the client acts on."""

from __future__ import annotations

__all__ = ["Refused"]


class Refused(Exception):
    """A request that is refused.

    `status`: the HTTP status. `code`: the `X-Error-Code` from which huggingface_hub chooses its
    exception (RepoNotFound, RevisionNotFound, EntryNotFound, GatedRepo), or nothing.
    """

    def __init__(
        self, status: int, message: str, code: str = "", headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code
        self.headers = headers or {}

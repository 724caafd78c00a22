"""How much the server takes: every number a client could drive up has a ceiling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Limits"]


@dataclass(frozen=True)
class Limits:
    """Ceilings. Sizes in bytes; lifetimes in seconds.

    `json_body`: any JSON or form body. `regular_file`: a file sent inside the commit itself.
    `file`: one uploaded file. `upload_lifetime_s`: how long a signed upload link can be used.
    `memory`: what all requests together hold in memory. `quota`: what an owner's repositories hold
    together, None for no end; `quotas`: by owner, in place of it.
    """

    json_body: int = 8 * 2**20
    regular_file: int = 10 * 2**20
    file: int = 100 * 2**30
    files_per_commit: int = 10_000
    files_per_repository: int = 50_000
    upload_lifetime_s: int = 6 * 3600
    memory: int = 512 * 2**20
    quota: int | None = None
    quotas: Mapping[str, int] = field(default_factory=dict)

    def quota_of(self, owner: str) -> int | None:
        return self.quotas.get(owner, self.quota)

"""Sparse matrices of torch without its remark on them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["no_csr_warning"]


@contextmanager
def no_csr_warning() -> Iterator[None]:
    """CSR is "beta", which torch says once, and ten times faster than COO."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta", UserWarning)
        yield

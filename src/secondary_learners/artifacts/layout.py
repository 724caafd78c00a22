"""Which files an artifact has and which it never has; apart, because this needs no torch."""

from __future__ import annotations

from pathlib import Path

__all__ = ["FILES", "FORBIDDEN", "published_files"]

FILES = ("README.md", "config.json", "evaluation.json", "model.safetensors", "recipe.toml")

# Suffixes of files that can run code when they are loaded.
FORBIDDEN = frozenset(
    (".bin", ".ckpt", ".dill", ".joblib", ".npy", ".pickle", ".pkl", ".pt", ".pth", ".py", ".pyc")
)

_SUFFIXES = frozenset((".json", ".md", ".png", ".safetensors", ".toml"))


def published_files(folder: Path) -> list[Path]:
    """The files of an artifact that travel; working folders and hidden files stay."""
    return [
        path
        for path in sorted(folder.iterdir())
        if path.is_file()
        and not path.name.startswith(".")
        and (path.suffix in _SUFFIXES or path.name in ("LICENSE", "LICENCE"))
    ]

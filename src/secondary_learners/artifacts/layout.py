"""Which files an artifact has and which it never has; apart, because this needs no torch."""

__all__ = ["FILES", "FORBIDDEN"]

FILES = ("README.md", "config.json", "evaluation.json", "model.safetensors", "recipe.toml")

# Suffixes of files that can run code when they are loaded.
FORBIDDEN = frozenset(
    (".bin", ".ckpt", ".dill", ".joblib", ".npy", ".pickle", ".pkl", ".pt", ".pth", ".py", ".pyc")
)

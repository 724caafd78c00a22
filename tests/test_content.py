"""The content folders are found in a checkout, an editable install and a wheel."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from secondary_learners import content, errors, files

ROOT = Path(__file__).resolve().parents[1]
# Standard library only, one added folder, its .pth files obeyed: what an installation gives.
FIND = """
import json, site, sys
site.addsitedir(sys.argv[1])
from secondary_learners.content import FOLDERS, content
print(json.dumps({folder: str(content(folder)) for folder in FOLDERS}))
"""


def run(*command: str | Path) -> str:
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def pip_install(target: Path, *what: str | Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    run(*pip, "--no-deps", "--no-index", "--no-build-isolation", "--target", target, *what)


def found_from(site: Path) -> dict[str, Path]:
    """Where an interpreter that has only the package installed in `site` finds the folders."""
    found = json.loads(run(sys.executable, "-I", "-S", "-c", FIND, site))
    return {folder: Path(path) for folder, path in found.items()}


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): files.sha256_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and with the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT)
    return folder


def test_a_checkout_has_them_at_its_root() -> None:
    for folder in content.FOLDERS:
        assert content.content(folder) == ROOT / folder


@pytest.mark.slow
def test_a_wheel_carries_the_same_files(built: Path, tmp_path: Path) -> None:
    pip_install(tmp_path, *built.glob("*.whl"))
    found = found_from(tmp_path)
    assert set(found) == set(content.FOLDERS)
    for folder, path in found.items():
        assert path == tmp_path / "secondary_learners" / "_content" / folder
        assert digests(path) == digests(ROOT / folder)
        assert digests(path)


def test_a_wheel_adds_one_package_to_site_packages(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"secondary_learners", "secondary_learners-0.1.0.dist-info"}
    package = ROOT / "src" / "secondary_learners"
    modules = {path.relative_to(package.parent).as_posix() for path in package.rglob("*.py")}
    assert modules <= set(names)
    assert "secondary_learners/py.typed" in names


def test_an_editable_install_reads_the_checkout(tmp_path: Path) -> None:
    pip_install(tmp_path, "--editable", ROOT)
    assert found_from(tmp_path) == {folder: ROOT / folder for folder in content.FOLDERS}
    assert not (tmp_path / "secondary_learners").exists(), "a copy of the content would go stale"


def test_a_missing_folder_says_how_to_mend_the_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "__file__", str(tmp_path / "a" / "b" / "content.py"))
    with pytest.raises(errors.SecondaryLearnersError, match=r"'recipes' is missing.*pip install"):
        content.content("recipes")

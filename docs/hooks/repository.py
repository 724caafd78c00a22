"""A hook of mkdocs: the site also has what docs/ links to elsewhere in the repository.

Some Markdown files at the root are pages (`PAGES`); any other file that a page links to, such as a
result file or a picture, is copied to files/. So links are written as they work in the repository,
and every one of them works in the site too.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
PAGES = {
    "README.md": "index.md",
    "docs/README.md": "contents.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
}
_CODE = re.compile(r"(^```.*?^```|`[^`\n]+`)", re.M | re.S)
_LINK = re.compile(r'(?<=\]\()[^)#\s]+|(?<= src=")[^"]+')


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for path, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    source = Path(str(page.file.abs_src_path)).relative_to(ROOT).as_posix()
    here = posixpath.dirname(page.file.src_uri)

    def linked(match: re.Match[str]) -> str:
        target = match[0]
        if re.match(r"[a-z]+:", target):
            return target
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        return posixpath.relpath(_place(path, source, config, files), here or ".")

    parts = _CODE.split(markdown)
    parts[::2] = [_LINK.sub(linked, part) for part in parts[::2]]
    return "".join(parts)


def _place(path: str, source: str, config: MkDocsConfig, files: Files) -> str:
    """Where in the site a file of the repository is; it is added when it is not there yet."""
    if path in PAGES:
        return PAGES[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if not (ROOT / path).is_file():
        raise PluginError(f"{source} links to {path}, which is not a file of the repository.")
    place = f"files/{path}"
    if files.get_file_from_path(place) is None:
        files.append(File.generated(config, place, abs_src_path=str(ROOT / path)))
    return place

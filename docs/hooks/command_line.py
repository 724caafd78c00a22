"""A hook of mkdocs: the command line's reference, in the sections of `learners --help`.

Where a page says `<!-- commands -->` comes a block of mkdocs-click for each command.
"""

from __future__ import annotations

import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

from secondary_learners.cli import LazyGroup, learners

MARK = "<!-- commands -->"


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    return markdown.replace(MARK, blocks()) if MARK in markdown else markdown


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """What click's help sets as it is written (after a line with a backspace) stays so."""
    return re.sub("<p>\b\n(.*?)</p>", r"<pre><code>\1</code></pre>", html, flags=re.S)


def blocks() -> str:
    assert isinstance(learners, LazyGroup)
    lines: list[str] = []
    last = ""
    for name, (section, module, _) in learners.table.items():
        if section != last:
            lines += [f"## {section.capitalize()}", ""]
            last = section
        lines += [
            "::: mkdocs-click",
            f"    :module: secondary_learners.cli.{module}",
            f"    :command: {name.replace('-', '_')}_command",
            f"    :prog_name: learners {name}",
            "    :depth: 2",
            "",
        ]
    return "\n".join(lines)

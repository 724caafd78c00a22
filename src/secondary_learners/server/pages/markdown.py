"""A card as HTML that does nothing: no script, no style, no form, no foreign picture."""

from __future__ import annotations

import nh3
from markdown_it import MarkdownIt
from markupsafe import Markup

__all__ = ["card_html"]

_TAGS = {
    *("a", "abbr", "b", "blockquote", "br", "code", "dd", "del", "div", "dl", "dt", "em", "h1"),
    *("h2", "h3", "h4", "h5", "h6", "hr", "i", "li", "ol", "p", "pre", "s", "span", "strong"),
    *("sub", "sup", "table", "tbody", "td", "th", "thead", "tr", "ul"),
}
# A page has one heading of the first level, a table's empty corner heads nothing, and a table that
# is wider than the page moves by itself, also by keyboard.
_SHOWN = (
    ("<h1>", "<h2>"),
    ("</h1>", "</h2>"),
    ("<th></th>", "<td></td>"),
    ("<table>", '<div class="scroll" tabindex="0" role="group" aria-label="Table"><table>'),
    ("</table>", "</table></div>"),
)
_LONGEST = 200_000
_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])


def card_html(text: str) -> Markup:
    """HTML inside the card is shown as text; a picture becomes a link to it."""
    html = _MARKDOWN.render(_pictures_as_links(text[:_LONGEST]))
    clean = nh3.clean(
        html,
        tags=_TAGS,
        attributes={"a": {"href", "title"}, "ol": {"start"}},
        url_schemes={"http", "https", "mailto"},
        link_rel="nofollow noopener noreferrer",
    )
    for written, shown in _SHOWN:
        clean = clean.replace(written, shown)
    return Markup(clean)


def _pictures_as_links(text: str) -> str:
    return text.replace("![](", "[picture](").replace("![", "[")

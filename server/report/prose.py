"""Draws texts of jobs for a page: paragraphs and code, escaped. Nothing else in them has a meaning."""

import re
from collections.abc import Iterator
from html import escape
from typing import Final

_FENCE: Final = re.compile(r"\s{0,3}(`{3,}|~{3,})")
_HEADING: Final = re.compile(r"#{1,6} +")
_MARKED: Final = re.compile(r"(`[^`\n]{1,300}`|\*\*[^*\n]{1,300}\*\*)")


def prose(text: str) -> Iterator[str]:
    """Yield a text as HTML: blocks of code between fences, headings, and paragraphs as their lines are."""
    lines: list[str] = []
    fence = ""
    for line in text.split("\n"):
        found = _FENCE.match(line)
        closes = bool(fence and found and found[1].startswith(fence) and line.strip() == found[1])
        if closes or (found and not fence):
            yield from _block(lines, is_code=bool(fence))
            lines, fence = [], "" if closes or found is None else found[1]
        else:
            lines.append(line)
    yield from _block(lines, is_code=bool(fence))


def _block(lines: list[str], *, is_code: bool) -> Iterator[str]:
    if is_code:
        yield f"<pre><code>{escape(chr(10).join(lines))}</code></pre>\n"
        return
    paragraph: list[str] = []
    for line in [*lines, ""]:
        heading = _HEADING.match(line)
        if paragraph and (heading or not line.strip()):
            yield f"<p>{_inline(chr(10).join(paragraph))}</p>\n"
            paragraph = []
        if heading:
            yield f"<h4>{_inline(line[heading.end() :])}</h4>\n"
        elif line.strip():
            paragraph.append(line.rstrip())


def _inline(text: str) -> str:
    parts = _MARKED.split(text)
    return "".join(_marked(part) if place % 2 else escape(part) for place, part in enumerate(parts))


def _marked(part: str) -> str:
    if part.startswith("`"):
        return f"<code>{escape(part[1:-1])}</code>"
    return f"<b>{escape(part[2:-2])}</b>"

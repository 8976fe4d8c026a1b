"""Answers of the page: JSON, files, and the few pages that need no session."""

import html
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from starlette.responses import Response

STATIC: Final = Path(__file__).parent / "static"
"""Where the files of the page are."""

TYPES: Final[Mapping[str, str]] = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""Suffix to media type; a file with another suffix is not served."""

_AGAIN: Final = "Run this in a terminal, and open what it prints:"


def json_answer(value: Mapping[str, Any], status: int = 200) -> Response:
    """Return an answer in JSON."""
    # ASCII: half a character, from the text of a job, cannot be sent in any other way.
    return Response(json.dumps(value), status_code=status, media_type="application/json")


def refused(status: int, error: str) -> Response:
    """Return the answer to a request that is not served.

    Args:
        status: The status of HTTP.
        error: What is wrong, and what to do.
    """
    return json_answer({"ok": False, "error": error}, status)


def file_answer(name: str) -> Response | None:
    """Return a file of the page, or None where there is none of this name. Blocks for a short read."""
    path = STATIC / name
    media_type = TYPES.get(path.suffix)
    if media_type is None or path.parent != STATIC:
        return None
    try:
        return Response(path.read_bytes(), media_type=media_type)
    except OSError:
        return None


def way_in(status: int, problem: str) -> Response:
    """Return a page that says how to get in.

    Args:
        status: The status of HTTP.
        problem: What is wrong, as a sentence.
    """
    text = f"<p>{html.escape(problem)} {_AGAIN}</p><pre>claude-jobs web</pre>"
    return _page(text, status)


def welcome(fragment: str) -> Response:
    """Return the page that goes on to the page itself: the cookie of a redirect's answer would not be sent yet.

    Args:
        fragment: Where to go there, such as "#/costs", or nothing.
    """
    target = html.escape(f"/{fragment}")
    head = f'<meta http-equiv="refresh" content="0; url={target}">'
    return _page(f'<p><a href="{target}">Go on to the page.</a></p>', 200, head)


def _page(body: str, status: int, head: str = "") -> Response:
    text = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="color-scheme" content="light dark">'
        f'<meta name="viewport" content="width=device-width">{head}<title>claude-jobs</title></head>'
        f"<body>{body}</body></html>"
    )
    return Response(text, status_code=status, media_type="text/html")

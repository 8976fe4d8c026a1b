"""Lines of a stream as Claude writes them, and entries of such."""

import json
from collections.abc import Sequence
from typing import Any

from jobs.claude.ndjson import LineDecoder
from server.transcript.entries import EntryReader


def line(kind: str, **fields: Any) -> bytes:
    return json.dumps({"type": kind, "session_id": "s", **fields}).encode() + b"\n"


def said(*blocks: Any, by: str = "assistant", **fields: Any) -> bytes:
    return line(by, message={"content": list(blocks)}, **fields)


def text(words: Any) -> dict[str, Any]:
    return {"type": "text", "text": words}


def call(id_: str, name: str, **arguments: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": id_, "name": name, "input": arguments}


def result(of: str, content: Any, **fields: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": of, "content": content, **fields}


def answer(words: str, **fields: Any) -> bytes:
    return line("result", subtype="success", result=words, **fields)


def read(*data: bytes, known: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return the entries of a stream that there is something to show of."""
    decoder, reader = LineDecoder(), EntryReader(known)
    lines = [*decoder.feed(b"".join(data)), *decoder.close()]
    return [entry.as_json() for one in lines for entry in reader.entries(one) if not entry.is_blank]

"""Replies of the Messages API: server-sent events, one JSON object, or an error body."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from server.demo.script import Usage

_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One message of the model, ready to be sent.

    Args:
        id: Message id.
        model: The model that the request asked for.
        blocks: Content blocks of the types "text" and "tool_use".
        stop_reason: As the API names it.
        usage: Token counts that it reports.
    """

    id: str
    model: str
    blocks: tuple[Mapping[str, Any], ...]
    stop_reason: str
    usage: Usage

    def body(self) -> bytes:
        """Return the message as one JSON object, for a request that does not stream."""
        return _json(self._message(self.blocks, self.stop_reason, self.usage.output_tokens))

    def events(self) -> Iterator[bytes]:
        """Yield the message as server-sent events."""
        yield _event("message_start", message=self._message((), None, 1))
        for index, block in enumerate(self.blocks):
            yield _event("content_block_start", index=index, content_block=_empty(block))
            yield _event("content_block_delta", index=index, delta=_delta(block))
            yield _event("content_block_stop", index=index)
        yield _event(
            "message_delta",
            delta={"stop_reason": self.stop_reason, "stop_sequence": None},
            usage={"output_tokens": self.usage.output_tokens},
        )
        yield _event("message_stop")

    def _message(
        self, blocks: tuple[Mapping[str, Any], ...], stop_reason: str | None, output_tokens: int
    ) -> dict[str, Any]:
        return {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": list(blocks),
            "stop_reason": stop_reason,
            "stop_sequence": None,
            "usage": {
                "input_tokens": self.usage.input_tokens,
                "output_tokens": output_tokens,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0,
            },
        }


def error_body(status: int, message: str) -> bytes:
    """Return the API's error object for an HTTP status."""
    return _json({"type": "error", "error": {"type": _ERROR_TYPES.get(status, "api_error"), "message": message}})


def _empty(block: Mapping[str, Any]) -> dict[str, Any]:
    return {**block, "input": {}} if block["type"] == "tool_use" else {"type": "text", "text": ""}


def _delta(block: Mapping[str, Any]) -> dict[str, Any]:
    if block["type"] == "tool_use":
        return {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
    return {"type": "text_delta", "text": block["text"]}


def _event(kind: str, **fields: object) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), _json({"type": kind, **fields}))


def _json(value: object) -> bytes:
    return json.dumps(value).encode()

"""A client's open requests: those that no engine has answered yet, ready to be sent to the next engine.

Standard library only: the pump imports this module.
"""

from __future__ import annotations

import os

from server.client.jsonrpc import BOM, LongLine, answered_by, parse, too_long
from server.client.light_json import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CALL_ID = "claude-jobs/callId"
"""Key in a call's `_meta` that makes a repeated submission the same submission, where the client sends no id."""

TOOL_USE_ID = "claudecode/toolUseId"
"""Key under which Claude Code 2.1 sends the id of the model's tool use: it serves as `CALL_ID`, so no line changes."""

MOST_HELD = 64 * 1024 * 1024
"""Most bytes of requests that are kept for another engine; beyond that, a request is answered with an error."""

GONE = -32000
"""JSON-RPC code of an answer that no engine gave; -32000 to -32099 are free for servers."""

LEAST_GROWTH = 1e-6
"""What is added to the last progress where another engine counts from the beginning: MCP progress must increase."""

_STANDING = frozenset({"subscriptions/listen"})
"""Requests that stay open for as long as the connection does: no reason to start an engine."""

_SUBSCRIBE = "resources/subscribe"
_UNSUBSCRIBE = "resources/unsubscribe"

_OURS = "claude-jobs/subscribe/"
"""Prefix of the id of a repeated subscription: the client may have used its own id for another request since."""

_SUBMITTING = frozenset(("claude_run", "claude_run_async", "claude_run_batch", "claude_run_batch_async", "claude_send"))
"""Tools that start jobs, and would start them a second time."""


class _Pending:
    """One request.

    Args:
        method: Its method.
        line: The request's line, or None where it was too long to keep.
        params: Its parameters.
    """

    __slots__ = ("keyed", "line", "method", "name", "progress", "token", "uri")

    def __init__(self, method: str, line: bytes | None, params: dict[str, Any]) -> None:
        self.method = method
        self.line = line
        self.name = str(params.get("name") or method)
        given = _object(params.get("arguments"))
        self.keyed = any(given.get(name) for name in ("idempotencyKey", "idempotency_key"))
        self.token = _meta(params).get("progressToken")
        self.progress = float("-inf")
        self.uri = params.get("uri") if method == _SUBSCRIBE else None


class PendingRequests:
    """Tracks a JSON-RPC conversation closely enough to repeat its open requests to another engine."""

    def __init__(self) -> None:
        self._pending: dict[Any, _Pending] = {}
        self._held = 0
        self._handshake: dict[str, bytes] = {}
        self._initialize_id: Any = None
        self._is_initialized = False
        self._asked: dict[Any, None] = {}
        self._stale: set[Any] = set()
        self._watched: dict[str, None] = {}
        self._ended: set[Any] = set()

    @property
    def urgent(self) -> bool:
        """Whether the client waits for something that only another engine can give."""
        return any(pending.method not in _STANDING for pending in self._pending.values())

    def sent(self, line: bytes | LongLine) -> bytes:
        """Record a line from the client; return the bytes to send to the engine, which may be empty.

        Raises:
            BadMessageError: It is no message. The pump answers it, since there may be no engine to do so.
        """
        message = parse(line)
        assert isinstance(line, bytes), "what was cut is no message"
        line = line.removeprefix(BOM)
        key = message.get("id")
        method = message.get("method")
        if method is None:
            # An answer to a dead engine's question: the next one may have given the same id to another question.
            self._asked.pop(key, None)
            stale = key in self._stale
            self._stale.discard(key)
            return b"" if stale else line
        if key is None:
            self._note(method, line, _object(message.get("params")))
            return line
        line = _with_call_id(message, line)
        self._owe(key, method, line, _object(message.get("params")))
        return line

    def received(self, line: bytes | LongLine) -> bytes:
        """Record a line from the engine; return the bytes to send to the client, which may be empty."""
        if isinstance(line, LongLine):
            return self._without(answered_by(line), line.limit)
        message = _read(line)
        if message is None:
            return line
        key, method = message.get("id"), message.get("method")
        if method == "notifications/progress":
            return self._advanced(message, line)
        if method is not None:
            self._asked.update({} if key is None else {key: None})
            self._stale.discard(key)
            return line
        if isinstance(key, str) and key.startswith(_OURS):
            return b""
        if key in self._ended:
            return b""
        pending = self._drop(key)
        if pending is not None and "result" in message:
            self._granted(key, pending)
        return line

    def lost(self) -> list[bytes]:
        """Record that the engine is gone; return the lines that cancel the engine's own requests at the client."""
        withdrawn = [
            _line({"method": "notifications/cancelled", "params": {"requestId": key, "reason": "The engine is gone."}})
            for key in self._asked
        ]
        self._stale.update(self._asked)
        self._asked.clear()
        return withdrawn

    def initialize_line(self) -> bytes:
        """Return the client's `initialize` line, which must be answered before anything else is sent, or nothing."""
        return self._handshake["initialize"] if self._is_initialized else b""

    def is_initialize_reply(self, line: bytes) -> bool:
        """Tell whether this is the answer to `initialize_line`; the client already has the first engine's."""
        message = _read(line)
        return message is not None and "method" not in message and message.get("id") == self._initialize_id

    def replay(self) -> bytes:
        """Return every line that is sent to the next engine after its handshake, in the client's order."""
        initialized = self._handshake.get("notifications/initialized", b"") if self._is_initialized else b""
        watched = (
            _line({"id": f"{_OURS}{uri}", "method": _SUBSCRIBE, "params": {"uri": uri}}) for uri in self._watched
        )
        asked = (pending.line for pending in self._pending.values() if pending.line is not None)
        return initialized + b"".join(watched) + b"".join(asked)

    def resource_updates(self) -> list[bytes]:
        """Return notifications that each subscribed resource may have changed while no engine ran."""
        return [_line({"method": "notifications/resources/updated", "params": {"uri": uri}}) for uri in self._watched]

    def give_up(self, reason: str, *, all_of_them: bool = True) -> list[bytes]:
        """Return an error for each pending request, and drop it.

        Args:
            reason: Why there is no engine, as a sentence.
            all_of_them: Include requests that another engine could still answer.
        """
        doomed = [
            key
            for key, pending in self._pending.items()
            if pending.method not in _STANDING and (all_of_them or pending.line is None)
        ]
        return [_failure(key, _error(self._drop(key), reason)) for key in doomed]

    def refuse(self, line: bytes, limit: int) -> list[bytes]:
        """Return an error for a line that is too long to be sent on, if it is a request, and drop it.

        Args:
            line: As `sent` returned it.
            limit: Most bytes of a message.
        """
        message = _read(line)
        pending = self._drop(message.get("id")) if message else None
        return [] if message is None or pending is None else [too_long(message["id"], limit).reply()]

    def end(self, seconds: float) -> list[bytes]:
        """Return an error for each request that is still pending `seconds` after the client closed its side."""
        doomed = [key for key, pending in self._pending.items() if pending.method not in _STANDING]
        self._ended.update(doomed)
        return [_failure(key, _late(self._drop(key), seconds)) for key in doomed]

    def _granted(self, key: Any, pending: _Pending) -> None:
        if pending.method == "initialize":
            self._initialize_id, self._is_initialized = key, True
        elif isinstance(pending.uri, str):
            self._watched[pending.uri] = None

    def _unwatch(self, uri: Any) -> None:
        # A subscription that is not answered yet is withdrawn too.
        for pending in self._pending.values():
            if pending.uri == uri:
                pending.uri = None
        if isinstance(uri, str):
            self._watched.pop(uri, None)

    def _note(self, method: str, line: bytes, params: dict[str, Any]) -> None:
        if method == "notifications/initialized":
            self._handshake[method] = line
        elif method == "notifications/cancelled":
            self._drop(params.get("requestId"))

    def _owe(self, key: Any, method: str, line: bytes, params: dict[str, Any]) -> None:
        if method == "initialize":
            self._handshake["initialize"] = line
        if method == _UNSUBSCRIBE:
            self._unwatch(params.get("uri"))
        self._drop(key)
        kept = line if self._held + len(line) <= MOST_HELD else None
        self._held += len(kept or b"")
        self._pending[key] = _Pending(method, kept, params)

    def _drop(self, key: Any) -> _Pending | None:
        pending = self._pending.pop(key, None) if isinstance(key, str | int) else None
        self._held -= len(pending.line or b"") if pending else 0
        return pending

    def _advanced(self, message: dict[str, Any], line: bytes) -> bytes:
        # Progress has to grow, and the next engine counts from the beginning.
        params = _object(message.get("params"))
        token, value = params.get("progressToken"), params.get("progress")
        pending = next((one for one in self._pending.values() if one.token is not None and one.token == token), None)
        if pending is None or not isinstance(value, int | float):
            return line
        grown = value > pending.progress
        pending.progress = value if grown else pending.progress + LEAST_GROWTH
        return line if grown else _line({**message, "params": {**params, "progress": pending.progress}})

    def _without(self, key: Any, limit: int) -> bytes:
        pending = self._drop(key)
        if pending is None:
            return b""
        return _failure(key, f"The answer to {pending.name} has more than {limit} bytes. Ask for less at once.")


def _late(pending: _Pending | None, seconds: float) -> str:
    name = pending.name if pending else "this request"
    return (
        f"The input ended, and {name} was not over {seconds:.0f} seconds later. Jobs that were started go on: "
        "claude_list_jobs names them. Keep the input open for as long as the answer takes."
    )


def _error(pending: _Pending | None, reason: str) -> str:
    name = pending.name if pending else "this request"
    return (
        f"The engine stopped before it answered {name}, and no other engine could take over: {reason} Jobs that were "
        f"started go on. {_next_step(pending, name)}"
    )


def _failure(key: Any, message: str) -> bytes:
    return _line({"id": key, "error": {"code": GONE, "message": message}})


def _next_step(pending: _Pending | None, name: str) -> str:
    # When a model repeats a call, the call has another id, so the engine would take it for a second submission.
    if pending is not None and pending.name in _SUBMITTING and not pending.keyed:
        return "The jobs may have been started: call claude_list_jobs first, and submit only those that are missing."
    return f"Repeat {name} with the same arguments."


def _with_call_id(message: dict[str, Any], line: bytes) -> bytes:
    """Return a tool call with an id that stays the same when the call is repeated, so a submission is admitted once."""
    params = message.get("params")
    if message["method"] != "tools/call" or not isinstance(params, dict) or _meta(params).keys() & {TOOL_USE_ID}:
        return line
    params["_meta"] = {**_meta(params), CALL_ID: os.urandom(16).hex()}
    try:
        return _line(message)
    except RecursionError:
        # It was parsed just below the recursion limit. The engine refuses a message that is nested so deeply.
        return line


def _meta(params: dict[str, Any]) -> dict[str, Any]:
    return _object(params.get("_meta"))


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _line(message: dict[str, Any]) -> bytes:
    whole = {"jsonrpc": "2.0", **message}
    try:
        # As the client wrote it: spelled with escapes, a Cyrillic letter has three times the bytes.
        return dumps(whole, ascii_only=False).encode() + b"\n"
    except UnicodeEncodeError:
        # Half a surrogate pair, which JavaScript leaves where it cuts a text in two, can only be spelled.
        return dumps(whole).encode() + b"\n"


def _read(line: bytes) -> dict[str, Any] | None:
    if not line.lstrip().startswith(b"{"):
        return None
    try:
        message = loads(line)
    # The client judges what an engine sends.
    except (ValueError, RecursionError):
        return None
    if not isinstance(message, dict) or not isinstance(message.get("id"), str | int | None):
        return None
    return message if isinstance(message.get("method"), str | None) else None

"""JSON-RPC messages as lines: cut from a stream, parsed, and answered with an error where a line is no message.

Standard library only: the pump imports this module, and the engine's side of the socket uses the same rules.
"""

from __future__ import annotations

from server.client.light_json import dumps, loads
from server.client.wire import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PARSE_ERROR = -32700
INVALID_REQUEST = -32600

ENDS = 1024
"""Bytes that are kept of each end of a line that is too long, to find the id of its message in them."""

BOM = b"\xef\xbb\xbf"
"""What some programs begin a text in UTF-8 with."""


class BadMessageError(Exception):
    """A line is no JSON-RPC message.

    Args:
        code: The JSON-RPC error code.
        problem: What is wrong and what to do, as sentences.
        key: The id of the message, or None where it has no valid one.
    """

    def __init__(self, code: int, problem: str, key: Any = None) -> None:
        self.code = code
        self.problem = problem
        self.key = key
        super().__init__(problem)

    def reply(self) -> bytes:
        """Return the line that answers it."""
        error = {"code": self.code, "message": self.problem}
        return dumps({"jsonrpc": "2.0", "id": self.key, "error": error}).encode() + b"\n"


class LongLine(Value):
    """What is left of a line that was too long to be kept.

    Args:
        head: Its first bytes.
        tail: Its last bytes.
        limit: The bytes that it may have.
    """

    __slots__ = ("head", "limit", "tail")

    def __init__(self, head: bytes, tail: bytes, limit: int) -> None:
        self.head = head
        self.tail = tail
        self.limit = limit


class LineCutter:
    """Cuts what arrives into whole lines, newline included.

    Args:
        limit: Bytes of the longest line that is kept; of a longer one only its ends.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._part = bytearray()
        self._head: bytes | None = None

    def feed(self, chunk: bytes) -> list[bytes | LongLine]:
        """Take what arrived and return the lines that are whole now."""
        if self._head is None:
            return self._cut(chunk)
        skipped, newline, rest = chunk.partition(b"\n")
        self._part += skipped
        del self._part[:-ENDS]
        if not newline:
            return []
        line = LongLine(self._head, bytes(self._part), self._limit)
        self._head = None
        self._part.clear()
        return [line, *self._cut(rest)]

    def rest(self) -> list[bytes | LongLine]:
        """Return the last line if its sender closed the stream without a newline after it."""
        return self.feed(b"\n") if self._part or self._head is not None else []

    def _cut(self, chunk: bytes) -> list[bytes | LongLine]:
        begin = chunk.rfind(b"\n") + 1
        whole = bytes(self._part) + chunk[:begin] if begin else b""
        if begin:
            self._part = bytearray(chunk[begin:])
        else:
            self._part += chunk
        if len(self._part) > self._limit:
            self._head = bytes(self._part[:ENDS])
            del self._part[:-ENDS]
        # `splitlines` would also cut at a carriage return.
        return [line + b"\n" for line in whole[:-1].split(b"\n")] if whole else []


def parse(line: bytes | LongLine) -> dict[str, Any]:
    """Return the message in a line: a request, a notification or an answer.

    Args:
        line: A line that is not blank, or what is left of one.

    Raises:
        BadMessageError: It is no message.
    """
    if isinstance(line, LongLine):
        raise too_long(_id_in(line.head, line.tail), line.limit)
    try:
        message = loads(line.removeprefix(BOM))
    except RecursionError:
        key = _id_in(line[:ENDS], line[-ENDS:])
        raise BadMessageError(INVALID_REQUEST, "The message is nested too deeply.", key) from None
    except ValueError as error:
        problem = f"The line is not JSON in UTF-8: {str(error)[:200]}. Send one message of JSON-RPC a line."
        raise BadMessageError(PARSE_ERROR, problem) from None
    if isinstance(message, list):
        raise BadMessageError(INVALID_REQUEST, "Batches of JSON-RPC are not accepted. Send one message a line.")
    if not isinstance(message, dict):
        raise BadMessageError(INVALID_REQUEST, "A message of JSON-RPC is an object. Send one a line.")
    problem = _problem_of(message)
    if problem:
        key = message.get("id")
        raise BadMessageError(INVALID_REQUEST, problem, key if _is_id(key) else None)
    return message


def too_long(key: Any, limit: int) -> BadMessageError:
    """Return the error for a message that is too long; `key` is its id, or None."""
    problem = f"A message may have {limit} bytes, and this one has more. Put the material into a file, and name it."
    return BadMessageError(INVALID_REQUEST, problem, key)


def answered_by(line: LongLine) -> Any:
    """Return the id of the request that a line answers, or None where it is no answer or the id cannot be found."""
    return _id_in(line.head, line.tail, answer=True)


def _problem_of(message: dict[str, Any]) -> str:
    if "method" not in message and message.keys() & {"result", "error"}:
        # An error about an answer would be taken for the answer to a request.
        return ""
    if message.get("jsonrpc") != "2.0":
        return 'A message has "jsonrpc": "2.0".'
    if "id" in message and not _is_id(message["id"]):
        return "The id of a request is a text or an integer."
    if not isinstance(message.get("method"), str):
        return "A request has a method, which is a text."
    if not isinstance(message.get("params"), dict | None):
        return "The params of a request are an object."
    return ""


def _is_id(key: Any) -> bool:
    if isinstance(key, str):
        # Half a surrogate pair could not be sent back.
        return not any("\ud800" <= letter <= "\udfff" for letter in key)
    return isinstance(key, int) and not isinstance(key, bool)


def _id_in(head: bytes, tail: bytes, *, answer: bool = False) -> Any:
    """Return the id at either end of a message that cannot be read: of an answer, or by default of anything else."""
    known, after = _beginning(head)
    if answer is not bool(known.keys() & {"result", "error"} or after.lstrip().startswith((b'"result"', b'"error"'))):
        return None
    key = known["id"] if "id" in known else _end(tail).get("id")
    return key if _is_id(key) else None


def _beginning(head: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the complete members at the start of a truncated object, and the text after them."""
    known, after = {}, head.lstrip().removeprefix(b"{")
    at = head.find(b",")
    while at >= 0:
        found = _object_in(head[:at] + b"}")
        if found:
            known, after = found, head[at + 1 :]
        at = head.find(b",", at + 1)
    return known, after


def _end(tail: bytes) -> dict[str, Any]:
    # Within a text a quotation mark is escaped, and a nested object is followed by a bracket: neither can be read.
    at = tail.rfind(b'"id"')
    while at >= 0:
        found = _object_in(b"{" + tail[at:])
        if found:
            return found
        at = tail.rfind(b'"id"', 0, at)
    return {}


def _object_in(text: bytes) -> dict[str, Any]:
    try:
        found = loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}

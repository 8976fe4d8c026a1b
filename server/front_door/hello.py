"""The two lines that open every connection to the engine: the client's hello, the engine's welcome.

A client connects to the engine's socket and sends one JSON line. The engine answers with one JSON line. After that,
role "mcp" carries newline-delimited JSON-RPC both ways; role "control" carries one JSON request line, one JSON answer
line and the end. Standard library only: the pump imports this module. The values here and on the rest of the pump's way
are named tuples and not frozen dataclasses: importing `dataclasses` took 17 ms, and each class 1.4 ms, of a start that
now takes 55 (measured).
"""

import json
import os
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple

from server import __version__

WIRE = 1
"""Number of this protocol, sent as "claude_jobs" in every hello and welcome."""

MAX_LINE = 1 << 20
"""Most bytes of a hello, a welcome, a control request or its answer, newline included."""

MAX_MESSAGE = 16 * 1024 * 1024
"""Most bytes of one JSON-RPC line, at either end of the socket; Claude Code was seen to write lines of 6 MB."""

_PERSON = "PATH HOME USER LOGNAME SHELL LANG LANGUAGE TERM COLORTERM TZ TMPDIR SSH_AUTH_SOCK VIRTUAL_ENV"
_TRUST = "SSL_CERT_FILE SSL_CERT_DIR NODE_EXTRA_CA_CERTS"
_PROXIES = "HTTP_PROXY HTTPS_PROXY NO_PROXY ALL_PROXY"
# CLAUDE_CODE_TOKEN is the older server's name for the OAuth token.
_ACCOUNT = "CLAUDE_CONFIG_DIR CLAUDE_CODE_OAUTH_TOKEN CLAUDE_CODE_TOKEN"
_PROVIDERS = "CLAUDE_CODE_USE_BEDROCK CLAUDE_CODE_USE_VERTEX CLAUDE_CODE_USE_FOUNDRY CLOUD_ML_REGION"
_SWITCHES = "DISABLE_AUTOUPDATER DISABLE_TELEMETRY DISABLE_ERROR_REPORTING CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC"
_ALLOWED = frozenset(f"{_PERSON} {_TRUST} {_PROXIES} {_PROXIES.lower()} {_ACCOUNT} {_PROVIDERS} {_SWITCHES}".split())
_ALLOWED_PREFIXES = ("LC_", "XDG_", "ANTHROPIC_", "AWS_", "GOOGLE_", "VERTEX_", "GIT_AUTHOR_", "GIT_COMMITTER_")


class FrontDoorError(Exception):
    """Whatever keeps a client from reaching the engine; its sentence is fit for a person."""


class ProtocolError(FrontDoorError):
    """A line of the handshake cannot be used.

    Args:
        line: "hello", "welcome", "request" or "answer".
        problem: What is wrong with it, in a few words.
    """

    def __init__(self, line: str, problem: str) -> None:
        self.line = line
        self.problem = problem
        super().__init__(
            f"The {line} line is unusable: {problem}. Check that client and engine come from one installation "
            "(`claude-jobs engine status`), or stop the engine with `claude-jobs engine stop` and try again."
        )


class Role(StrEnum):
    """What a connection is for."""

    MCP = "mcp"
    """Newline-delimited JSON-RPC follows, both ways."""
    CONTROL = "control"
    """One request line and one answer line follow."""


class Hello(NamedTuple):
    """What a client says of itself.

    Args:
        cwd: Absolute directory in which the client's jobs run by default.
        env: Environment of the client, only names that `client_environment` lets through.
        role: What the connection is for.
        token: The calling job's token, or None for a person or a program.
        session: The client's Claude Code session id, or None.
        client: Who the client is, for a person to read, or None.
        version: Version of the client's package.
        settings: Variables of a person's client that name settings, or None where it sends none: a job's, or one of an
            older version.
    """

    cwd: str
    env: Mapping[str, str] = MappingProxyType({})
    role: Role = Role.MCP
    token: str | None = None
    session: str | None = None
    client: str | None = None
    version: str = __version__
    settings: Mapping[str, str] | None = None

    def __repr__(self) -> str:
        # Neither token nor environment nor settings may reach a log this way.
        return f"Hello(role={self.role.value!r}, session={self.session!r}, client={self.client!r}, cwd={self.cwd!r})"

    def encode(self) -> bytes:
        """Return the hello as one line.

        Raises:
            ProtocolError: The line would be longer than `MAX_LINE`.
        """
        frame: dict[str, Any] = {
            "claude_jobs": WIRE,
            "version": self.version,
            "role": self.role.value,
            "token": self.token,
            "session": self.session,
            "client": self.client,
            "cwd": self.cwd,
            "env": dict(self.env),
        }
        frame |= {} if self.settings is None else {"settings": dict(self.settings)}
        return encode_line(frame, "hello")

    @classmethod
    def decode(cls, line: bytes) -> "Hello":
        """Read a hello line, with or without its newline; names outside the allow-list are left out of `env`.

        Raises:
            ProtocolError: Not a hello, or one of another protocol.
        """
        frame = _Frame("hello", decode_line(line, "hello"))
        frame.check_wire()
        return cls(
            version=frame.text("version"),
            role=frame.role(),
            token=frame.text_or_none("token"),
            session=frame.text_or_none("session"),
            client=frame.text_or_none("client"),
            cwd=frame.absolute_path("cwd"),
            env=client_environment(frame.environment("env")),
            settings=frame.environment("settings") if "settings" in frame.values else None,
        )


class Welcome(NamedTuple):
    """What the engine answers.

    Args:
        ok: Whether the client may go on.
        idle: Nothing would be lost if the engine left now.
        error: Where `ok` is false: a sentence that says what to do. Else None.
        version: Version of the engine's package.
        pid: Process id of the engine.
        note: One line for the person at the client, or None.
    """

    ok: bool = True
    idle: bool = False
    error: str | None = None
    version: str = __version__
    pid: int = 0
    note: str | None = None

    def encode(self) -> bytes:
        """Return the welcome as one line.

        Raises:
            ProtocolError: The line would be longer than `MAX_LINE`.
        """
        frame: dict[str, Any] = {"claude_jobs": WIRE, "version": self.version, "pid": self.pid, "ok": self.ok}
        frame |= {"idle": self.idle} if self.ok else {"error": self.error or "Refused without a reason."}
        frame |= {"note": self.note} if self.note else {}
        return encode_line(frame, "welcome")

    @classmethod
    def decode(cls, line: bytes) -> "Welcome":
        """Read a welcome line, with or without its newline.

        A refusal is read leniently: an engine may have to refuse what it does not understand.

        Raises:
            ProtocolError: Not a welcome, or one of another protocol.
        """
        frame = _Frame("welcome", decode_line(line, "welcome"))
        if not frame.flag("ok"):
            error = frame.text_or_none("error") or "The engine refused without a reason; see its log."
            return cls(ok=False, error=error, version=frame.text_or_none("version") or "", pid=0)
        frame.check_wire()
        return cls(
            version=frame.text("version"),
            pid=frame.number("pid"),
            idle=frame.flag("idle"),
            note=frame.text_or_none("note"),
        )


def client_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the part of an environment in which a client's jobs may run: allow-listed names, nothing else."""
    return {name: value for name, value in environ.items() if _allowed(name)}


def encode_line(frame: Mapping[str, Any], what: str) -> bytes:
    """Return a JSON object as one line, newline included.

    Raises:
        ProtocolError: The line would be longer than `MAX_LINE`.
    """
    line = json.dumps(frame, separators=(",", ":")).encode() + b"\n"
    if len(line) > MAX_LINE:
        raise ProtocolError(what, f"it has {len(line)} bytes and may have {MAX_LINE}")
    return line


def decode_line(line: bytes, what: str) -> dict[str, Any]:
    """Read one line as a JSON object.

    Raises:
        ProtocolError: Too long, more than one line, or not a JSON object.
    """
    if len(line) > MAX_LINE:
        raise ProtocolError(what, f"it has more than {MAX_LINE} bytes")
    try:
        frame = json.loads(line)
    # A line of nothing but brackets exhausts the parser's stack long before the line's limit.
    except (ValueError, RecursionError) as error:
        raise ProtocolError(what, "it is not JSON") from error
    if not isinstance(frame, dict):
        raise ProtocolError(what, "it is not a JSON object")
    return frame


def _allowed(name: str) -> bool:
    # CLAUDE_CODE_SKIP_<PROVIDER>_AUTH is the one family with a variable middle.
    skips_auth = name.startswith("CLAUDE_CODE_SKIP_") and name.endswith("_AUTH")
    return name in _ALLOWED or name.startswith(_ALLOWED_PREFIXES) or skips_auth


class _Frame(NamedTuple):
    """A decoded line whose values are checked as they are taken out."""

    what: str
    values: Mapping[str, Any]

    def check_wire(self) -> None:
        wire = self.values.get("claude_jobs")
        if wire != WIRE or isinstance(wire, bool):
            raise ProtocolError(self.what, f'"claude_jobs" is {_short(wire)} where this version speaks {WIRE}')

    def text(self, key: str) -> str:
        value = self.text_or_none(key)
        if not value:
            raise ProtocolError(self.what, f'"{key}" is missing')
        return value

    def text_or_none(self, key: str) -> str | None:
        value = self.values.get(key)
        # No process can be given a NUL, in its arguments, directory or environment.
        if value is not None and (not isinstance(value, str) or "\0" in value):
            raise ProtocolError(self.what, f'"{key}" is not text')
        return value

    def flag(self, key: str) -> bool:
        value = self.values.get(key)
        if not isinstance(value, bool):
            raise ProtocolError(self.what, f'"{key}" is neither true nor false')
        return value

    def number(self, key: str) -> int:
        value = self.values.get(key)
        if not isinstance(value, int) or isinstance(value, bool):
            raise ProtocolError(self.what, f'"{key}" is not a whole number')
        return value

    def role(self) -> Role:
        value = self.text("role")
        try:
            return Role(value)
        except ValueError as error:
            raise ProtocolError(self.what, f'"role" is {_short(value)}; known are {", ".join(Role)}') from error

    def absolute_path(self, key: str) -> str:
        value = self.text(key)
        if not os.path.isabs(value):  # noqa: PTH117 - a path of the client's, kept as the text that it sent
            raise ProtocolError(self.what, f'"{key}" is not an absolute path')
        return value

    def environment(self, key: str) -> dict[str, str]:
        values = self.values.get(key)
        if not isinstance(values, dict):
            raise ProtocolError(self.what, f'"{key}" is not an object')
        if not all(isinstance(value, str) and "\0" not in name + value for name, value in values.items()):
            raise ProtocolError(self.what, f'"{key}" holds something other than text')
        return values


def _short(value: Any) -> str:
    # A nested value is named by its type: its text may be as deep as the line allows.
    return repr(value)[:40] if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"

"""The handshake: the two lines that open every connection to the engine, the client's hello and the engine's welcome.

A client connects to the engine's socket and sends one JSON line. The engine answers with one JSON line. After that,
role "mcp" carries newline-delimited JSON-RPC both ways; role "control" carries JSON request lines, each answered by one
JSON line before the next is read. Standard library only, and as little of it as possible: the pump imports this
module. `tests/architecture/test_pump_imports.py` names what the pump's first reply must not import, and its cost.
"""

from __future__ import annotations

import os

from server import __version__
from server.client.light_json import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Final, Self

WIRE = 1
"""Number of this protocol, sent as "claude_jobs" in every hello and welcome."""

MAX_LINE = 1 << 20
"""Most bytes of a hello, a welcome, a control request or its answer, newline included."""

MAX_MESSAGE = 16 * 1024 * 1024
"""Most bytes of one JSON-RPC line, at either end of the socket; Claude Code was seen to write lines of 6 MB."""

WHOLE = "claude-jobs/whole"
"""Key in the `_meta` of a call by a program that wants statuses and lists with whole texts: a model gets them cut."""

# The older server's settings, which still count as fall-backs.
_OLDER_LIMITS = "CLAUDE_MAX_RECURSION_DEPTH CLAUDE_MAX_CONCURRENT_AT_DEPTH CLAUDE_MAX_TOTAL_JOBS"
_OLDER_OTHERS = "CLAUDE_TIMEOUT_MULTIPLIER CLAUDE_LOG_LEVEL"
_OLDER_RIGHTS = "CLAUDE_ALLOW_BYPASS_PERMISSIONS CLAUDE_DEFAULT_PERMISSION_MODE"
_OLDER = frozenset(f"{_OLDER_LIMITS} {_OLDER_OTHERS} {_OLDER_RIGHTS}".split())
_SETTING_PREFIX = "CLAUDE_JOBS_"

STARTED_BY = "CLAUDE_JOBS_STARTED_BY"
"""Variable that names the client that started the engine, for a person to read; `A_JOB` for a job's client."""

JOB_MARKERS = frozenset(("CLAUDE_JOBS_JOB", "CLAUDE_JOBS_TOKEN"))
"""Variables that mark the processes of a job; an engine's environment has none of them."""

HOOK_VARIABLES = frozenset(("CLAUDE_JOBS_EVENT", "CLAUDE_JOBS_ID", "CLAUDE_JOBS_STATUS", "CLAUDE_JOBS_COST_USD"))
"""Variables that the command of a hook gets, and hands on to a `claude-jobs` that it runs; they are no settings."""


class ClientError(Exception):
    """A client cannot reach or use the engine; the message is written for a person."""

    transient = False
    """Whether the next engine may do better."""


class EnvironmentTooLongError(ClientError):
    """The environment that a client passes on to its jobs does not fit into a hello.

    Args:
        size: Bytes of the hello.
    """

    def __init__(self, size: int) -> None:
        super().__init__(
            f"The variables that jobs get are too long: {size} bytes, of {MAX_LINE} at most. "
            "Unset large ones, or name fewer in the setting `pass_environment` (`claude-jobs settings`)."
        )


class ProtocolError(ClientError):
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


class Role:
    """What a connection is for."""

    MCP: Final = "mcp"
    """Newline-delimited JSON-RPC follows, both ways."""
    CONTROL: Final = "control"
    """Request lines and answer lines follow, in turns."""


ROLES = (Role.MCP, Role.CONTROL)


class Value:
    """An immutable value that the pump uses: compared by its fields.

    Neither a dataclass nor a named tuple: importing what makes them takes 17 and 5 ms (measured).
    """

    __slots__: tuple[str, ...] = ()

    # A type checker that sees it takes every name for an attribute.
    if not TYPE_CHECKING:

        def __setattr__(self, name: str, value: object) -> None:
            if hasattr(self, name):
                raise AttributeError(f"{name} is set for good; use `replace`")
            object.__setattr__(self, name, value)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._fields() == other._fields()

    def __hash__(self) -> int:
        return hash(tuple(self._fields().values()))

    def replace(self, **changes: Any) -> Self:
        """Return a copy with other values in some fields."""
        return type(self)(**{**self._fields(), **changes})

    def _fields(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


class Hello(Value):
    """What a client says about itself.

    Args:
        cwd: Absolute directory in which the client's jobs run by default.
        env: The part of the client's environment in which its jobs run, as `client_environment` returns it.
        role: What the connection is for, one of `ROLES`.
        token: The calling job's token, or None for a person or a program.
        session: The client's Claude Code session id, or None.
        client: Who the client is, for a person to read, or None.
        version: Version of the client's package.
        settings: Variables of a person's client that name settings, or None where it sends none: a job's, or one of an
            older version.
        umask: Mask of the modes of the files that its jobs make, or None for a client of an older version.
    """

    __slots__ = ("client", "cwd", "env", "role", "session", "settings", "token", "umask", "version")

    def __init__(
        self,
        cwd: str,
        env: Mapping[str, str] | None = None,
        role: str = Role.MCP,
        token: str | None = None,
        session: str | None = None,
        client: str | None = None,
        version: str = __version__,
        settings: Mapping[str, str] | None = None,
        umask: int | None = None,
    ) -> None:
        self.cwd = cwd
        self.env = env or {}
        self.role = role
        self.token = token
        self.session = session
        self.client = client
        self.version = version
        self.settings = settings
        self.umask = umask

    def __repr__(self) -> str:
        # Neither token nor environment nor settings may reach a log this way.
        return f"Hello(role={self.role!r}, session={self.session!r}, client={self.client!r}, cwd={self.cwd!r})"

    def encode(self) -> bytes:
        """Return the hello as one line.

        Raises:
            EnvironmentTooLongError: The line would be longer than `MAX_LINE`.
        """
        frame: dict[str, Any] = {
            "claude_jobs": WIRE,
            "version": self.version,
            "role": self.role,
            "token": self.token,
            "session": self.session,
            "client": self.client,
            "cwd": self.cwd,
            "env": dict(self.env),
        }
        frame |= {} if self.settings is None else {"settings": dict(self.settings)}
        frame |= {} if self.umask is None else {"umask": self.umask}
        line = dumps(frame).encode() + b"\n"
        if len(line) > MAX_LINE:
            raise EnvironmentTooLongError(len(line))
        return line

    @classmethod
    def decode(cls, line: bytes) -> Hello:
        """Read a hello line, with or without its newline.

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
            env=frame.environment("env"),
            settings=frame.environment("settings") if "settings" in frame.values else None,
            umask=frame.mask("umask") if "umask" in frame.values else None,
        )


class Welcome(Value):
    """The engine's answer to a hello.

    Args:
        ok: Whether the client may go on.
        idle: Nothing would be lost if the engine stopped now.
        error: Where `ok` is false: a sentence that says what to do. Else None.
        version: Version of the engine's package.
        pid: Process id of the engine.
        note: One line for the person at the client, or None.
    """

    __slots__ = ("error", "idle", "note", "ok", "pid", "version")

    def __init__(
        self,
        *,
        ok: bool = True,
        idle: bool = False,
        error: str | None = None,
        version: str = __version__,
        pid: int = 0,
        note: str | None = None,
    ) -> None:
        self.ok = ok
        self.idle = idle
        self.error = error
        self.version = version
        self.pid = pid
        self.note = note

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
    def decode(cls, line: bytes) -> Welcome:
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


def setting_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of an environment that may be a client's settings, the older server's names included.

    The state directory's is not among them: it says which engine is meant, not how that engine is configured.
    """
    apart = JOB_MARKERS | HOOK_VARIABLES | {"CLAUDE_JOBS_HOME", STARTED_BY}
    return {
        name: value
        for name, value in environ.items()
        if (name.startswith(_SETTING_PREFIX) or name in _OLDER) and name not in apart
    }


def encode_line(frame: Mapping[str, Any], what: str) -> bytes:
    """Return a JSON object as one line, newline included.

    Raises:
        ProtocolError: The line would be longer than `MAX_LINE`.
    """
    line = dumps(frame).encode() + b"\n"
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
        frame = loads(line)
    # A line of nothing but brackets exhausts the parser's stack long before the line's limit.
    except (ValueError, RecursionError) as error:
        raise ProtocolError(what, "it is not JSON") from error
    if not isinstance(frame, dict):
        raise ProtocolError(what, "it is not a JSON object")
    return frame


class _Frame:
    """A decoded line whose values are checked as they are taken out."""

    def __init__(self, what: str, values: Mapping[str, Any]) -> None:
        self.what = what
        self.values = values

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

    def mask(self, key: str) -> int:
        value = self.number(key)
        if not 0 <= value <= 0o777:
            raise ProtocolError(self.what, f'"{key}" is not the mask of a mode')
        return value

    def role(self) -> str:
        value = self.text("role")
        if value not in ROLES:
            raise ProtocolError(self.what, f'"role" is {_short(value)}; known are {", ".join(ROLES)}')
        return value

    def absolute_path(self, key: str) -> str:
        value = self.text(key)
        if not os.path.isabs(value):
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

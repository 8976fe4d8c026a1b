"""Connects to the engine: starts it where none runs, makes the handshake, and replaces an idle engine that is older."""

from __future__ import annotations

import os
import sys
import time
from _socket import MSG_PEEK

from server.client.engine_socket import (
    EngineEndpoint,
    await_running,
    ensure_engine,
    lock,
    start_and_connect,
    timeout_error,
    try_connect,
    unanswered,
)
from server.client.lock_file import sign_lock
from server.client.state_dir import absolute
from server.client.wire import (
    MAX_LINE,
    ClientError,
    Hello,
    ProtocolError,
    Role,
    Welcome,
    decode_line,
    encode_line,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Mapping
    from os import PathLike
    from typing import Any

_GREETINGS = 3
"""How many handshakes a client tries where the engine exits between the connect and the hello."""

_STARTS = 5
"""How many engines are started in a row when each ends while it starts."""


class EngineGoneError(ClientError):
    """The engine closed the connection before it answered."""

    transient = True

    def __init__(self) -> None:
        super().__init__("The engine closed the connection before it answered. Try again, or look into its log.")


class RefusedError(ClientError):
    """The engine refused the client or the request.

    Args:
        reason: The engine's own sentence.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


def pump_command(home: str | PathLike[str]) -> tuple[str, list[str]]:
    """Return program and arguments of the pump, as a client's or a child's MCP configuration holds them.

    They work from any directory and in any environment: the interpreter looks at neither (`-I`), and skips
    site-packages (`-S`), which the pump does not need.

    Args:
        home: The state directory.
    """
    # Not the pump's own file: Python compiles the file that it is started with each time.
    package = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    return sys.executable, ["-I", "-S", f"{package}/__main__.py", "mcp", "--home", absolute(home)]


def connect(endpoint: EngineEndpoint, hello: Hello) -> tuple[socket, Welcome]:
    """Return a connection after its handshake, and the engine's welcome.

    An idle engine that is older than this client is replaced first; an older one with work goes on serving.

    Raises:
        RefusedError: The engine refuses this client.
        EngineStartError: There is no engine and none can be started.
        EngineGoneError: The engine ended before it answered, `_GREETINGS` times.
        EngineUnreachableError: The engine does not listen, or does not answer within the endpoint's `timeout`.
        ProtocolError: The engine speaks another protocol.
    """
    connection, welcome = _handshake_again(endpoint, hello)
    if welcome.idle and _older(welcome.version, hello.version):
        connection.close()
        _replace_engine(endpoint, hello)
        connection, welcome = _handshake_again(endpoint, hello)
    if _older(welcome.version, hello.version):
        endpoint.note(
            f"the running engine is version {welcome.version} and has work, so version {hello.version} uses it; "
            "`claude-jobs engine stop` ends it"
        )
    if welcome.note:
        endpoint.note(welcome.note)
    return connection, welcome


def connect_running(endpoint: EngineEndpoint, hello: Hello) -> socket | None:
    """Return a connection to a running engine, after its handshake; None where none answers now.

    Args:
        endpoint: How to reach the engine; it is not started, and not waited for longer than the endpoint's `timeout`.
        hello: What the client says about itself.

    Raises:
        RefusedError: The engine refuses this client.
        EngineGoneError: The engine ended before it answered.
        ProtocolError: The engine speaks another protocol.
        OSError: It does not answer in time, or a system call failed.
    """
    connection = try_connect(endpoint.paths)
    if connection is None:
        return None
    try:
        connection.settimeout(endpoint.timeout)
        _handshake(connection, hello)
    except BaseException:
        connection.close()
        raise
    return connection


def connect_with_retry(endpoint: EngineEndpoint, hello: Hello) -> socket:
    """Return a connection to an engine as `connect` does, trying again for as long as engines end while they start.

    Raises:
        RefusedError: The engine refuses this client: its job is over, for example.
        ClientError: No engine could be reached within the endpoint's `timeout`.
        OSError: A system call failed.
    """
    deadline = time.monotonic() + endpoint.timeout
    for _ in range(_STARTS - 1):
        try:
            return connect(endpoint, hello)[0]
        except ClientError as error:
            # What ended the last engine may end this one too, as it starts.
            if time.monotonic() > deadline or not error.transient:
                raise
    return connect(endpoint, hello)[0]


def control(endpoint: EngineEndpoint, request: Mapping[str, Any], hello: Hello) -> dict[str, Any] | None:
    """Send a control request to a running engine and return its answer; None where no engine runs.

    Args:
        endpoint: How to reach the engine; it is not started.
        request: `{"do": "stop"}`, optionally with `"if_idle": true`, or `{"do": "status"}`.
        hello: What the client says about itself; its role is set here.

    Raises:
        RefusedError: The engine refuses this client.
        EngineGoneError: The engine ended before it answered.
        EngineUnreachableError: An engine runs and does not listen, or does not answer within the endpoint's `timeout`.
        ProtocolError: The engine's answer cannot be read.
    """
    connection = await_running(endpoint.paths)
    if connection is None:
        return None
    try:
        connection.settimeout(endpoint.timeout)
        _handshake(connection, hello.replace(role=Role.CONTROL))
        return _ask(connection, request)
    except TimeoutError as error:
        raise unanswered(endpoint.paths, endpoint.timeout) from error
    finally:
        connection.close()


def _handshake_again(endpoint: EngineEndpoint, hello: Hello) -> tuple[socket, Welcome]:
    # An idle engine that is exiting may accept a connection and end before it reads the hello.
    for _ in range(_GREETINGS - 1):
        try:
            return _connect_and_handshake(endpoint, hello)
        except EngineGoneError:
            continue
    return _connect_and_handshake(endpoint, hello)


def _connect_and_handshake(endpoint: EngineEndpoint, hello: Hello) -> tuple[socket, Welcome]:
    connection = ensure_engine(endpoint)
    try:
        connection.settimeout(endpoint.timeout)
        welcome = _handshake(connection, hello)
        connection.settimeout(None)
    except TimeoutError as error:
        connection.close()
        raise unanswered(endpoint.paths, endpoint.timeout) from error
    except BaseException:
        connection.close()
        raise
    return connection, welcome


def _handshake(connection: socket, hello: Hello) -> Welcome:
    welcome = Welcome.decode(_exchange(connection, hello.encode(), "welcome"))
    if not welcome.ok:
        raise RefusedError(welcome.error or "")
    return welcome


def _ask(connection: socket, request: Mapping[str, Any]) -> dict[str, Any]:
    return decode_line(_exchange(connection, encode_line(request, "request"), "answer"), "answer")


def _exchange(connection: socket, line: bytes, what: str) -> bytes:
    try:
        connection.sendall(line)
        return _read_line(connection, what)
    except ConnectionError as error:
        raise EngineGoneError from error


def _read_line(connection: socket, what: str) -> bytes:
    """Read up to the newline and not a byte further: what follows belongs to the protocol after the handshake."""
    line = b""
    while not line.endswith(b"\n"):
        seen = connection.recv(65536, MSG_PEEK)
        if not seen:
            raise EngineGoneError
        line += connection.recv(seen.find(b"\n") + 1 or len(seen))
        if len(line) > MAX_LINE:
            raise ProtocolError(what, f"it has more than {MAX_LINE} bytes")
    return line


def _replace_engine(endpoint: EngineEndpoint, hello: Hello) -> None:
    """Stop an older idle engine and start another, once, even if several newer clients find it at the same moment."""
    held = lock(endpoint.paths.start_lock, endpoint.timeout)
    if held is None:
        raise timeout_error(endpoint)
    sign_lock(held)
    try:
        if _stop_where_still_older(endpoint, hello):
            gone = lock(endpoint.paths.engine_lock, endpoint.timeout)
            if gone is None:
                raise timeout_error(endpoint)
            os.close(gone)
        start_and_connect(endpoint, time.monotonic() + endpoint.timeout).close()
    finally:
        os.close(held)


def _stop_where_still_older(endpoint: EngineEndpoint, hello: Hello) -> bool:
    """Stop the engine if it is still older and idle; tell whether it stops or is gone. Another client may be first."""
    connection = try_connect(endpoint.paths)
    if connection is None:
        return True
    try:
        connection.settimeout(endpoint.timeout)
        welcome = _handshake(connection, hello.replace(role=Role.CONTROL))
        if not welcome.idle or not _older(welcome.version, hello.version):
            return False
        return _ask(connection, {"do": "stop", "if_idle": True}).get("ok") is True
    except EngineGoneError:
        return True
    except TimeoutError as error:
        raise unanswered(endpoint.paths, endpoint.timeout) from error
    finally:
        connection.close()


def _older(version: str, than: str) -> bool:
    return _release(version) < _release(than)


def _release(version: str) -> list[int]:
    # Pre-releases count as their release: the digits that begin each part are all that is compared.
    parts = (part[: len(part) - len(part.lstrip("0123456789"))] for part in version.split("."))
    numbers = [int(digits[:9]) for digits in parts if digits]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return numbers

"""A small synchronous MCP client for the command line: importing the SDK would cost each command over a second."""

import _socket
import itertools
import json
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from server import __version__
from server.client.client_env import client_environment, named_in, own_umask
from server.client.connect import connect, connect_running, connect_with_retry
from server.client.engine_socket import EngineEndpoint
from server.client.state_dir import StatePaths, prepare, state_dir
from server.client.wire import WHOLE, ClientError, Hello, setting_variables

PROTOCOL = "2025-11-25"
"""Newest MCP version that begins with `initialize`; it is simpler to write by hand than the later ones."""

COMPLETION_SECONDS = 1.0
"""How long the shell waits for an engine's answer when it completes an id: a person has pressed a key."""

OnProgress = Callable[[str], None]


class ToolError(Exception):
    """A tool answered with an error; its text says what to do."""


class EngineLostError(ClientError):
    """The engine ended during a call, and so did the next one."""

    def __init__(self) -> None:
        super().__init__(
            "The engine stopped during a call, and so did the next one. Jobs that were started go on: "
            "`claude-jobs list` shows them, and `claude-jobs wait ID` goes on with one."
        )


class NoDirectoryError(ClientError):
    """The working directory of this process is gone, so jobs could not run in it either."""

    def __init__(self) -> None:
        super().__init__("The working directory has been removed. Change to one that is there, and try again.")


class Connection:
    """One connection to one engine.

    Args:
        stream: The connection, after the handshake.
    """

    def __init__(self, stream: _socket.socket) -> None:
        timeout = stream.gettimeout()
        self._stream = socket.socket(fileno=stream.detach())
        self._stream.settimeout(timeout)
        # Kept, and closed too: the descriptor stays open for as long as a file made of the socket does.
        self._reader = self._stream.makefile("rb")
        self._ids = itertools.count(1)

    def shake_hands(self) -> None:
        """Send `initialize` and wait for the answer.

        Raises:
            EngineLostError: The engine ended.
        """
        info = {"name": "claude-jobs", "version": __version__}
        self.request("initialize", {"protocolVersion": PROTOCOL, "capabilities": {}, "clientInfo": info})
        self._send({"method": "notifications/initialized"})

    def request(self, method: str, params: Mapping[str, Any], on_progress: OnProgress | None = None) -> Any:
        """Send a request and return the result.

        Raises:
            ToolError: The answer is an error.
            EngineLostError: The engine ended.
        """
        number = next(self._ids)
        self._send({"id": number, "method": method, "params": dict(params)})
        while True:
            message = self._receive()
            if message.get("id") == number and "method" not in message:
                break
            if on_progress is not None and message.get("method") == "notifications/progress":
                on_progress(message["params"].get("message", ""))
        if "error" in message:
            raise ToolError(message["error"]["message"])
        return message["result"]

    def close(self) -> None:
        """Close the connection."""
        self._reader.close()
        self._stream.close()

    def _send(self, message: Mapping[str, Any]) -> None:
        try:
            self._stream.sendall(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
        except OSError as error:
            raise EngineLostError from error

    def _receive(self) -> dict[str, Any]:
        try:
            line = self._reader.readline()
        except OSError as error:
            raise EngineLostError from error
        if not line.endswith(b"\n"):
            raise EngineLostError
        message: dict[str, Any] = json.loads(line)
        return message


class Client:
    """Calls tools, and repeats a call once where the engine ends meanwhile.

    So a call that submits needs an `idempotencyKey`: the engine may have admitted the first one.

    Args:
        stream: A connection to an engine, after the handshake.
        dial: Returns a connection to the next engine, after one ended.
    """

    def __init__(self, stream: _socket.socket, dial: Callable[[], _socket.socket]) -> None:
        self._dial = dial
        self._connection = Connection(stream)
        self._shaken = False

    def call(self, tool: str, arguments: Mapping[str, Any], on_progress: OnProgress | None = None) -> str:
        """Call a tool and return its text.

        Args:
            tool: Its name.
            arguments: Its arguments as it spells them; None values are left out.
            on_progress: Called with each progress message.

        Raises:
            ToolError: The tool answered with an error.
            EngineLostError: The engine ended, and the next one too.
            ClientError: No other engine can be reached.
        """
        given = {name: value for name, value in arguments.items() if value is not None}
        meta = {WHOLE: True} | ({} if on_progress is None else {"progressToken": tool})
        params = {"name": tool, "arguments": given, "_meta": meta}
        result = self._ask("tools/call", params, on_progress)
        text = "\n".join(block["text"] for block in result["content"] if block["type"] == "text")
        if result.get("isError"):
            raise ToolError(text)
        return text

    def call_json(self, tool: str, arguments: Mapping[str, Any], on_progress: OnProgress | None = None) -> Any:
        """Call a tool that answers in JSON and return the value; raises what `call` raises."""
        return json.loads(self.call(tool, arguments, on_progress))

    def ids_from(self, beginning: str) -> list[str]:
        """Return the newest ids of jobs and batches with this prefix, the newest first, a hundred at most.

        Raises:
            ToolError: The engine cannot read them now.
            EngineLostError: The engine ended, and the next one too.
        """
        params = {
            "ref": {"type": "ref/resource", "uri": "tree://{id}"},
            "argument": {"name": "id", "value": beginning},
        }
        ids: list[str] = self._ask("completion/complete", params, None)["completion"]["values"]
        return ids

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _ask(self, method: str, params: Mapping[str, Any], on_progress: OnProgress | None) -> Any:
        try:
            return self._shaken_connection().request(method, params, on_progress)
        except EngineLostError:
            self.close()
            self._connection, self._shaken = Connection(self._dial()), False
            return self._shaken_connection().request(method, params, on_progress)

    def _shaken_connection(self) -> Connection:
        if not self._shaken:
            self._connection.shake_hands()
            self._shaken = True
        return self._connection


def endpoint_of(
    environ: Mapping[str, str], home: Path | None = None, note: Callable[[str], None] = lambda _line: None
) -> EngineEndpoint:
    """Return the endpoint of a state directory's engine; the directory is created where it is missing.

    Args:
        environ: Where settings come from.
        home: The state directory, or None for the environment's.
        note: Called with a remark for the person.
    """
    return EngineEndpoint(paths=prepare(home or state_dir(environ)), environ=environ, note=note)


@contextmanager
def open_client(endpoint: EngineEndpoint, environ: Mapping[str, str], cwd: Path | None = None) -> Iterator[Client]:
    """Connect to the engine, starting it where none runs.

    Args:
        endpoint: How to reach the engine.
        environ: The environment in which jobs of this client run; the part that `client_environment` returns is
            sent.
        cwd: Directory in which they run, or None for the present one.

    Raises:
        ClientError: The engine cannot be reached or started; the text says why.
    """
    with connected(endpoint, hello_of(endpoint, environ, cwd)) as client:
        yield client


def hello_of(endpoint: EngineEndpoint, environ: Mapping[str, str], cwd: Path | None = None) -> Hello:
    """Return what a command says about itself; arguments as of `open_client`.

    Raises:
        NoDirectoryError: The present directory has been removed.
    """
    return Hello(
        cwd=str((cwd or _working_directory()).absolute()),
        env=client_environment(environ, named_in(environ, endpoint.paths.directory)),
        # The same for every command: an idempotency key names one request between them.
        client="claude-jobs command line",
        settings=setting_variables(environ),
        umask=own_umask(),
    )


@contextmanager
def connected(endpoint: EngineEndpoint, hello: Hello) -> Iterator[Client]:
    """Connect to the engine as the client that the hello describes, starting it where none runs.

    Raises:
        ClientError: The engine cannot be reached or started; the text says why.
    """
    stream, _ = connect(endpoint, hello)
    with closing(Client(stream, partial(connect_with_retry, endpoint, hello))) as client:
        yield client


@contextmanager
def running_client(paths: StatePaths) -> Iterator[Client | None]:
    """Connect to the running engine, for a quick request; None where none answers.

    Raises:
        ClientError: The engine refuses this client, or ended.
        OSError: It does not answer within a second, or a system call failed.
    """
    endpoint = EngineEndpoint(paths=paths, environ={}, timeout=COMPLETION_SECONDS)
    hello = Hello(cwd="/", client="claude-jobs completion")
    stream = connect_running(endpoint, hello)
    if stream is None:
        yield None
        return
    with closing(Client(stream, partial(connect_with_retry, endpoint, hello))) as client:
        yield client


def _working_directory() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError as error:
        raise NoDirectoryError from error

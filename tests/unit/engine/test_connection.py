"""The engine over its unix socket: whatever one client does, the engine goes on serving the others."""

import json
import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

from jobs.settings_sources import ClientVariables, variable_of
from server.client.jsonrpc import INVALID_REQUEST
from server.client.state_dir import StatePaths, prepare
from server.client.wire import MAX_LINE, MAX_MESSAGE, Hello, Role
from server.engine import connection
from server.engine.app import EngineRunningError, serve
from tests.unit.client.test_jsonrpc import BAD
from tests.unit.mcp.world import PATH, STUB

pytestmark = pytest.mark.anyio

TIMEOUT_SECONDS = 20


class Wire:
    """A client of the socket that sends whatever it likes."""

    def __init__(self, stream: SocketStream) -> None:
        self.stream = stream
        self._lines = BufferedByteReceiveStream(stream)
        self._ids = 0

    async def send(self, line: bytes) -> None:
        # The engine may have read enough of it already, and closed its end.
        with suppress(anyio.BrokenResourceError):
            await self.stream.send(line + b"\n")

    async def receive(self) -> dict[str, Any]:
        with anyio.fail_after(TIMEOUT_SECONDS):
            message: dict[str, Any] = json.loads(await self._lines.receive_until(b"\n", 1 << 26))
        return message

    async def greet(self, **hello: Any) -> dict[str, Any]:
        await self.stream.send(Hello(**{"cwd": "/", "env": {"PATH": PATH}, **hello}).encode())
        return await self.receive()

    async def ask(self, method: str, **params: Any) -> dict[str, Any]:
        self._ids += 1
        request = {"jsonrpc": "2.0", "id": self._ids, "method": method, "params": params}
        await self.send(json.dumps(request).encode())
        while (answer := await self.receive()).get("id") != self._ids:
            pass
        return answer

    async def shake_hands(self) -> None:
        info = {"name": "test", "version": "1"}
        await self.ask("initialize", protocolVersion="2025-11-25", capabilities={}, clientInfo=info)
        await self.send(b'{"jsonrpc":"2.0","method":"notifications/initialized"}')

    async def ended(self) -> bool:
        with anyio.fail_after(TIMEOUT_SECONDS):
            try:
                await self._lines.receive_until(b"\n", 1 << 26)
            except (anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError):
                return True
        return False


@asynccontextmanager
async def running_engine(home: Path, **settings: Any) -> AsyncIterator[StatePaths]:
    """Serve a state directory in this process; an engine that breaks fails the test."""
    paths = prepare(home / "state")
    chosen = {variable_of(name): str(value) for name, value in {"cli": STUB, "grace_seconds": 0.2, **settings}.items()}
    ready = anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(partial(serve, paths.home, ClientVariables(values=chosen), on_ready=ready.set))
        with anyio.fail_after(TIMEOUT_SECONDS):
            await ready.wait()
        yield paths
        # With a stop request: cancelled from outside, anyio's sockets report to the loop that their futures are gone.
        async with wire(paths) as client:
            await client.greet(role=Role.CONTROL)
            await client.send(b'{"do":"stop"}')
            assert (await client.receive())["leaving"] is True


@asynccontextmanager
async def wire(paths: StatePaths) -> AsyncIterator[Wire]:
    async with await anyio.connect_unix(paths.socket) as stream:
        yield Wire(stream)


@asynccontextmanager
async def caller(paths: StatePaths) -> AsyncIterator[Wire]:
    async with wire(paths) as client:
        assert (await client.greet())["ok"] is True
        await client.shake_hands()
        yield client


async def assert_serves(paths: StatePaths) -> None:
    async with caller(paths) as client:
        tools = (await client.ask("tools/list"))["result"]["tools"]
        assert "claude_run" in {tool["name"] for tool in tools}


async def test_the_socket_and_the_state_directory_are_closed_to_others(home: Path):
    async with running_engine(home) as paths:
        assert stat.S_IMODE(paths.socket.stat().st_mode) == 0o600
        assert stat.S_IMODE(paths.home.stat().st_mode) == 0o700


async def test_a_second_engine_is_refused_with_what_to_do(home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("server.engine.app.LOCK_SECONDS", 0.0)
    async with running_engine(home) as paths:
        with pytest.raises(EngineRunningError, match="claude-jobs engine stop"):
            await serve(paths.home, ClientVariables(values={}))
        await assert_serves(paths)


async def test_a_client_that_dies_before_it_reads_its_replies_disturbs_nobody(home: Path):
    async with running_engine(home) as paths:
        async with caller(paths) as client:
            for number in range(200):
                request = {"jsonrpc": "2.0", "id": 1000 + number, "method": "tools/list", "params": {}}
                with anyio.move_on_after(0.5):
                    await client.send(json.dumps(request).encode())
            # Until here the engine is blocked on a full socket; the close then breaks its write.
        await assert_serves(paths)


async def test_what_a_client_sent_right_before_it_ended_its_side_is_begun(home: Path):
    info = {"name": "test", "version": "1"}
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": info}
    opening = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}).encode()
    async with running_engine(home) as paths, wire(paths) as client:
        await client.greet(cwd=str(home))
        await client.send(opening)
        await client.stream.send_eof()
        assert (await client.receive())["result"]["serverInfo"]["name"] == "claude-jobs"
        assert await client.ended()


async def test_an_over_long_line_gets_an_error_and_ends_no_connection(home: Path):
    async with running_engine(home) as paths, caller(paths) as bystander, caller(paths) as client:
        text = b'{"jsonrpc":"2.0","id":77,"method":"ping","params":{"a":"%b"}}' % (b"x" * (MAX_MESSAGE + 65536))
        with anyio.fail_after(TIMEOUT_SECONDS):
            await client.send(text)
        answer = await client.receive()
        assert (answer["id"], answer["error"]["code"]) == (77, INVALID_REQUEST)
        assert "result" in await client.ask("tools/list")
        assert "result" in await bystander.ask("tools/list")


async def test_an_over_long_first_line_gets_an_error(home: Path):
    async with running_engine(home) as paths, wire(paths) as client:
        assert (await client.greet())["ok"] is True
        with anyio.fail_after(TIMEOUT_SECONDS):
            await client.send(b"x" * (MAX_MESSAGE + 65536))
        answer = await client.receive()
        assert (answer["id"], answer["error"]["code"]) == (None, INVALID_REQUEST)
        await client.shake_hands()
        assert "result" in await client.ask("tools/list")


async def test_a_line_just_below_the_limit_is_read(home: Path):
    async with running_engine(home) as paths, caller(paths) as client:
        task = "x" * (MAX_MESSAGE - 4096)
        answer = await client.ask("tools/call", name="claude_run_async", arguments={"task": task})
        assert answer["result"]["isError"] is True
        assert "task: the task has" in answer["result"]["content"][0]["text"]


DEEP = b'{"jsonrpc":"2.0","id":5,"method":"ping","params":{"a":' + b"[" * 400 + b"]" * 400 + b"}}"
"""Nested less deeply than we read, and more deeply than the SDK does."""


async def test_a_line_that_is_no_message_is_answered_and_leaves_the_connection_usable(home: Path):
    async with running_engine(home) as paths, caller(paths) as client:
        for line, code, key in (*BAD.values(), (DEEP, INVALID_REQUEST, 5)):
            await client.send(line)
            answer = await client.receive()
            assert (answer["id"], answer["error"]["code"]) == (key, code), line[:80]
        await client.send(b" \r")
        assert "result" in await client.ask("tools/list")


async def test_the_last_line_counts_without_its_newline(home: Path):
    async with running_engine(home) as paths, caller(paths) as client:
        await client.stream.send(b'{"jsonrpc":"1.0","id":5}')
        await client.stream.send_eof()
        assert (await client.receive())["id"] == 5


async def test_half_a_character_in_a_task_becomes_a_question_mark(home: Path):
    async with running_engine(home) as paths, caller(paths) as client:
        answer = await client.ask("tools/call", name="claude_run_async", arguments={"task": "half \ud800"})
        job_id = json.loads(answer["result"]["content"][0]["text"])["jobId"]
        await client.ask("tools/call", name="claude_wait", arguments={"jobIds": [job_id]})
        status = await client.ask("tools/call", name="claude_status", arguments={"jobId": job_id})
        assert json.loads(status["result"]["content"][0]["text"])["task"] == "half ?"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"no json", "it is not JSON"),
        (b"{}", '"claude_jobs" is None'),
        (b'{"claude_jobs":1,"version":"1","role":"mcp","cwd":"here","env":{}}', "not an absolute path"),
        (b'{"claude_jobs":1,"version":"1","role":"spy","cwd":"/","env":{}}', "known are"),
        (b'{"claude_jobs":1,"version":"1","role":"mcp","cwd":"/","env":{},"token":"cj1_x"}', "the job is over"),
        (b'{"claude_jobs":1,"version":"1","role":"mcp","cwd":"/","env":{},"token":"\\ud800"}', "token"),
        (b"x" * (MAX_LINE + 10), "more than 1048576 bytes"),
        (b"x" * (2 * MAX_LINE), "too long"),
    ],
    ids=["text", "empty", "relative", "role", "token", "surrogate", "long", "endless"],
)
async def test_a_hello_that_cannot_be_used_is_refused_in_words(home: Path, line: bytes, words: str):
    async with running_engine(home) as paths:
        async with wire(paths) as client:
            await client.send(line)
            answer = await client.receive()
            assert answer["ok"] is False
            assert words in answer["error"]
        await assert_serves(paths)


@pytest.mark.parametrize("line", [b"", b'{"claude_jobs"'], ids=["nothing", "half"])
async def test_a_client_that_leaves_during_its_hello_disturbs_nobody(home: Path, line: bytes):
    async with running_engine(home) as paths:
        async with wire(paths) as client:
            await client.stream.send(line or b" ")
        await assert_serves(paths)


async def test_a_client_that_says_nothing_is_let_go(home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connection, "HELLO_SECONDS", 0.05)
    async with running_engine(home) as paths, wire(paths) as client:
        assert await client.ended()


async def test_a_control_client_that_asks_nothing_is_let_go(home: Path, monkeypatch: pytest.MonkeyPatch):
    # A busy machine takes some of it for the greeting.
    monkeypatch.setattr(connection, "HELLO_SECONDS", 2.0)
    async with running_engine(home) as paths, wire(paths) as client:
        await client.greet(role=Role.CONTROL)
        assert await client.ended()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"no json", "not JSON"),
        (b'{"do":"dance"}', "there are stop, status, settings, prune, limits, search, job, report, web and feed"),
        (b'{"do":["stop"]}', "there are stop, status, settings, prune, limits, search, job, report, web and feed"),
        (b'{"do":"\\ud800"}', "there are stop, status, settings, prune, limits, search, job, report, web and feed"),
        (b'{"do":"prune","trees":5}', "trees: give an array of ids, or leave it out. Nothing was deleted."),
        (b'{"do":"prune","trees":"j1"}', "trees: give an array of ids"),
        (b'{"do":"prune","trees":[{}]}', "trees: give an array of ids"),
        (b'{"do":"search","search":3}', "search: give an object."),
        (b"x" * (MAX_LINE + 10), "more than 1048576 bytes"),
        (b"x" * (2 * MAX_LINE), "too long"),
    ],
    ids=["text", "unknown", "list", "surrogate", "number", "string", "objects", "search", "long", "endless"],
)
async def test_a_control_request_that_cannot_be_used_is_answered_in_words(home: Path, line: bytes, words: str):
    async with running_engine(home) as paths:
        async with wire(paths) as client:
            await client.greet(role=Role.CONTROL)
            await client.send(line)
            answer = await client.receive()
            assert answer["ok"] is False
            assert words in answer["error"]
        await assert_serves(paths)


async def test_the_status_says_who_serves_where_and_how_many_jobs_there_are(home: Path):
    async with running_engine(home) as paths:
        async with caller(paths) as client:
            await client.ask("tools/call", name="claude_run", arguments={"task": "stub:cost=0.25"})
        async with wire(paths) as control:
            await control.greet(role=Role.CONTROL)
            await control.send(b'{"do":"status"}')
            status = await control.receive()
        assert (status["pid"], status["socket"]) == (os.getpid(), str(paths.socket))
        assert (status["jobs"], status["costUsd"]) == ({"completed": 1}, 0.25)


async def test_an_engine_with_a_live_job_does_not_leave_when_asked_only_if_idle(home: Path):
    async with running_engine(home) as paths, caller(paths) as client:
        started = await client.ask("tools/call", name="claude_run_async", arguments={"task": "stub:wait=/nowhere"})
        async with wire(paths) as control:
            await control.greet(role=Role.CONTROL)
            await control.send(b'{"do":"stop","if_idle":true}')
            assert await control.receive() == {"ok": False, "error": "The engine has work."}
        job_id = json.loads(started["result"]["content"][0]["text"])["jobId"]
        await client.ask("tools/call", name="claude_kill_job", arguments={"jobId": job_id})
        # An engine leaves its jobs running, so this one must be over before the engine is asked to go.
        done = await client.ask("tools/call", name="claude_wait", arguments={"jobIds": [job_id]})
        assert '"cancelled"' in done["result"]["content"][0]["text"]


async def test_another_user_is_turned_away_before_anything_is_said(home: Path, monkeypatch: pytest.MonkeyPatch):
    async with running_engine(home) as paths:
        with monkeypatch.context() as patch:
            patch.setattr(connection, "peer_uid", lambda _socket: os.geteuid() + 1)
            async with wire(paths) as client:
                with suppress(anyio.BrokenResourceError):
                    await client.stream.send(Hello(cwd="/").encode())
                assert await client.ended()
        await assert_serves(paths)

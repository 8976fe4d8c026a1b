"""The requests of the page to an engine in this process, where a call that blocks its event loop fails the test."""

import http.client
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import pytest

from server.client.state_dir import StatePaths
from server.client.wire import Role
from server.web import http_server, page
from server.web.access import WRONG_CODES
from server.web.guard import SECURITY_HEADERS
from tests.support.page_client import Answer, Events, PageClient
from tests.unit.engine.test_connection import Wire, caller, running_engine, wire

pytestmark = pytest.mark.anyio

HOLD = "stub:wait=/nonexistent"
T = TypeVar("T")


async def aside(work: Callable[..., T], *arguments: Any, **more: Any) -> T:
    """Run what waits for the engine in a thread."""
    return await anyio.to_thread.run_sync(partial(work, *arguments, **more))


async def asked(paths: StatePaths, **request: Any) -> dict[str, Any]:
    """Send the control request `web`."""
    async with wire(paths) as client:
        await client.greet(role=Role.CONTROL, cwd=str(paths.home))
        await client.send(json.dumps({"do": "web", **request}).encode())
        return await client.receive()


@asynccontextmanager
async def opened(home: Path, **settings: Any) -> AsyncIterator[tuple[StatePaths, PageClient]]:
    """An engine, and a client that was let in."""
    async with running_engine(home, **settings) as paths:
        answer = await asked(paths)
        client = PageClient(port=answer["port"])
        assert (await aside(client.open, answer["url"])).status == 200
        yield paths, client


async def started(client: Wire, *tasks: str) -> dict[str, Any]:
    answer = await client.ask("tools/call", name="claude_run_batch_async", arguments={"tasks": list(tasks)})
    reply: dict[str, Any] = json.loads(answer["result"]["content"][0]["text"])
    return reply


async def over(client: Wire, batch_id: str) -> None:
    await client.ask("tools/call", name="claude_wait", arguments={"batchId": batch_id})


async def test_the_page_its_files_and_its_session_are_served(home: Path):
    async with opened(home) as (paths, client):
        assert "<main" in (await aside(client.get, "/")).body
        assert "import" in (await aside(client.get, "/static/main.js")).body
        for path in ("/static/nothing.js", "/static/nothing.exe", "/nothing"):
            assert (await aside(client.get, path)).status == 404
        session = (await aside(client.get, "/api/session")).json
        assert (session["ok"], session["home"]) == (True, str(paths.home))
        assert (await aside(client.send, "POST", "/", b"{}", CHANGE)).status == 405


CHANGE = {"Content-Type": "application/json", "X-Claude-Jobs": "1"}


async def test_a_job_a_batch_and_the_costs_are_read(home: Path):
    async with opened(home) as (paths, client), caller(paths) as person:
        batch = await started(person, HOLD, "stub:say=done stub:cost=0.5")
        live, done = batch["jobIds"]
        await person.ask("tools/call", name="claude_wait", arguments={"jobIds": [done]})
        seen = (await aside(client.get, f"/api/jobs/{live}")).json
        assert (seen["ok"], seen["subtree"]["jobs"], "resume" in seen) == (True, 1, False)
        assert seen["limits"]["ok"] is True
        seen = (await aside(client.get, f"/api/jobs/{done}")).json
        assert (seen["answer"], seen["own"]["costUsd"]) == ("done", 0.5)
        assert seen["resume"].endswith(f"claude --resume {seen['sessionId']}")
        seen = (await aside(client.get, f"/api/jobs/{batch['batchId']}")).json
        assert (seen["subtree"]["jobs"], "limits" in seen) == (2, True)
        for path in ("/api/jobs/j404", "/api/jobs/b404", "/api/trees/b404/costs"):
            assert (await aside(client.get, path)).status == 404
        assert (await aside(client.get, "/api/costs")).json["totalUsd"] == pytest.approx(0.5, abs=0.01)
        assert (await aside(client.get, f"/api/trees/{batch['batchId']}/costs")).json["ok"] is True
        assert (await aside(client.act, do="kill", id=batch["batchId"])).json["ok"] is True
        await over(person, batch["batchId"])


async def test_the_stream_goes_on_where_a_browser_was(home: Path):
    async with opened(home) as (paths, client), caller(paths) as person:
        batch = await started(person, "stub:say=one")
        await over(person, batch["batchId"])
        first = await aside(pages, client, f"?tree={batch['batchId']}", 1)
        assert [row["excerpt"] for row in first[0]["jobs"]] == ["one"]
        assert first[0]["reset"] is True
        await started(person, "stub:say=two")
        cursor = first[0]["cursor"]
        by_query = await aside(pages, client, f"?trees=1&cursor={cursor}", 1)
        assert by_query[0]["jobs"] == []
        by_header = await aside(first_of, client, {"Last-Event-ID": "of another engine.7"})
        assert by_header["reset"] is True


def pages(client: PageClient, query: str, count: int) -> list[dict[str, Any]]:
    with client.stream(query) as events:
        return [events.page() for _ in range(count)]


def first_of(client: PageClient, headers: dict[str, str]) -> dict[str, Any]:
    with closing(http.client.HTTPConnection("127.0.0.1", client.port, timeout=20)) as connection:
        connection.request("GET", "/api/feed", headers={"Cookie": client.cookie, **headers})
        return Events(connection.getresponse()).page()


async def test_too_many_streams_are_refused(home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(page, "MOST_STREAMS", 1)
    async with opened(home) as (_, client):

        def two() -> Answer:
            with client.stream() as events:
                assert events.page()["ok"] is True
                return client.get("/api/feed")

        assert (await aside(two)).status == 503
        assert (await aside(pages, client, "", 1))[0]["ok"] is True


async def test_after_many_wrong_codes_even_a_good_link_has_to_wait(home: Path):
    async with opened(home) as (paths, client):
        other = PageClient(port=client.port)
        for _ in range(WRONG_CODES):
            assert (await aside(other.get, "/open?code=wrong")).status == 403
        answer = await asked(paths)
        assert (await aside(other.open, answer["url"])).status == 429
        assert (await aside(client.get, "/")).status == 200


async def test_a_known_browser_that_opens_another_link_keeps_its_cookie(home: Path):
    async with opened(home) as (paths, client):
        cookie = client.cookie
        again = await aside(client.open, (await asked(paths))["url"])
        assert (again.status, "set-cookie" in again.headers, client.cookie) == (200, False, cookie)


async def test_a_cookie_of_our_name_that_another_server_set_hides_ours_from_nobody(home: Path):
    async with opened(home) as (_, client):
        name = client.cookie.partition("=")[0]
        both = PageClient(port=client.port, cookie=f'{name}=other; odd={{"a": 1}}; {client.cookie}')
        assert (await aside(both.get, "/")).status == 200


async def test_an_action_says_what_was_wrong_with_it(home: Path):
    async with opened(home) as (_, client):
        for body in (b"", b"{", b"[]", b"\xff\xfe"):
            answer = await aside(client.send, "POST", "/api/actions", body, CHANGE)
            assert (answer.status, answer.json["ok"]) == (400, False)
        refused = await aside(client.act, do="kill", id="j404")
        assert (refused.status, refused.json["error"]) == (409, "j404 is over already.")


async def test_a_body_that_never_comes_to_its_end_is_given_up(home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(page, "BODY_SECONDS", 0.1)
    monkeypatch.setattr(page, "MOST_BYTES", 100)
    async with opened(home) as (_, client):
        head = (
            f"POST /api/actions HTTP/1.1\r\nHost: 127.0.0.1:{client.port}\r\nCookie: {client.cookie}\r\n"
            "Content-Type: application/json\r\nX-Claude-Jobs: 1\r\n"
        )

        def answer_to(rest: str) -> bytes:
            with socket.create_connection(("127.0.0.1", client.port), timeout=20) as stream:
                stream.sendall((head + rest).encode())
                return stream.recv(65_536).partition(b"\r\n")[0]

        assert b" 400 " in await aside(answer_to, "Content-Length: 50\r\n\r\n{")
        chunks = f"Transfer-Encoding: chunked\r\n\r\n65\r\n{'x' * 101}\r\n"
        assert b" 413 " in await aside(answer_to, chunks)


async def test_a_connection_without_a_request_and_one_too_many_are_closed(home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(http_server, "SILENT_SECONDS", 0.1)
    monkeypatch.setattr(http_server, "MOST_CONNECTIONS", 3)
    async with opened(home) as (_, client):

        def silent() -> bytes:
            with socket.create_connection(("127.0.0.1", client.port), timeout=20) as stream:
                return stream.recv(1)

        assert await aside(silent) == b""
        monkeypatch.setattr(http_server, "SILENT_SECONDS", 20)

        def crowd() -> int:
            streams = [socket.create_connection(("127.0.0.1", client.port), timeout=20) for _ in range(4)]
            try:
                streams[3].settimeout(20)
                try:
                    return len(streams[3].recv(1))
                except ConnectionResetError:
                    return 0
            finally:
                for stream in streams:
                    stream.close()

        assert await aside(crowd) == 0


async def test_a_request_that_does_not_go_on_keeps_no_connection(home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(http_server, "SILENT_SECONDS", 0.3)
    async with opened(home) as (_, client):
        whole = f"GET /api/session HTTP/1.1\r\nHost: 127.0.0.1:{client.port}\r\nCookie: {client.cookie}\r\n"

        def half(first: str) -> bytes:
            with socket.create_connection(("127.0.0.1", client.port), timeout=20) as stream:
                stream.sendall(first.encode())
                answer = b""
                # Head and body may come one after the other.
                while first and not answer.endswith(b"}"):
                    answer += stream.recv(65_536)
                stream.sendall(b"GET /api")
                return stream.recv(1)

        for first in ("", f"{whole}\r\n"):
            assert await aside(half, first) == b""


async def test_one_browser_has_few_streams_that_last_and_each_of_its_pages_is_told_all(home: Path):
    async with opened(home) as (paths, client), caller(paths) as person:

        def read_until(events: Events, name: str) -> list[dict[str, str]]:
            found: list[dict[str, str]] = []
            while not found or found[-1]["event"] != name:
                event = events.next()
                assert event is not None
                found.append(event)
            return found

        with ExitStack() as stack:

            def entered(one: PageClient, query: str = "") -> Events:
                return stack.enter_context(one.stream(query))

            for _ in range(page.LASTING_STREAMS):
                await aside((await aside(entered, client)).page)
            other = PageClient(port=client.port)
            assert (await aside(other.open, (await asked(paths))["url"])).status == 200
            lasting = await aside(entered, other)
            brief = await aside(entered, client)
            [first, _] = await aside(read_until, brief, "later")
            assert await aside(brief.next) is None
            batch = await started(person, "stub:say=ok")
            await over(person, batch["batchId"])
            told = await aside(read_until, await aside(entered, client, f"?cursor={first['id']}"), "later")
            assert batch["batchId"] in told[0]["data"]
            # That of another browser lasts.
            while batch["batchId"] not in json.dumps(await aside(lasting.page)):
                pass


async def test_the_page_moves_and_ends_and_names_a_port_that_it_cannot_have(home: Path):
    async with opened(home) as (paths, client):
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            taken = other.getsockname()[1]
            answer = await asked(paths, port=taken)
            assert (answer["ok"], f"Port {taken}" in answer["error"]) == (False, True)
        assert (await aside(client.get, "/")).status == 200
        answer = await asked(paths, port=taken)
        assert answer["port"] == taken
        moved = PageClient(port=taken)
        assert (await aside(moved.open, answer["url"])).status == 200
        for port in (80, 65_536, "x", True):
            assert (await asked(paths, port=port))["ok"] is False
        assert await asked(paths, off=True) == {"ok": True, "off": True}
        assert not paths.page.exists()
        again = await asked(paths, port=taken)
        assert again["ok"] is True
        assert (await aside(moved.get, "/")).status == 401


async def test_the_next_engine_serves_the_page_unasked_or_says_why_not(home: Path):
    async with opened(home) as (_, client):
        pass
    async with running_engine(home) as paths:
        answer = await asked(paths)
        assert (answer["port"], "note" in answer) == (client.port, False)
        assert (await aside(client.get, "/")).status == 200
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", client.port))
        other.listen()
        async with running_engine(home) as paths:
            answer = await asked(paths)
            assert answer["port"] != client.port
            assert str(client.port) in answer["note"]


async def test_an_unforeseen_error_is_answered_logged_and_disturbs_nobody(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def broken(_: str) -> None:
        raise RuntimeError("nobody thought of it")

    async with opened(home) as (_, client):
        monkeypatch.setattr(page, "file_answer", broken)
        answer = await aside(client.get, "/")
        assert (answer.status, answer.body) == (500, "Internal Server Error")
        assert SECURITY_HEADERS.items() <= answer.headers.items()
        assert "nobody thought of it" in caplog.text
        assert (await aside(client.get, "/api/session")).json["ok"] is True

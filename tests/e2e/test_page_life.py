"""The page through the life of engines: begun by a command, served again by the next engine, ended on request."""

import contextlib
import json
import re
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest

from tests.support.engines import House, house
from tests.support.page_client import PageClient, asked_for, signed_in
from tests.support.waiting import until_now

SECONDS = 60.0
HOLD = "stub:wait=/nonexistent"


@pytest.fixture
def made() -> Iterator[House]:
    with house() as built:
        built.start_engine()
        yield built


@contextmanager
def taken_port() -> Iterator[int]:
    """A port at which another program listens."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield int(other.getsockname()[1])


def free_port() -> int:
    with taken_port() as port:
        return port


def serves(client: PageClient) -> bool:
    with contextlib.suppress(OSError):
        return client.get("/api/session").status == 200
    return False


def pid_of(made: House) -> int:
    told = made.control("status")
    assert told is not None
    return int(told["pid"])


def test_an_engine_serves_no_page_before_somebody_asks(made: House):
    process = psutil.Process(pid_of(made))
    assert [one for one in process.net_connections("inet") if one.status == psutil.CONN_LISTEN] == []
    signed_in(made)
    assert [one.laddr.ip for one in process.net_connections("inet") if one.status == psutil.CONN_LISTEN] == [
        "127.0.0.1"
    ]


def test_the_next_engine_serves_the_same_port_to_the_same_browser_though_the_last_one_was_killed(made: House):
    client = signed_in(made)
    first = made.kill_engine()
    made.wait_for_the_engine_to_go()
    made.start_engine()
    until_now(lambda: serves(client), SECONDS, "the page")
    assert client.get("/api/session").json["pid"] != first
    # A code is known to the engine alone that made it.
    with client.stream() as events:
        assert events.page()["ok"] is True


def test_a_code_is_worth_nothing_to_the_next_engine(made: House):
    answer = asked_for(made)
    client = PageClient(port=answer["port"])
    made.kill_engine()
    made.wait_for_the_engine_to_go()
    made.start_engine()
    until_now(lambda: _answers(client), SECONDS, "the page")
    assert client.open(answer["url"]).status == 403


def _answers(client: PageClient) -> bool:
    with contextlib.suppress(OSError):
        return client.get("/").status == 401
    return False


def test_the_end_of_the_page_lets_nobody_in_any_more_and_the_next_engine_serves_none(made: House):
    client, answer = signed_in(made), asked_for(made)
    with client.stream() as events:
        events.page()
        done = made.run("web", "--off")
        assert (done.returncode, "no browser is let in" in done.stdout) == (0, True)
        event = events.next()
        while event is not None and event["event"] == "page":
            event = events.next()
        assert event == {"event": "end", "data": ""}
    with pytest.raises(OSError, match="refused"):
        client.get("/")
    assert not made.paths.page.exists()
    again = asked_for(made, port=client.port)
    assert (client.get("/").status, client.open(answer["url"]).status) == (401, 403)
    assert again["port"] == client.port


def test_without_an_engine_the_end_of_the_page_holds_for_the_next_one(made: House):
    client = signed_in(made)
    made.run("engine", "stop")
    made.wait_for_the_engine_to_go()
    assert made.run("web", "--off").returncode == 0
    made.start_engine()
    again = asked_for(made, port=client.port)
    assert again["ok"] is True
    assert client.get("/").status == 401


def test_an_engine_with_open_streams_stops_in_a_moment_and_tells_them(made: House):
    # A browser has four streams that last.
    clients = [signed_in(made) for _ in range(3)]
    client = clients[-1]
    with ExitStack() as stack:
        streams = [stack.enter_context(one.stream()) for one in clients for _ in range(3)]
        for events in streams:
            events.page()
        # One that does not read holds up nobody, and one that asked nothing neither.
        stack.enter_context(client.stream())
        stack.enter_context(socket.create_connection(("127.0.0.1", client.port)))
        began = time.monotonic()
        assert made.run("engine", "stop").returncode == 0
        made.wait_for_the_engine_to_go()
        took = time.monotonic() - began
        assert [events.next() for events in streams] == [{"event": "end", "data": ""}] * 9
        assert [events.next() for events in streams] == [None] * 9
    assert took < 5


def test_an_open_page_keeps_the_engine_and_a_closed_one_does_not():
    with house(CLAUDE_JOBS_IDLE_SECONDS="3") as built:
        built.start_engine()
        client = signed_in(built)
        with client.stream() as events:
            events.page()
            began = time.monotonic()
            while time.monotonic() - began < 5:
                # Each page says that the stream lives; an idle engine would have ended by now.
                assert events.page()["ok"] is True
                _touch(built)
            told = built.control("status")
            assert told is not None
            assert told["connections"] >= 2
        built.wait_for_the_engine_to_go()


def _touch(built: House) -> None:
    """Change something, so that there is a page to send."""
    built.run("pause")
    built.run("resume")


def test_a_port_that_another_program_has_is_named_and_a_free_one_taken(made: House):
    with taken_port() as port:
        done = made.run("web", "--no-open", "--port", str(port))
        assert (done.returncode, done.stdout) == (1, "")
        assert f"Port {port}" in done.stderr
        assert "--port" in done.stderr
        assert made.run("web", "--no-open").returncode == 0


def test_a_port_that_another_program_took_meanwhile_is_told_once_and_another_one_served(made: House):
    client = signed_in(made)
    made.kill_engine()
    made.wait_for_the_engine_to_go()
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", client.port))
        other.listen()
        made.start_engine()
        done = made.run("web", "--no-open")
        assert (done.returncode, f"Port {client.port}" in done.stderr) == (0, True)
        assert f":{client.port}/" not in done.stdout
        assert "Port" not in made.run("web", "--no-open").stderr
        assert f"port {client.port}" in made.paths.log.read_text()


def test_a_page_moves_to_a_port_that_a_person_names(made: House):
    client, port = signed_in(made), free_port()
    with client.stream() as events:
        events.page()
        answer = asked_for(made, port=port)
        assert answer["port"] == port
        assert events.next() == {"event": "end", "data": ""}
    with pytest.raises(OSError, match="refused"):
        client.get("/")
    moved = PageClient(port=port)
    assert moved.open(answer["url"]).status == 200
    # Without a port it stays where it is.
    assert asked_for(made)["port"] == port


@pytest.mark.parametrize("port", ["80", "1023", "65536", "x"])
def test_a_port_that_is_none_is_wrong_usage(made: House, port: str):
    done = made.run("web", "--no-open", "--port", port)
    assert (done.returncode, done.stdout) == (2, "")
    for given in (80, 0, -1, 65_536, "x", True, 1.5):
        assert asked_for(made, port=given)["ok"] is False


def test_nothing_that_lets_somebody_in_is_in_a_file_an_argument_or_the_log(made: House):
    client = signed_in(made)
    answer = asked_for(made)
    code = answer["url"].partition("code=")[2]
    token = client.cookie.partition("=")[2]
    assert client.get(f"/open?code={code}x").status == 200
    secrets = [code.encode(), token.encode()]
    files = [path for path in made.base.rglob("*") if path.is_file()]
    assert made.paths.page in files
    assert [path for path in files if any(one in path.read_bytes() for one in secrets)] == []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            shown = (process / "cmdline").read_bytes()
            assert not any(one in shown for one in secrets), shown
    assert stat.S_IMODE(made.paths.page.stat().st_mode) == 0o600


def test_the_command_prints_a_link_and_where_it_leads(made: House):
    with made.pump() as person:
        batch = person.json("claude_run_batch_async", tasks=[HOLD, HOLD])
        root, job_id = batch["batchId"], batch["jobIds"][0]
        places = {(): "", (root,): f"&to=tree/{root}", (job_id[:8],): f"&to=tree/{root}/{job_id}"}
        for named, place in places.items():
            done = made.run("web", *named, "--no-open")
            assert done.returncode == 0, done
            link = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/open\?code=[\w-]{43}(&to=.+)?\n", done.stdout)
            assert link is not None, done.stdout
            assert (link[2] or "") == place
            assert "once" in done.stderr
        said = json.loads(made.run("web", job_id, "--no-open", "--json").stdout)
        assert said["url"].endswith(f"&to=tree/{root}/{job_id}")
        assert f":{said['port']}/" in said["url"]
        assert PageClient(port=said["port"]).open(said["url"]).status == 200
        assert made.run("web", "j404", "--no-open").returncode == 1
        assert made.run("web", job_id, "--off").returncode == 2
        person.json("claude_kill_job", jobId=root)


def test_the_command_starts_an_engine_and_its_status_names_the_page():
    with house() as built:
        done = built.run("web", "--no-open")
        assert done.returncode == 0, done
        [port] = re.findall(r":(\d+)/", done.stdout)
        assert f"http://127.0.0.1:{port}" in built.run("engine", "status").stdout
        assert f"the page is at port {port}" in built.run("doctor").stdout
        assert built.run("web", "--off").returncode == 0
        assert "http://" not in built.run("engine", "status").stdout


def test_a_person_over_ssh_is_told_how_to_reach_the_page(made: House):
    done = made.run("web", SSH_CONNECTION="192.0.2.1 1 192.0.2.2 22")
    [port] = re.findall(r":(\d+)/", done.stdout)
    assert f"ssh -L {port}:127.0.0.1:{port}" in done.stderr


def test_the_link_is_opened_in_the_persons_browser(made: House):
    seen, browser = made.base / "seen", made.base / "browser"
    browser.write_text(f'#!/bin/sh\nprintf %s "$1" >"{seen}.new" && mv "{seen}.new" "{seen}"\n')
    browser.chmod(0o755)
    done = made.run("web", BROWSER=str(browser))
    assert done.returncode == 0
    until_now(seen.exists, SECONDS, "the browser")
    assert seen.read_text() == done.stdout.strip()
    assert "Opened in your browser" in done.stderr
    seen.unlink()
    assert "Opened" not in made.run("web", "--no-open", BROWSER=str(browser)).stderr
    assert not seen.exists()


def test_a_browser_that_reads_nothing_costs_the_engine_no_memory(made: House):
    client = signed_in(made)
    with made.pump() as person, ExitStack() as stack:
        person.json("claude_run_batch", tasks=["stub:say=ok"] * 100)
        process = psutil.Process(pid_of(made))
        for _ in range(3):
            with client.stream() as events:
                events.page()
        before = process.memory_info().rss
        for _ in range(40):
            stack.enter_context(client.stream())
        for _ in range(3):
            person.json("claude_run_batch", tasks=["stub:say=ok"] * 100)
        assert process.memory_info().rss - before < 30_000_000
        with client.stream() as events:
            assert events.page()["ok"] is True


def test_a_job_is_seen_whole_and_killed(made: House):
    client = signed_in(made)
    with made.pump() as person:
        job_id = person.json("claude_run_async", task=HOLD, maxBudgetUsd=5)["jobId"]
        until_now(lambda: client.get(f"/api/jobs/{job_id}").json["status"] == "running", SECONDS, "the start")
        seen = client.get(f"/api/jobs/{job_id}").json
        assert (seen["task"], seen["limits"]["budgetUsd"], seen["subtree"]["jobs"]) == (HOLD, 5.0, 1)
        assert seen["own"].keys() == {"costUsd", "inputTokens", "outputTokens"}
        assert "resume" not in seen
        assert client.act(do="kill", id=job_id).json == {"ok": True, "message": f"Job {job_id} killed"}
        person.settled(job_id)
        seen = client.get(f"/api/jobs/{job_id}").json
        assert (seen["status"], "limits" in seen) == ("cancelled", False)
        again = client.act(do="kill", id=job_id)
        assert (again.status, again.json) == (409, {"ok": False, "error": f"{job_id} is over already."})
        assert client.get("/api/jobs/j404").status == 404
        root = person.json("claude_run_batch_async", tasks=["stub:say=ok"])["batchId"]
        assert client.get(f"/api/jobs/{root}").json["subtree"]["jobs"] == 1


def test_a_session_that_is_over_is_resumed_by_the_line_that_the_page_shows(made: House):
    client = signed_in(made)
    with made.pump() as person:
        job_id = person.json("claude_run_async", task="stub:say=ok")["jobId"]
        person.settled(job_id)
        seen = client.get(f"/api/jobs/{job_id}").json
        assert seen["resume"] == f"cd {made.work} && claude --resume {seen['sessionId']}"


def test_a_retry_runs_in_the_environment_of_the_terminal_that_opened_the_page(made: House):
    queued = {"ok": True, "message": "Queued again: 1 job."}
    with made.pump() as person:
        # A job that is tried again goes on in its session, and the stub then succeeds.
        first, second = (person.json("claude_run_async", task="stub:exit=1")["jobId"] for _ in range(2))
        for job_id in (first, second):
            assert person.settled(job_id)["status"] == "failed"
        client = signed_in(made)
        assert client.act(do="retry", id=first).json == queued
        assert person.settled(first)["status"] == "completed"
        made.kill_engine()
        made.wait_for_the_engine_to_go()
        made.start_engine()
        until_now(lambda: serves(client), SECONDS, "the page")
        refused = client.act(do="retry", id=second)
        assert (refused.status, "claude-jobs web" in refused.json["error"]) == (409, True)
        # The same browser, and the same cookie.
        assert client.open(asked_for(made)["url"]).status == 200
        assert client.act(do="retry", id=second).json == queued
        assert person.settled(second)["status"] == "completed"

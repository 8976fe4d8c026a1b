"""`claude-jobs web`: a link for one browser, where it leads, and whether it opens by itself."""

import json
import re
import subprocess
import sys
import webbrowser
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from server.cli import web
from server.cli.web import open_in_browser, page_url
from server.client.engine_socket import EngineEndpoint
from server.client.wire import ClientError
from tests.support.engines import House, house
from tests.support.waiting import until_now
from tests.unit.conftest import Invoke

LINK = re.compile(r"http://127\.0\.0\.1:(\d+)/open\?code=[\w-]{43}(?:&to=(\S+))?")


@pytest.fixture(autouse=True)
def no_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test opens a browser of the person who runs it."""
    for name in ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY", "SSH_CONNECTION"):
        monkeypatch.delenv(name, raising=False)


def test_it_prints_a_link_and_says_for_how_long_it_is_good(invoke: Invoke):
    done = invoke("web", "--no-open")
    assert done.exit_code == 0
    assert LINK.fullmatch(done.stdout.strip())
    assert "once, within ten minutes" in done.stderr


def test_without_a_screen_it_only_prints_and_over_ssh_says_how_to_get_there(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
):
    assert "Opened" not in invoke("web").stderr
    monkeypatch.setenv("SSH_CONNECTION", "192.0.2.1 1 192.0.2.2 22")
    done = invoke("web")
    found = LINK.fullmatch(done.stdout.strip())
    assert found is not None
    assert f"ssh -L {found[1]}:127.0.0.1:{found[1]}" in done.stderr


def test_an_id_leads_to_its_job_in_its_tree(invoke: Invoke):
    job_id = invoke("run", "--detach", "stub:say=x").stdout.strip()
    batch_id = invoke("batch", "--detach", "stub:say=x").stdout.strip()
    inner = json.loads(invoke("tree", batch_id, "--json").stdout)["jobs"][0]["jobId"]
    for named, place in (
        (job_id, f"tree/{job_id}"),
        (batch_id, f"tree/{batch_id}"),
        (inner, f"tree/{batch_id}/{inner}"),
    ):
        found = LINK.fullmatch(invoke("web", named, "--no-open").stdout.strip())
        assert found is not None
        assert found[2] == place
    assert invoke("web", "j404", "--no-open").exit_code == 1


def test_json_is_the_link_and_the_port(invoke: Invoke):
    said = json.loads(invoke("web", "--json").stdout)
    assert said.keys() == {"url", "port"}
    assert json.loads(invoke("web", "--off", "--json").stdout) == {"off": True}


def test_the_end_of_the_page_takes_nothing_else(invoke: Invoke):
    assert invoke("web", "--off").exit_code == 0
    assert "ends the whole page" in invoke("web", "--off", "--port", "8470").stderr


def test_wrong_ports_are_wrong_usage(invoke: Invoke):
    assert invoke("web", "--port", "80").exit_code == 2


def test_an_older_engine_is_named(invoke: Invoke, monkeypatch: pytest.MonkeyPatch):
    older = {"ok": False, "error": "Unknown request 'web'; there are stop and status."}
    monkeypatch.setattr(web, "control", lambda *_: older)
    done = invoke("web", "--no-open")
    assert (done.exit_code, "older version" in done.stderr) == (1, True)
    monkeypatch.setattr(web, "control", lambda *_: {"ok": False, "error": "No."})
    assert invoke("web", "--off").exit_code == 1


def test_a_link_is_had_by_other_commands_too_where_an_engine_runs(quarters: House):
    quarters.start_engine()
    assert LINK.fullmatch(page_url(quarters.endpoint))
    found = LINK.fullmatch(page_url(quarters.endpoint, "costs"))
    assert found is not None
    assert found[2] == "costs"


def test_without_an_engine_there_is_no_link():
    with house() as made:
        endpoint: EngineEndpoint = made.endpoint
        with pytest.raises(ClientError, match="No engine runs"):
            page_url(endpoint)
        assert made.run("web", "--off").returncode == 0


OPENS: Mapping[str, tuple[str, Mapping[str, str], bool]] = {
    "a desktop": ("linux", {"DISPLAY": ":0"}, True),
    "another desktop": ("linux", {"WAYLAND_DISPLAY": "wayland-0"}, True),
    "an editor on another machine": ("linux", {"SSH_CONNECTION": "x", "BROWSER": "helper"}, True),
    "a terminal": ("linux", {}, False),
    "ssh": ("linux", {"SSH_CONNECTION": "x"}, False),
    "a Mac": ("darwin", {}, True),
    "a Mac over ssh": ("darwin", {"SSH_CONNECTION": "x"}, False),
    "a system that does not tell who asks": ("freebsd14", {"DISPLAY": ":0"}, False),
}


@pytest.mark.parametrize("case", OPENS)
def test_a_browser_is_opened_where_there_is_a_screen(case: str, monkeypatch: pytest.MonkeyPatch):
    platform, environ, opens = OPENS[case]
    started: list[Any] = []

    class Process:
        def __init__(self, command: Any, **_: Any) -> None:
            started.append(command)
            self.stdin = BytesIO()

        def wait(self) -> int:
            return 0

    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(subprocess, "Popen", Process)
    monkeypatch.setattr(webbrowser, "get", lambda: None)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert open_in_browser("http://127.0.0.1:1/open?code=secret") is opens
    assert bool(started) is opens
    assert "secret" not in str(started)


def test_the_link_reaches_the_browser_and_nothing_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    seen, browser = tmp_path / "seen", tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho noise\nprintf %s "$1" >"{seen}.new" && mv "{seen}.new" "{seen}"\n')
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER", str(browser))
    assert open_in_browser("http://127.0.0.1:1/open?code=x&to=costs") is True
    until_now(seen.exists, 20.0, "the browser")
    assert seen.read_text() == "http://127.0.0.1:1/open?code=x&to=costs"
    assert capfd.readouterr() == ("", "")


def test_no_browser_is_none(monkeypatch: pytest.MonkeyPatch):
    def none() -> None:
        raise webbrowser.Error

    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(webbrowser, "get", none)
    assert open_in_browser("http://127.0.0.1:1/") is False

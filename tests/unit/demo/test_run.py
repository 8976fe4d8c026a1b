"""The demo with a stub in the place of `claude`: what it says when things go wrong, and that it leaves nothing."""

import io
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from server.cli.follow import watch
from server.demo import run as demo
from tests.support.engines import MAIN, SECONDS, SHELL_STUB
from tests.support.page_client import PageClient
from tests.support.waiting import until_now

UseClaude = Callable[[str], Path]


@pytest.fixture
def stage(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The directory below which the demo makes its own."""
    directory = home / "t"
    directory.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    for name in [name for name in os.environ if name.startswith(("ANTHROPIC_", "CLAUDE"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CLAUDE_JOBS_CLI", str(SHELL_STUB))
    yield directory
    assert list(directory.iterdir()) == []


def console() -> Console:
    return Console(file=io.StringIO(), width=120)


def said(where: Console) -> str:
    assert isinstance(where.file, io.StringIO)
    return where.file.getvalue()


def job(job_id: str, parent: str | None = None) -> dict:
    return {"jobId": job_id, "parentJobId": parent}


TREE = [job("a"), job("b"), job("a1", "a"), job("b1", "b")]


@pytest.mark.parametrize(
    ("answers", "good"),
    [
        ({"a": "A: one", "a1": "one", "b": "B: two", "b1": "two"}, True),
        ({"a": "A: one", "a1": "one", "b": "B: nothing", "b1": "two"}, False),
        ({"a": "A: one", "a1": "one", "b": "B: two"}, False),
        ({"a1": "one", "b": "B: two", "b1": "two"}, False),
        ({}, False),
    ],
    ids=["whole", "left out", "no child", "no parent", "none"],
)
def test_a_tree_is_good_when_every_parent_says_what_its_children_said(answers: dict[str, str], good: bool):
    assert demo.made_of_children(TREE, answers) is good


def test_a_tree_in_which_nobody_spawned_is_not_good():
    assert demo.made_of_children([job("a")], {"a": "alone"}) is False


def test_jobs_that_spawn_nothing_fail_the_demo_and_nothing_is_left(stage: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(demo, "root_tasks", lambda: ["stub:say=a:bug:"] * 3)
    where = console()
    assert demo.run_demo(where) is False
    assert "4 jobs: 4 completed" in said(where)
    assert re.search(rf"^  {stage}/\S+/claude-jobs top$", said(where), re.MULTILINE)
    assert said(where).count("answers:\na:bug:\n") == 3


def test_without_claude_the_demo_says_how_to_get_one(stage: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CLAUDE_JOBS_CLI", "/no/such/claude")
    where = console()
    assert demo.run_demo(where) is False
    assert "Correct CLAUDE_JOBS_CLI, or `cli` in config.toml, or unset it; then try again." in said(where)


def test_a_demo_that_is_interrupted_ends_its_jobs(stage: Path, home: Path, monkeypatch: pytest.MonkeyPatch):
    pids = home / "pids"
    claude = home / "sleeper"
    claude.write_text(f"#!/bin/sh\necho $$ >>'{pids}'\nexec sleep 60\n")
    claude.chmod(0o755)
    monkeypatch.setenv("CLAUDE_JOBS_CLI", str(claude))

    def interrupted(*_: object) -> None:
        until_now(lambda: pids.exists() and len(pids.read_text().split()) == 3)
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "watch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        demo.run_demo(console())
    started = [int(pid) for pid in pids.read_text().split()]
    until_now(lambda: not any(Path(f"/proc/{pid}").exists() for pid in started), what="the end of the jobs")


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_demo_whose_terminal_is_closed_leaves_nothing(
    stage: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
):
    handler = signal.getsignal(number)
    monkeypatch.setattr(demo, "root_tasks", lambda: ["stub:sleep=60"])
    monkeypatch.setattr(demo, "invitation", lambda: "stub:sleep=60")
    monkeypatch.setattr(demo, "watch", lambda *_: os.kill(os.getpid(), number))
    with pytest.raises(SystemExit) as ended:
        demo.run_demo(console())
    assert ended.value.code == 128 + number
    assert signal.getsignal(number) is handler


def test_what_is_retried_from_another_terminal_stays_off_the_persons_account(
    stage: Path, home: Path, monkeypatch: pytest.MonkeyPatch
):
    claude = home / "tells"
    claude.write_text(f"#!/bin/sh\nenv >>'{home}/seen'\nexec '{SHELL_STUB}' \"$@\"\n")
    claude.chmod(0o755)
    monkeypatch.setenv("CLAUDE_JOBS_CLI", str(claude))
    monkeypatch.setattr(sys, "argv", [str(MAIN)])
    monkeypatch.setattr(demo, "root_tasks", lambda: ["stub:exit=1"])
    monkeypatch.setattr(demo, "invitation", lambda: "stub:say=b")
    where = console()
    terminal = {**os.environ, "HOME": str(home), "ANTHROPIC_API_KEY": "sk-of-the-person", "TERM": "vt100"}

    def retried(*given: Any) -> Any:
        jobs = watch(*given)
        failed = next(job["jobId"] for job in jobs if job["status"] == "failed")
        (home / "seen").unlink()
        command = shlex.split(re.findall(r"^  (.*) top$", said(where), re.MULTILINE)[0])
        assignments = dict(word.split("=", 1) for word in command if "=" in word)
        words = [word for word in command if "=" not in word]
        subprocess.run([*words, "retry", failed], env={**terminal, **assignments}, timeout=SECONDS, check=False)
        return jobs

    monkeypatch.setattr(demo, "watch", retried)
    demo.run_demo(where)
    seen = (home / "seen").read_text()
    assert "sk-of-the-person" not in seen
    assert f"HOME={stage}/" in seen


def test_the_page_of_the_demo_is_open_while_it_runs_and_what_a_person_stops_there_is_no_failure(
    stage: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(demo, "SLOW_SECONDS", 0.0)
    monkeypatch.setattr(demo, "root_tasks", lambda: ["stub:say=a", "stub:sleep=60"])
    monkeypatch.setattr(demo, "invitation", lambda: {"task": "stub:say=b", "dependsOn": [1]})
    where = console()

    def stopped(*given: Any) -> Any:
        client, batch = given[0], given[1]
        link, port = re.findall(r"^  (http://127\.0\.0\.1:(\d+)/open\S+)$", said(where), re.MULTILINE)[0]
        browser = PageClient(port=int(port))
        assert browser.open(link).status == 200
        # It shows the tree, not the list with that one tree in it.
        assert link.endswith(f"&to=tree/{batch}")
        live = [job for job in client.call_json("claude_list_jobs", {"under": batch}) if job["task"] == "stub:sleep=60"]
        assert browser.act(do="kill", id=live[0]["jobId"]).json["ok"]
        return watch(*given)

    monkeypatch.setattr(demo, "watch", stopped)
    assert demo.run_demo(where, demo.Show(web=True)) is True
    assert "Open it in your browser, once, within 10 minutes:" in said(where)
    # The one that waited for it did not start; nobody stopped that.
    assert "2 cancelled" in said(where)
    assert "Stopped by you: 1 job." in said(where)
    assert said(where).endswith("The demo in the browser: claude-jobs demo --web. Your own jobs: claude-jobs web\n")


def test_a_demo_whose_jobs_fail_is_no_success_where_nobody_stopped_one(stage: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(demo, "SLOW_SECONDS", 0.0)
    monkeypatch.setattr(demo, "root_tasks", lambda: ["stub:exit=1"])
    monkeypatch.setattr(demo, "invitation", lambda: "stub:say=b")
    where = console()
    assert demo.run_demo(where, demo.Show(web=True)) is False
    assert "Stopped by you" not in said(where)


def test_what_is_kept_can_be_looked_at_again_by_the_command_that_is_named(stage: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", [str(MAIN)])
    monkeypatch.setattr(demo, "root_tasks", lambda: ["stub:say=a"])
    monkeypatch.setattr(demo, "invitation", lambda: "stub:say=b")
    where = console()
    demo.run_demo(where, demo.Show(keep=True))
    command = re.findall(r"^Look at these jobs again: (.*) web$", said(where), re.MULTILINE)
    listed = subprocess.run(
        [*shlex.split(command[0]), "list"], capture_output=True, text=True, timeout=SECONDS, check=True
    )
    assert "stub:say=a" in listed.stdout
    subprocess.run([*shlex.split(command[0]), "engine", "stop"], timeout=SECONDS, check=True, capture_output=True)
    shutil.rmtree(next(stage.iterdir()))


def test_the_last_line_names_the_command_as_it_was_called_where_it_is_on_no_path(
    stage: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys, "argv", [".venv/bin/claude-jobs"])
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(demo, "root_tasks", lambda: ["stub:say=a"])
    monkeypatch.setattr(demo, "invitation", lambda: "stub:say=b")
    where = console()
    demo.run_demo(where)
    called = ".venv/bin/claude-jobs"
    assert said(where).endswith(f"The demo in the browser: {called} demo --web. Your own jobs: {called} web\n")

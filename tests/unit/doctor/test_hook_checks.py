"""What `claude-jobs doctor` says of hooks: without running them, and with a test message."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from jobs.settings import Settings
from server.checks import Finding
from server.hook_checks import check_hooks
from tests.support.receiver import receiving


def found(home: Path, *, tried: bool = False, environ: dict[str, str] | None = None, **settings: Any) -> list[Finding]:
    """What is found for a person whose home this is."""
    given = {"PATH": os.environ["PATH"], "HOME": str(home)} if environ is None else environ
    return list(check_hooks(Settings(home=home, **settings), given, tried=tried))


def test_where_nothing_is_set_nothing_is_found(tmp_path: Path):
    assert found(tmp_path) == []


def test_a_person_who_tries_hooks_where_none_is_set_is_told_so_and_that_is_no_error(tmp_path: Path):
    [finding] = found(tmp_path, tried=True)
    assert (finding.mark, finding.detail.partition(":")[0]) == (
        "note",
        "none of on_end, on_attention and desktop_notices is set",
    )
    assert "config.toml" in finding.remedy


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("no-such-program --at all", "there is no program no-such-program"),
        ("FOO=1 no-such-program", "there is no program no-such-program"),
        ("/no/such/program", "there is no program /no/such/program"),
        ("echo 'half a text", "the shell cannot read this command"),
        ("no-such-program; cat", "there is no program no-such-program"),
        ("cat >told", None),
        ("cat>told", None),
        ("cat|cat", None),
        ("true; cat", None),
        ("(cd / && cat)", None),
        ("{ true; cat; }", None),
        (">told cat", None),
        ("if true; then cat; fi", None),
        ("FOO=1 cat", None),
        ("test -e x", None),
        # What they are is known only when they run.
        ("$EDITOR x", None),
        ("`which-one` x", None),
        ("# nothing", None),
        ("https://example.com/a-secret-path", None),
    ],
)
def test_a_command_whose_program_is_not_there_is_named_and_none_is_run(
    tmp_path: Path, command: str, problem: str | None
):
    [finding] = found(tmp_path, on_end=command)
    assert finding.name == "on_end"
    assert finding.mark == ("note" if problem else "ok")
    assert finding.detail.endswith(f"{command}: {problem}" if problem else finding.detail)
    assert "doctor --hooks" in finding.remedy
    assert "a-secret-path" not in finding.detail
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("environ", [{"PATH": os.environ["PATH"]}, {"PATH": os.environ["PATH"], "HOME": "/no/home"}])
def test_a_command_of_a_person_without_a_home_is_found_and_run_all_the_same(tmp_path: Path, environ: dict[str, str]):
    [finding] = found(tmp_path, tried=True, environ=environ, on_end="test $(pwd) = /")
    assert (finding.mark, finding.detail) == ("ok", "test $(pwd) = /, a test message was taken")


def test_a_shell_that_does_not_answer_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("server.hook_checks.LOOK_SECONDS", 0.0)
    [finding] = found(tmp_path, on_end="cat")
    assert finding.mark == "note"
    assert "cat: the shell does not run: " in finding.detail


def test_each_hook_is_sent_a_test_message_of_its_own(tmp_path: Path):
    with receiving() as receiver:
        end, attention = found(tmp_path, tried=True, on_end="cat >told", on_attention=receiver.url)
    assert (end.detail, end.mark) == ("cat >told, a test message was taken", "ok")
    assert (attention.name, attention.mark) == ("on_attention", "ok")
    assert attention.detail.endswith("/…, a test message was taken")
    told = [json.loads((tmp_path / "told").read_text()), receiver.got[0][-1]]
    assert [message["event"] for message in told] == ["test", "test"]
    assert ["on_end" in told[0]["task"], "on_attention" in told[1]["task"]] == [True, True]


def test_a_hook_that_takes_no_test_message_says_why_and_one_that_is_not_there_is_not_tried(tmp_path: Path):
    end, attention = found(tmp_path, tried=True, on_end="echo no good; exit 3", on_attention="no-such-program; touch x")
    assert (end.mark, end.detail) == ("error", "echo no good; exit 3: it exited with 3: no good")
    assert attention.mark == "error"
    assert attention.detail == "no-such-program; touch x: there is no program no-such-program"
    assert not (tmp_path / "x").exists()


def test_a_desktop_is_asked_for_its_program_and_shown_a_test_message(tmp_path: Path):
    environ = {"PATH": str(tmp_path), "HOME": str(tmp_path)}

    def look(*, tried: bool) -> Finding:
        [finding] = found(tmp_path, tried=tried, environ=environ, desktop_notices=True)
        return finding

    absent = look(tried=True)
    assert (absent.name, absent.mark) == ("desktop_notices", "error")
    assert "no program shows notices on this desktop" in absent.detail
    assert "Install notify-send" in absent.remedy
    for name in ("notify-send", "osascript"):
        (tmp_path / name).write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >{tmp_path}/shown\n')
        (tmp_path / name).chmod(0o755)
    assert look(tried=False).mark == "ok"
    assert not (tmp_path / "shown").exists()
    assert look(tried=True).detail.endswith(", a test message was taken")
    assert "A test of on_end" in (tmp_path / "shown").read_text()

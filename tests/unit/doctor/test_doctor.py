"""What `claude-jobs doctor` finds, and what it says to do about it."""

from pathlib import Path
from typing import Any

import pytest

from server import checks
from server.cli import engine
from tests.support.engines import House
from tests.unit.conftest import Invoke


def program(path: Path, body: str) -> Path:
    """Write a shell script that can be run."""
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def test_doctor_finds_what_there_is(invoke: Invoke, quarters: House, monkeypatch: pytest.MonkeyPatch):
    claude = program(quarters.base / "claude", "echo 2.1.330")
    monkeypatch.setenv("CLAUDE_JOBS_CLI", str(claude))
    result = invoke("doctor")
    assert result.exit_code == 0, result.stdout
    assert f"claude: {claude}, 2.1.330" in result.stdout
    assert "ANTHROPIC_API_KEY" in result.stdout
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-fake-not-real")
    assert "sk-fake" not in invoke("doctor").stdout


def test_doctor_says_what_is_missing_and_how_to_get_it(invoke: Invoke, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CLAUDE_JOBS_CLI", "/no/such/claude")
    result = invoke("doctor")
    assert result.exit_code == 1
    assert "error  claude: not found" in result.stdout
    assert "Correct CLAUDE_JOBS_CLI, or `cli` in config.toml, or unset it; then try again." in result.stdout


@pytest.mark.parametrize("body", ["exit 1", "kill -9 $$", "exec /nonexistent"])
def test_doctor_reports_a_claude_that_does_not_start(
    invoke: Invoke, quarters: House, monkeypatch: pytest.MonkeyPatch, body: str
):
    monkeypatch.setenv("CLAUDE_JOBS_CLI", str(program(quarters.base / "broken", body)))
    result = invoke("doctor")
    assert result.exit_code == 1
    assert "does not say its version" in result.stdout


def test_a_wrapper_that_keeps_the_version_to_itself_is_a_note_since_jobs_run_with_it(
    invoke: Invoke, quarters: House, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CLAUDE_JOBS_CLI", str(program(quarters.base / "wrapper", "echo hello")))
    result = invoke("doctor")
    assert result.exit_code == 0, result.stdout
    assert "   note  claude:" in result.stdout
    assert "does not say its version" in result.stdout


def test_doctor_does_not_say_what_jobs_get_where_the_settings_are_refused(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CLAUDE_JOBS_PASS_ENVIRONMENT", "{")
    result = invoke("doctor")
    assert result.exit_code == 1
    assert "CLAUDE_JOBS_PASS_ENVIRONMENT" in result.stdout
    assert "jobs get every variable" not in result.stdout
    assert "Environment:" not in result.stdout


def test_doctor_reports_a_state_directory_that_others_can_write_to(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    monkeypatch.setenv("CLAUDE_JOBS_HOME", str(tmp_path / "open"))
    result = invoke("doctor")
    assert result.exit_code == 1
    assert "error  State directory" in result.stdout
    assert "chmod 700" in result.stdout


@pytest.fixture
def configured(invoke: Invoke, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The settings file of a state directory in which no engine runs, with nothing said about `claude` elsewhere."""
    monkeypatch.setenv("CLAUDE_JOBS_HOME", str(home))
    monkeypatch.delenv("CLAUDE_JOBS_CLI")
    return home / "config.toml"


def test_doctor_looks_for_the_claude_that_the_settings_file_names(invoke: Invoke, home: Path, configured: Path):
    claude = program(home / "claude", "echo 2.1.330")
    configured.write_text(f"cli = '{claude}'\n")
    result = invoke("doctor")
    assert result.exit_code == 0, result.stdout
    assert f"claude: {claude}, 2.1.330" in result.stdout
    assert f"ok  Settings: {configured}" in result.stdout


def test_doctor_says_that_there_is_no_settings_file_where_there_is_none(invoke: Invoke, configured: Path):
    found = invoke("doctor").stdout
    assert f"Settings: from variables and defaults; there is no file {configured}" in found


def test_doctor_names_the_variable_of_a_bad_value_and_an_example(
    invoke: Invoke, configured: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CLAUDE_JOBS_MAX_DEPTH", "deep")
    found = invoke("doctor").stdout
    assert "error  Settings: cannot be used" in found
    assert "CLAUDE_JOBS_MAX_DEPTH: it is not a whole number ('deep'). For example: CLAUDE_JOBS_MAX_DEPTH=5" in found


def test_doctor_says_what_is_wrong_with_the_settings(invoke: Invoke, home: Path, configured: Path):
    claude = program(home / "claude", "echo 2.1.330")
    configured.write_text(f"cli = '{claude}'\nmax_depht = 3\n")
    result = invoke("doctor")
    assert result.exit_code == 1
    assert "error  Settings: cannot be used" in result.stdout
    assert "Did you mean 'max_depth'?" in result.stdout


def test_doctor_notes_a_variable_that_is_no_setting(invoke: Invoke, quarters: House, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CLAUDE_JOBS_CLI", str(program(quarters.base / "fine", "echo 2.1.330")))
    monkeypatch.setenv("CLAUDE_JOBS_MAX_DEPHT", "9")
    monkeypatch.setenv("CLAUDE_JOBS_MAX_DEPTH", "4")
    result = invoke("doctor")
    assert result.exit_code == 0, result.stdout
    assert "note  Settings: CLAUDE_JOBS_MAX_DEPHT is no setting" in result.stdout


def test_doctor_runs_claude_with_the_persons_path(invoke: Invoke, quarters: House, monkeypatch: pytest.MonkeyPatch):
    tools = quarters.base / "tools"
    tools.mkdir()
    program(tools / "runtime", "echo 2.1.330")
    monkeypatch.setenv("CLAUDE_JOBS_CLI", str(program(quarters.base / "wrapper", "exec runtime")))
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    result = invoke("doctor")
    assert result.exit_code == 0, result.stdout
    assert "wrapper, 2.1.330" in result.stdout


@pytest.mark.parametrize("command", ["doctor", "engine status", "engine status --json", "engine stop", "prune"])
def test_an_engine_that_cannot_answer_is_a_line_and_no_traceback(
    invoke: Invoke, quarters: House, monkeypatch: pytest.MonkeyPatch, command: str
):
    def broken(*_: Any) -> dict[str, Any]:
        return {"ok": False, "error": "The job database cannot be read: disk I/O error."}

    monkeypatch.setenv("CLAUDE_JOBS_CLI", str(program(quarters.base / "fine", "echo 2.1.330")))
    for module in (checks, engine):
        monkeypatch.setattr(module, "control", broken)
    result = invoke(*command.split())
    assert result.exit_code == 1
    assert not isinstance(result.exception, KeyError)
    said = result.stdout if command == "doctor" or "--json" in command else result.stderr
    assert "disk I/O error" in said

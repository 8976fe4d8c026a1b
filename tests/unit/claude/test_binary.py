import importlib.machinery
import importlib.util
import sys
import tempfile
from pathlib import Path

import anyio
import pytest

from jobs.claude import binary
from jobs.claude.binary import OLDEST_VERSION, ClaudeFinder
from jobs.errors import BadInputError, ClaudeNotFoundError, ClaudeTooOldError
from jobs.processes.process import refused_for_now


def executable(path: Path, mode: int = 0o755, *, body: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(mode)
    return path


def find_claude(explicit: str | None, path: str | None) -> Path:
    return ClaudeFinder(ask_wrappers=True).find(explicit, path).path


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    package = tmp_path / "site" / "claude_agent_sdk"
    spec = importlib.machinery.ModuleSpec("claude_agent_sdk", None, is_package=True)
    spec.submodule_search_locations = [str(package)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    return package / "_bundled" / "claude"


def test_an_explicit_path_comes_first(tmp_path: Path, bundle: Path) -> None:
    mine, other = executable(tmp_path / "mine"), executable(tmp_path / "bin" / "claude")
    assert find_claude(str(mine), str(other.parent)) == mine


@pytest.mark.parametrize("mode", [None, 0o644])
def test_an_explicit_path_that_cannot_run_is_an_error_and_not_passed_over(
    tmp_path: Path, bundle: Path, mode: int | None
) -> None:
    executable(bundle)
    if mode is not None:
        executable(tmp_path / "mine", mode)
    with pytest.raises(ClaudeNotFoundError, match="mine"):
        find_claude(str(tmp_path / "mine"), None)


def test_the_clients_path_comes_before_the_bundle(tmp_path: Path, bundle: Path) -> None:
    executable(bundle)
    executable(tmp_path / "a" / "claude", 0o644)
    found = executable(tmp_path / "b" / "claude")
    assert find_claude(None, f"{tmp_path}/a:{tmp_path}/b") == found


def test_a_relative_entry_of_the_path_is_not_looked_at(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executable(bundle)
    executable(tmp_path / "claude")
    monkeypatch.chdir(tmp_path)
    assert find_claude(None, ":.") == bundle


def test_where_there_is_none_the_error_names_the_places(tmp_path: Path, bundle: Path) -> None:
    with pytest.raises(ClaudeNotFoundError) as caught:
        find_claude(None, str(tmp_path))
    assert caught.value.looked == (f"PATH ({tmp_path})", str(bundle))


def test_an_empty_setting_is_none(tmp_path: Path, bundle: Path) -> None:
    assert find_claude("", str(executable(tmp_path / "bin" / "claude").parent)) == tmp_path / "bin" / "claude"


def test_a_bare_name_is_looked_up_on_the_clients_path(tmp_path: Path, bundle: Path) -> None:
    executable(bundle)
    found = executable(tmp_path / "b" / "claude-next")
    assert find_claude("claude-next", f"{tmp_path}/a:{tmp_path}/b") == found
    with pytest.raises(ClaudeNotFoundError, match="claude-next"):
        find_claude("claude-next", f"{tmp_path}/a")


def test_a_relative_path_is_refused_whatever_the_directory_holds(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executable(tmp_path / "b" / "claude")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInputError, match="'b/claude' is a relative path"):
        find_claude("b/claude", None)


def test_what_is_too_old_on_the_path_is_passed_over_and_named(tmp_path: Path, bundle: Path) -> None:
    old = executable(tmp_path / "a" / "claude", body="echo '2.1.190 (Claude Code)'")
    new = executable(tmp_path / "b" / "claude", body=f"echo '{OLDEST_VERSION} (Claude Code)'")
    found = ClaudeFinder(ask_wrappers=True).find(None, f"{tmp_path}/a:{tmp_path}/b")
    assert (found.path, found.version, found.passed_over) == (new, OLDEST_VERSION, (f"{old} (2.1.190)",))
    executable(bundle, body="echo 3.0.0")
    assert find_claude(None, f"{tmp_path}/a") == bundle


def test_where_all_are_too_old_the_error_names_them_and_the_version_needed(tmp_path: Path, bundle: Path) -> None:
    old = executable(tmp_path / "a" / "claude", body="echo '2.1.190 (Claude Code)'")
    for explicit, path in ((None, f"{tmp_path}/a"), (str(old), None), ("claude", f"{tmp_path}/a")):
        with pytest.raises(ClaudeTooOldError, match=f"2.1.190.*{OLDEST_VERSION} or newer"):
            ClaudeFinder(ask_wrappers=True).find(explicit, path)


@pytest.mark.parametrize("body", ["exit 1", 'echo \'{"claude_code_version":"2.1.1"}\'', "echo claude", "kill -9 $$"])
def test_what_does_not_say_its_version_is_taken(tmp_path: Path, bundle: Path, body: str) -> None:
    mine = executable(tmp_path / "mine", body=body)
    found = ClaudeFinder(ask_wrappers=True).find(str(mine), None)
    assert (found.path, found.version) == (mine, None)


def test_without_room_for_an_empty_home_the_version_is_unknown_for_now(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = executable(tmp_path / "claude", body="echo '2.1.190 (Claude Code)'")
    finder = ClaudeFinder()
    with monkeypatch.context() as full:
        full.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
        assert finder.find(None, str(tmp_path)).path == old
    with pytest.raises(ClaudeTooOldError):
        finder.find(None, str(tmp_path))


def test_a_binary_is_asked_for_its_version_once_until_it_changes(tmp_path: Path, bundle: Path) -> None:
    log = tmp_path / "log"
    mine = executable(tmp_path / "mine", body=f"echo asked >>{log}; echo 2.1.400")
    finder = ClaudeFinder(ask_wrappers=True)
    for _ in range(5):
        finder.find(str(mine), None)
    assert log.read_text() == "asked\n"
    executable(mine, body=f"echo asked >>{log}; echo 2.1.1; # another size")
    with pytest.raises(ClaudeTooOldError):
        finder.find(str(mine), None)


async def test_a_binary_that_an_update_took_away_is_waited_for(tmp_path: Path, bundle: Path) -> None:
    mine = executable(tmp_path / "mine")
    finder = ClaudeFinder(ask_wrappers=True)
    await finder.find_in_thread(str(mine), None)
    mine.unlink()
    # A submit is not refused meanwhile: the launch waits.
    await finder.check(str(mine), None)
    async with anyio.create_task_group() as group:
        group.start_soon(finder.wait_for_update, str(mine), None)
        await anyio.wait_all_tasks_blocked()
        executable(mine)
    assert (await finder.find_in_thread(str(mine), None)).path == mine


def test_where_none_is_found_the_error_says_how_to_get_one(tmp_path: Path, bundle: Path) -> None:
    with pytest.raises(ClaudeNotFoundError, match="Install Claude Code, or `pip install 'claude-jobs\\[cli\\]'`"):
        find_claude(None, str(tmp_path))
    with pytest.raises(ClaudeNotFoundError, match="Correct CLAUDE_JOBS_CLI"):
        find_claude("nosuch", str(tmp_path))


@pytest.mark.parametrize("explicit", [None, "claude"])
async def test_no_other_version_takes_the_place_of_a_binary_in_an_update(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch, explicit: str | None
) -> None:
    first, second = executable(tmp_path / "a" / "claude"), executable(tmp_path / "b" / "claude")
    where = explicit, f"{first.parent}:{second.parent}"
    finder = ClaudeFinder()
    await finder.find_in_thread(*where)
    first.unlink()
    await finder.check(*where)
    with pytest.raises(ClaudeNotFoundError) as missing:
        await finder.find_in_thread(*where)
    assert refused_for_now(missing.value)

    monkeypatch.setattr(binary, "UPDATE_SECONDS", 0.0)
    assert (await finder.find_in_thread(*where)).path == second


async def test_a_link_to_nothing_is_waited_for_and_then_passed_over(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, second = tmp_path / "a" / "claude", executable(tmp_path / "b" / "claude")
    link.parent.mkdir()
    link.symlink_to(tmp_path / "versions" / "1")
    where = None, f"{link.parent}:{second.parent}"
    finder = ClaudeFinder()
    await finder.check(*where)
    async with anyio.create_task_group() as group:
        group.start_soon(finder.wait_for_update, *where)
        await anyio.wait_all_tasks_blocked()
        executable(tmp_path / "versions" / "1")
    assert (await finder.find_in_thread(*where)).path == link

    (tmp_path / "versions" / "1").unlink()
    monkeypatch.setattr(binary, "UPDATE_SECONDS", 0.0)
    assert (await finder.find_in_thread(*where)).path == second


async def test_a_binary_that_was_never_there_is_not_waited_for(tmp_path: Path, bundle: Path) -> None:
    finder = ClaudeFinder(ask_wrappers=True)
    with anyio.fail_after(60), pytest.raises(ClaudeNotFoundError):
        await finder.wait_for_update(str(tmp_path / "mine"), None)
    with pytest.raises(ClaudeNotFoundError):
        await finder.check(str(tmp_path / "mine"), None)


def test_a_binary_that_is_being_written_is_missing_for_now(tmp_path: Path, bundle: Path) -> None:
    # A compiled program: of a script the kernel opens the interpreter.
    mine = tmp_path / "mine"
    mine.write_bytes(Path("/bin/true").read_bytes())
    mine.chmod(0o755)
    with mine.open("r+b"), pytest.raises(ClaudeNotFoundError, match="being written"):
        find_claude(str(mine), None)
    assert find_claude(str(mine), None) == mine


@pytest.mark.parametrize("interpreter", ["/bin/sh", "/bin/bash -e", "/usr/bin/env bash", "/usr/bin/env -S dash"])
def test_a_shell_script_is_not_run_for_its_version_before_a_launch(tmp_path: Path, interpreter: str) -> None:
    mine = tmp_path / "mine"
    mine.write_text(f"#!{interpreter}\ntouch {tmp_path}/ran\necho 2.1.1\n")
    mine.chmod(0o755)
    assert ClaudeFinder().find(str(mine), None).version is None
    assert not (tmp_path / "ran").exists()


def test_another_script_is_run_for_its_version(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text(f"#!{sys.executable}\nprint('2.1.1')\n")
    mine.chmod(0o755)
    with pytest.raises(ClaudeTooOldError):
        ClaudeFinder().find(str(mine), None)


def test_a_shell_script_on_the_path_is_asked_since_a_later_one_may_work(tmp_path: Path, bundle: Path) -> None:
    executable(tmp_path / "a" / "claude", body="echo 2.1.1")
    new = executable(tmp_path / "b" / "claude", body=f"echo {OLDEST_VERSION}")
    assert ClaudeFinder().find(None, f"{tmp_path}/a:{tmp_path}/b").path == new


async def test_a_binary_that_does_not_come_back_fails_the_next_job_at_once(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binary, "UPDATE_SECONDS", 0.05)
    mine = executable(tmp_path / "mine")
    finder = ClaudeFinder()
    await finder.find_in_thread(str(mine), None)
    mine.unlink()
    with pytest.raises(ClaudeNotFoundError) as missing:
        await finder.find_in_thread(str(mine), None)
    assert refused_for_now(missing.value)
    with pytest.raises(ClaudeNotFoundError):
        await finder.wait_for_update(str(mine), None)
    with pytest.raises(ClaudeNotFoundError) as gone:
        await finder.find_in_thread(str(mine), None)
    assert not refused_for_now(gone.value)


async def test_a_binary_that_was_found_a_moment_ago_is_looked_for_at_the_launch_alone(
    tmp_path: Path, bundle: Path
) -> None:
    mine = executable(tmp_path / "mine")
    finder = ClaudeFinder(ask_wrappers=True)
    await finder.check(str(mine), None)
    executable(mine, body="echo 1.0.0")
    await finder.check(str(mine), None)
    with pytest.raises(ClaudeTooOldError):
        await finder.find_in_thread(str(mine), None)

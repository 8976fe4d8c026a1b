import importlib.machinery
import importlib.util
from pathlib import Path

import pytest

from jobs.claude.binary import find_claude
from jobs.errors import ClaudeNotFoundError


def executable(path: Path, mode: int = 0o755) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(mode)
    return path


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

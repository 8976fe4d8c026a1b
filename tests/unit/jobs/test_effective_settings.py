"""Whose values an engine takes at its start, what the file changes in it, and what a client with others is told."""

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs import kept_settings
from jobs.effective_settings import EffectiveSettings
from jobs.errors import BadInputError
from jobs.settings import SettingScope, names
from jobs.settings_sources import (
    ClientVariables,
    InvalidSettingsError,
    LoadedSettings,
    known_variables,
    load,
    variable_of,
)
from server.client.spawn_engine import A_JOB, engine_environment
from server.client.wire import JOB_MARKERS, STARTED_BY, setting_variables

PERSON = ClientVariables(values={"CLAUDE_JOBS_MAX_DEPTH": "2", "CLAUDE_MAX_TOTAL_JOBS": "4"}, client="Ann")
JOB = ClientVariables(values={"CLAUDE_JOBS_MAX_DEPTH": "99", "CLAUDE_JOBS_MAX_CHILDREN": "9"}, client=A_JOB)


def started(home: Path, by: ClientVariables, *, by_person: bool = True, jobs_live: bool = False) -> EffectiveSettings:
    return EffectiveSettings.choose(home, by, by_person=by_person, jobs_live=jobs_live)


def limits(engine: EffectiveSettings) -> tuple[int, int, int]:
    return engine.settings.max_depth, engine.settings.max_jobs, engine.settings.max_children


def write_later(path: Path, text: str) -> None:
    """Write a file so that its time of change differs, however fast the test is."""
    before = path.stat().st_mtime_ns if path.exists() else 0
    path.write_text(text)
    os.utime(path, ns=(before + 1, before + 1))


@pytest.mark.parametrize(("by_person", "jobs_live"), [(False, False), (False, True), (True, True)])
def test_an_engine_started_for_a_job_or_over_live_jobs_takes_what_was_kept(
    tmp_path: Path, by_person: bool, jobs_live: bool
):
    started(tmp_path, PERSON)
    engine = started(tmp_path, JOB, by_person=by_person, jobs_live=jobs_live)
    assert limits(engine) == (2, 4, 100)
    row = next(row for row in engine.table(None) if row["setting"] == "max_depth")
    assert row["source"] == "environment CLAUDE_JOBS_MAX_DEPTH of Ann, kept from an earlier engine"
    # What was kept stays what it is, however many engines follow.
    assert limits(started(tmp_path, JOB, by_person=False)) == (2, 4, 100)


def test_where_nothing_was_kept_a_job_still_gives_nothing(tmp_path: Path):
    (tmp_path / "config.toml").write_text("max_jobs = 7\n")
    assert limits(started(tmp_path, JOB, by_person=False, jobs_live=True)) == (5, 7, 100)


def test_where_nothing_was_kept_a_persons_limits_hold_over_live_jobs_too(tmp_path: Path):
    assert limits(started(tmp_path, PERSON, jobs_live=True)) == (2, 4, 100)
    assert limits(started(tmp_path, JOB, by_person=False, jobs_live=True)) == (2, 4, 100)


def test_the_next_person_decides_once_no_job_is_live(tmp_path: Path):
    started(tmp_path, PERSON)
    assert limits(started(tmp_path, ClientVariables(values={"CLAUDE_JOBS_MAX_DEPTH": "3"}))) == (3, 1000, 100)


def test_a_person_who_starts_an_engine_is_told_once_what_the_one_before_had_from_another(tmp_path: Path):
    started(tmp_path, PERSON)
    engine = started(tmp_path, ClientVariables(values={"CLAUDE_JOBS_MAX_DEPTH": "3"}, client="Bob"))
    # She chose her own depth; of the number of jobs she said nothing.
    assert engine.take_dropped() == (
        "This engine starts with your settings, and the one before had others: max_jobs is 1000 (default), not 4 "
        "(older variable CLAUDE_MAX_TOTAL_JOBS of Ann, kept from an earlier engine). "
        f"Write what is to hold for every client into {tmp_path / 'config.toml'}."
    )
    assert engine.take_dropped() is None
    assert started(tmp_path, PERSON).take_dropped() is None
    assert started(tmp_path, PERSON).take_dropped() is None
    assert started(tmp_path, JOB, by_person=False).take_dropped() is None


def test_the_file_as_it_is_now_counts_below_what_was_kept(tmp_path: Path):
    started(tmp_path, PERSON)
    (tmp_path / "config.toml").write_text("max_depth = 8\nmax_children = 8\n")
    assert limits(started(tmp_path, JOB, by_person=False)) == (2, 4, 8)


@pytest.mark.parametrize(
    "text", ["", "[]", "5", "{", '{"variables": 5}', '{"format": 9, "variables": {"A": []}}', "\udcff", "[" * 100_000]
)
def test_a_kept_file_that_is_damaged_does_not_keep_an_engine_from_starting(tmp_path: Path, text: str):
    (tmp_path / kept_settings.FILE).write_bytes(text.encode("utf-8", "surrogateescape"))
    assert limits(started(tmp_path, JOB, by_person=False)) == (5, 1000, 100)


def test_a_kept_value_that_this_version_cannot_use_is_left_out(tmp_path: Path):
    kept_settings.write(tmp_path, PERSON)
    path = tmp_path / kept_settings.FILE
    kept = json.loads(path.read_text())
    kept["variables"] |= {"CLAUDE_JOBS_COLOUR": "red", "CLAUDE_JOBS_MAX_CHILDREN": "lots", "CLAUDE_JOBS_CLI": "/c"}
    kept["variables"] |= {"CLAUDE_JOBS_MAX_CONCURRENT": "{", "CLAUDE_MAX_TOTAL_JOBS": "-1"}
    path.write_text(json.dumps(kept))
    assert limits(started(tmp_path, JOB, by_person=False)) == (2, 1000, 100)


@pytest.mark.timeout(10)
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/etc/hostname")])
def test_what_a_job_puts_in_the_files_place_holds_up_no_engine(tmp_path: Path, make: Callable[[Path], None]):
    make(tmp_path / kept_settings.FILE)
    assert kept_settings.read(tmp_path) is None


def test_what_is_kept_is_for_this_user_alone_and_holds_settings_only(tmp_path: Path):
    path = tmp_path / kept_settings.FILE
    (tmp_path / f"{kept_settings.FILE}.new").write_text("left by a crash")
    kept_settings.write(
        tmp_path, ClientVariables(values={"CLAUDE_JOBS_CLI": "/c", "CLAUDE_JOBS_HOME": "/h", "PATH": ""})
    )
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text())["variables"] == {"CLAUDE_JOBS_CLI": "/c"}
    assert [entry.name for entry in tmp_path.iterdir()] == [kept_settings.FILE]


def test_a_disk_that_keeps_nothing_does_not_keep_an_engine_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(home: Path, variables: ClientVariables) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("jobs.kept_settings.write", full)
    assert limits(started(tmp_path, PERSON)) == (2, 4, 100)


def test_a_wrong_value_of_a_person_or_of_the_file_is_an_error_at_the_start(tmp_path: Path):
    with pytest.raises(InvalidSettingsError, match="CLAUDE_JOBS_MAX_DEPTH: it is not a whole number"):
        started(tmp_path, ClientVariables(values={"CLAUDE_JOBS_MAX_DEPTH": "deep"}))
    (tmp_path / "config.toml").write_text("max_jobs = 0\n")
    for by_person in (True, False):
        with pytest.raises(InvalidSettingsError, match=r"config\.toml, max_jobs: it must be more than 0"):
            started(tmp_path, ClientVariables(values={}), by_person=by_person)
    (tmp_path / "config.toml").write_text("max_jbos = 1\n")
    with pytest.raises(BadInputError, match="Did you mean 'max_jobs'"):
        started(tmp_path, ClientVariables(values={}))


def test_a_file_that_changes_while_a_trees_settings_are_read_counts_for_the_next_tree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    engine, path, real = started(tmp_path, PERSON), tmp_path / "config.toml", load

    def changed_meanwhile(*arguments: Any) -> LoadedSettings:
        loaded = real(*arguments)
        write_later(path, "permission_mode = 'plan'\n")
        engine.refresh()
        return loaded

    monkeypatch.setattr("jobs.effective_settings.load", changed_meanwhile)
    assert engine.for_tree({}).permission_mode == "acceptEdits"
    monkeypatch.undo()
    assert engine.for_tree({}).permission_mode == "plan"


def test_a_change_of_the_file_holds_where_that_is_safe_and_is_told_where_not(tmp_path: Path):
    engine, path = started(tmp_path, PERSON), tmp_path / "config.toml"
    assert engine.refresh() is False
    write_later(path, "max_task_chars = 9\nmax_children = 7\nmax_depth = 6\npermission_mode = 'plan'\n")
    assert engine.refresh() is True
    assert engine.refresh() is False
    assert (engine.settings.max_task_chars, *limits(engine)) == (9, 2, 4, 100)
    assert engine.for_tree({}).permission_mode == "plan"
    assert engine.for_tree(None).permission_mode == "plan"
    # Her variable hides the file's max_depth, now and at the next start.
    said = engine.notice({}, jobs_live=False)
    assert said is not None
    assert f"max_children is 100 (default), not 7 ({path})" in said
    assert "max_depth" not in said
    path.unlink()
    assert engine.refresh() is True
    assert engine.settings.max_task_chars == 1_000_000
    assert engine.notice({}, jobs_live=False) is None


def test_a_value_that_leaves_the_file_and_needs_a_restart_is_told(tmp_path: Path):
    path = tmp_path / "config.toml"
    path.write_text("max_children = 7\n")
    engine = started(tmp_path, PERSON)
    write_later(path, "")
    engine.refresh()
    assert f"max_children is 7 ({path}), not 100 (default)" in str(engine.notice({}, jobs_live=False))


@pytest.mark.parametrize("text", ["max_task_chars = 'ten'\n", "max_task_cahrs = 10\n", "= ="])
def test_a_file_that_changes_into_something_unusable_changes_nothing_and_is_told(tmp_path: Path, text: str):
    path = tmp_path / "config.toml"
    path.write_text("max_task_chars = 5\n")
    engine = started(tmp_path, PERSON)
    write_later(path, text)
    assert engine.refresh() is True
    assert engine.settings.max_task_chars == 5
    assert f"The settings file has changed and is not used: {path}" in str(engine.notice({}, jobs_live=False))


def test_a_person_with_other_values_is_told_each_of_them_and_what_to_run(tmp_path: Path):
    engine = started(tmp_path, PERSON)
    theirs = {"CLAUDE_JOBS_MAX_DEPTH": "7", "CLAUDE_JOBS_MAX_JOBS": "4", "CLAUDE_JOBS_PERMISSION_MODE": "plan"}
    assert engine.notice(theirs, jobs_live=False) == (
        "The running engine's settings are not all as you set them: max_depth is 2 (environment CLAUDE_JOBS_MAX_DEPTH "
        "of Ann), not 7 (your CLAUDE_JOBS_MAX_DEPTH). Run `claude-jobs engine stop`: the next engine takes the "
        "settings of the client that starts it."
    )
    assert "Once its jobs are over, run `claude-jobs engine stop`" in str(engine.notice(theirs, jobs_live=True))
    assert engine.notice(PERSON.values, jobs_live=False) is None
    assert engine.notice({}, jobs_live=False) is None


def test_what_a_person_is_told_is_one_line_without_control_characters(tmp_path: Path):
    values = {"CLAUDE_JOBS_TRUSTED_DIRECTORIES": json.dumps([f"/\x1b[2J\n{number}" for number in range(2000)])}
    engine = started(tmp_path, ClientVariables(values=PERSON.values, client="A\x1b[2J\nnn"))
    said = engine.notice(values | {"CLAUDE_JOBS_MAX_DEPTH": "\x1b[2J\n"}, jobs_live=False)
    assert said is not None
    assert len(said) <= 4000
    assert "\x1b" not in said
    assert "\n" not in said


def test_a_tree_takes_its_clients_values_and_the_engines_only_where_the_client_sends_none(tmp_path: Path):
    engine = started(tmp_path, ClientVariables(values={"CLAUDE_JOBS_CLI": "/ann", "CLAUDE_TIMEOUT_MULTIPLIER": "2"}))
    assert engine.for_tree({"CLAUDE_JOBS_CLI": "/bob"}).cli == "/bob"
    assert (engine.for_tree({}).cli, engine.for_tree({}).timeout_multiplier) == (None, None)
    assert (engine.for_tree(None).cli, engine.for_tree(None).timeout_multiplier) == ("/ann", 2.0)
    with pytest.raises(InvalidSettingsError, match="CLAUDE_JOBS_PERMISSION_MODE: it must be one of"):
        engine.for_tree({"CLAUDE_JOBS_PERMISSION_MODE": "god"})


def test_no_argument_or_variable_of_a_server_is_shown(tmp_path: Path):
    def servers(secret: str) -> dict[str, str]:
        one = {"command": "gh-server", "args": [f"{secret}-arg"], "env": {"TOKEN": f"{secret}-env"}}
        return {"CLAUDE_JOBS_MCP_SERVERS": json.dumps({"gh": one})}

    engine = started(tmp_path, ClientVariables(values=servers("one"), client="Ann"))
    said = json.dumps(engine.table(servers("other"))) + str(engine.notice(servers("other"), jobs_live=False))
    assert "gh-server" in said
    assert "-arg" not in said
    assert "-env" not in said


def test_every_setting_is_a_row_with_value_source_and_scope(tmp_path: Path):
    engine = started(tmp_path, PERSON)
    table = engine.table({"CLAUDE_JOBS_CLI": "/bob"})
    assert [row["setting"] for row in table] == list(names(*SettingScope))
    found = {row["setting"]: (row["value"], row["source"], row["scope"]) for row in table}
    assert found["cli"] == ("/bob", "environment CLAUDE_JOBS_CLI", "tree")
    assert found["max_jobs"] == (4, "older variable CLAUDE_MAX_TOTAL_JOBS of Ann", "engine, read at its start")
    assert found["keep_days"][1] == "default"


def test_every_variable_of_a_setting_goes_along_and_a_jobs_marks_do_not():
    named = dict.fromkeys([*known_variables(), *JOB_MARKERS, STARTED_BY, "PATH", "ANTHROPIC_API_KEY"], "v")
    assert setting_variables(named).keys() == known_variables().keys() - {variable_of("home")}


def test_a_jobs_client_starts_an_engine_with_no_setting_and_says_so():
    named = dict.fromkeys([*known_variables(), "PATH", "CLAUDE_MAX_OTHER"], "v")
    for_job = engine_environment(named, Path("/s"), for_job=True)
    assert for_job == {"PATH": "v", "CLAUDE_JOBS_HOME": "/s", STARTED_BY: A_JOB}
    marked = engine_environment({**named, "CLAUDE_JOBS_JOB": "j"}, Path("/s"))
    assert marked == for_job

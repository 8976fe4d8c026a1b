"""Whose settings an engine has: the person's, over crashes, idle leaves, other clients and the shell of a job."""

import json
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from jobs.processes.attempt_dir import AttemptDirectory
from server.client.wire import setting_variables
from tests.support.commands import run_command
from tests.support.engines import MAIN, SECONDS, House, Pump, house
from tests.support.waiting import until_now

HOLD = "stub:wait=/nonexistent"
LIMITS = {"CLAUDE_JOBS_MAX_DEPTH": "2", "CLAUDE_JOBS_MAX_JOBS": "4"}
STOP = "claude-jobs engine stop"


@pytest.fixture
def limited() -> Iterator[House]:
    """A house whose person limits her trees by environment."""
    with house(**LIMITS) as made:
        yield made


@pytest.fixture
def plain() -> Iterator[House]:
    with house() as made:
        yield made


def without_settings(environ: Mapping[str, str], **more: str) -> dict[str, str]:
    """The environment without every variable that is a setting."""
    return {name: value for name, value in environ.items() if name not in setting_variables(environ)} | more


def run_in(made: House, environ: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `claude-jobs` in an environment of its own, with nothing on its stdin."""
    return run_command(arguments, environ=environ, cwd=made.work, seconds=SECONDS)


def in_force(made: House, **environ: str) -> dict[str, Any]:
    done = made.run("settings", "--json", **environ)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["running"] is True
    return {row["setting"]: (row["value"], row["source"]) for row in found["settings"]}


def kill_engine(made: House) -> int:
    killed = made.kill_engine()
    made.wait_for_the_engine_to_go()
    return killed


def claude_that_says(base: Path, word: str) -> Path:
    """A `claude` whose answer is this word and its permission mode."""
    path = base / word
    frame = {"type": "result", "subtype": "success", "is_error": False, "num_turns": 1, "total_cost_usd": 0}
    line = json.dumps(frame | {"usage": {}, "session_id": "S", "result": f"{word} in mode MODE"})
    quoted = line.replace("MODE", "'$mode'")
    mode = "for each; do case $each in --permission-mode=*) mode=${each#*=};; esac; done"
    path.write_text(f"#!/bin/sh\nread -r a; read -r b\n{mode}\necho '{quoted}'\n")
    path.chmod(0o755)
    return path


class JobsPump:
    """The pump of a running job, with whatever environment somebody in the job made for it."""

    def __init__(self, made: House, job: Mapping[str, Any], environ: Mapping[str, str]) -> None:
        directory = attempt_of(made, job)
        self.process = subprocess.Popen(
            [sys.executable, str(MAIN), "mcp", "--home", str(made.paths.home), "--job", str(directory)],
            env=dict(environ),
            cwd=made.work,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def __enter__(self) -> Pump:
        pump = Pump(self.process)
        pump.shake_hands()
        return pump

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


def living_job(made: House) -> dict[str, Any]:
    """A job whose process runs until the test ends it."""
    with made.pump() as pump:
        started = pump.json("claude_run_async", task=HOLD)
        found = pump.json("claude_status", jobId=started["jobId"])
        job = {"jobId": started["jobId"], "rootJobId": found.get("rootJobId", started["jobId"])}
        until_now(lambda: AttemptDirectory(attempt_of(made, job)).shim_pid() is not None, 30.0, "the job's process")
    return job


def attempt_of(made: House, job: Mapping[str, Any]) -> Path:
    return made.paths.trees / str(job["rootJobId"]) / str(job["jobId"]) / "1"


@pytest.mark.parametrize("tricks", [{}, {"CLAUDE_JOBS_MAX_DEPTH": "99", "CLAUDE_MAX_TOTAL_JOBS": "99999"}])
def test_an_engine_that_a_jobs_pump_starts_after_a_kill_has_the_persons_settings(
    limited: House, tricks: dict[str, str]
):
    job = living_job(limited)
    kill_engine(limited)
    with JobsPump(limited, job, without_settings(limited.environ, **tricks)) as pump:
        found = in_force(limited)
        assert [found[name][0] for name in ("max_depth", "max_jobs")] == [2, 4]
        assert "CLAUDE_JOBS_MAX_DEPTH" in found["max_depth"][1]
        assert "kept from an earlier engine" in found["max_depth"][1]
        # The stub, and not the binary that an engine without the person's variables would find.
        children = pump.json("claude_run_batch_async", tasks=["stub:say=stub-child"] * 3)["jobIds"]
        assert pump.settled(children[0])["status"] == "completed"
        assert "4" in pump.refusal("claude_run_async", task="one too many")
    kept = limited.paths.home / "engine-settings.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_an_engine_that_starts_while_jobs_live_takes_nothing_from_its_starter(limited: House):
    living_job(limited)
    kill_engine(limited)
    # The caller may be a job's shell with a cleared environment.
    other = without_settings(limited.environ, CLAUDE_JOBS_MAX_DEPTH="99", CLAUDE_MAX_TOTAL_JOBS="7")
    done = run_in(limited, other, "list")
    assert done.returncode == 0, done.stderr
    assert "max_depth is 2" in done.stderr
    assert "not 99 (your CLAUDE_JOBS_MAX_DEPTH)" in done.stderr
    assert "Once its jobs are over" in done.stderr
    found = in_force(limited)
    assert [found[name][0] for name in ("max_depth", "max_jobs", "grace_seconds")] == [2, 4, 0.5]


def test_a_kept_setting_that_cannot_be_used_any_more_is_left_out_and_the_engine_starts(limited: House):
    job = living_job(limited)
    kill_engine(limited)
    path = limited.paths.home / "engine-settings.json"
    kept = json.loads(path.read_text())
    kept["variables"] |= {
        "CLAUDE_JOBS_MAX_JOBS": "lots",
        "CLAUDE_JOBS_COLOUR": "red",
        "CLAUDE_JOBS_MAX_CONCURRENT": "{",
    }
    path.write_text(json.dumps(kept))
    with JobsPump(limited, job, without_settings(limited.environ)):
        found = in_force(limited)
    assert (found["max_depth"][0], found["max_jobs"]) == (2, (1000, "default"))


def told(done: "subprocess.CompletedProcess[str]") -> str:
    """Return what a command said on stderr, without what it says of an empty list."""
    return done.stderr.replace("No jobs.\n", "")


def test_a_client_with_other_values_is_told_them_in_one_line_and_changes_nothing(limited: House):
    with limited.pump():
        pass
    other = {"CLAUDE_JOBS_MAX_DEPTH": "7", "CLAUDE_JOBS_MAX_JOBS": "4"}
    said = told(limited.run("list", **other)).strip()
    assert len(said.splitlines()) == 1
    assert "max_depth is 2 (environment CLAUDE_JOBS_MAX_DEPTH of " in said
    assert "not 7 (your CLAUDE_JOBS_MAX_DEPTH)" in said
    assert "max_jobs" not in said
    assert STOP in said
    assert told(limited.run("list")) == ""
    silent = run_in(limited, without_settings(limited.environ), "list")
    assert told(silent) == ""
    pumped = run_in(limited, {**limited.environ, **other}, "mcp")
    assert pumped.stderr == f"claude-jobs: {said}\n"
    assert in_force(limited)["max_depth"][0] == 2
    checked = limited.run("doctor", **other).stdout
    assert f"note  Settings: {said}" in checked
    assert "claude-jobs settings" in checked
    shown = limited.run("engine", "status", **other)
    assert "not 7 (your CLAUDE_JOBS_MAX_DEPTH)" in shown.stderr
    assert "max_depth" in shown.stdout
    # The command that the line names brings the client's own.
    limited.run("engine", "stop")
    limited.wait_for_the_engine_to_go()
    assert told(limited.run("list", **other)) == ""
    assert in_force(limited, **other)["max_depth"][0] == 7


def test_after_an_idle_leave_the_first_person_decides_and_the_other_is_told():
    with house(**LIMITS, CLAUDE_JOBS_IDLE_SECONDS="0.5") as made:
        made.run("list")
        made.wait_for_the_engine_to_go()
        done = run_in(made, without_settings(made.environ), "list")
        assert done.returncode == 0
        assert "max_depth is 5 (default), not 2 (environment CLAUDE_JOBS_MAX_DEPTH of claude-jobs list" in done.stderr
        assert str(made.paths.config) in done.stderr
        said = made.run("list").stderr
        assert "max_depth is 5 (default), not 2 (your CLAUDE_JOBS_MAX_DEPTH)" in said
        assert f"Run `{STOP}`" in said


def test_a_tree_has_the_settings_of_the_client_that_began_it(plain: House):
    one, other = (claude_that_says(plain.base, word) for word in ("one", "other"))
    # The first starts the engine; what the second brings counts for its own trees all the same.
    with plain.pump({"CLAUDE_JOBS_CLI": str(one)}) as first:
        with plain.pump({"CLAUDE_JOBS_CLI": str(other), "CLAUDE_DEFAULT_PERMISSION_MODE": "plan"}) as second:
            assert "other in mode plan" in second.text("claude_run", task="x")
        assert "one in mode acceptEdits" in first.text("claude_run", task="x")


def test_a_jobs_environment_cannot_change_what_its_tree_has_and_an_engines_restart_neither(plain: House):
    mine = claude_that_says(plain.base, "mine")
    evil = claude_that_says(plain.base, "evil")
    job = living_job(plain)
    path = plain.paths.trees / job["rootJobId"] / "origin.json"
    kept = json.loads(path.read_text())["settings"]
    assert kept["cli"] == plain.environ["CLAUDE_JOBS_CLI"]
    tricks = {"CLAUDE_JOBS_CLI": str(evil), "CLAUDE_JOBS_PERMISSION_MODE": "bypassPermissions"}
    for kill in (False, True):
        if kill:
            kill_engine(plain)
        with JobsPump(plain, job, {**plain.environ, **tricks}) as pump:
            child = pump.settled(pump.json("claude_run_async", task="stub:say=childs-answer")["jobId"])
            assert pump.text("claude_result", jobId=child["jobId"]).count("childs-answer")
            assert child["status"] == "completed"
    # Another person's value meanwhile is her own tree's.
    with plain.pump({"CLAUDE_JOBS_CLI": str(mine)}) as pump:
        assert pump.text("claude_run", task="x").count("mine")


def test_a_wrong_value_names_its_source_and_an_example_whoever_meets_it(plain: House):
    bad = {"CLAUDE_JOBS_MAX_DEPTH": "deep"}
    words = "CLAUDE_JOBS_MAX_DEPTH: it is not a whole number ('deep'). For example: CLAUDE_JOBS_MAX_DEPTH=5"
    for command in (("list",), ("engine",)):
        said = plain.run(*command, **bad).stderr
        assert words in said
        assert "Traceback" not in said
        assert "pydantic" not in said
    # The same end again and again: a client that waits for the engine starts it once.
    before = plain.paths.log.read_text().count(words)
    assert words in plain.run("mcp", **bad).stderr
    assert plain.paths.log.read_text().count(words) == before + 1
    plain.run("list")
    assert f"Not used: {words}" in plain.run("list", **bad).stderr
    refused = plain.run("list", CLAUDE_JOBS_PERMISSION_MODE="god")
    assert refused.returncode == 1
    assert "CLAUDE_JOBS_PERMISSION_MODE: it must be one of" in refused.stderr
    assert plain.run("engine", "status", CLAUDE_JOBS_PERMISSION_MODE="god").returncode == 0


def test_a_change_of_the_file_holds_at_once_where_that_is_safe_and_is_told_where_not(plain: House):
    plain.run("list")
    (plain.paths.config).write_text("max_task_chars = 10\nmax_depth = 3\npermission_mode = 'plan'\n")
    found = in_force(plain)
    assert found["max_task_chars"] == (10, str(plain.paths.config))
    assert found["permission_mode"] == ("plan", str(plain.paths.config))
    assert found["max_depth"] == (5, "default")
    with plain.pump({"CLAUDE_JOBS_CLI": str(claude_that_says(plain.base, "me"))}) as pump:
        assert "10" in pump.refusal("claude_run_async", task="a task of more than ten characters")
        assert "me in mode plan" in pump.text("claude_run", task="x")
    assert f"max_depth is 5 (default), not 3 ({plain.paths.config})" in plain.run("list").stderr
    plain.paths.config.write_text("max_task_chars = 'ten'\n")
    in_force(plain)
    said = plain.run("list").stderr
    assert f"The settings file has changed and is not used: {plain.paths.config}, max_task_chars: it is not" in said
    assert in_force(plain)["max_task_chars"][0] == 10
    plain.paths.config.unlink()
    assert in_force(plain)["max_task_chars"] == (1_000_000, "default")
    assert told(plain.run("list")) == ""


def test_no_secret_of_a_server_is_shown_and_the_kept_file_is_private():
    servers = json.dumps({"gh": {"command": "gh-server", "args": ["--key", "arg-secret"], "env": {"T": "env-secret"}}})
    with house(CLAUDE_JOBS_MCP_SERVERS=servers) as made:
        other = json.dumps({"gh": {"command": "gh-server", "env": {"T": "other-secret"}}})
        said = [made.run("settings"), made.run("settings", "--json"), made.run("engine", "status")]
        said += [
            made.run(*command, CLAUDE_JOBS_MCP_SERVERS=other) for command in (("list",), ("settings",), ("doctor",))
        ]
        said += [made.run("settings")]
        text = "".join(done.stdout + done.stderr for done in said)
        assert "gh-server" in text
        assert "mcp_servers is" in text
        assert "secret" not in text + made.paths.log.read_text()
        kept = made.paths.home / "engine-settings.json"
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_a_variable_that_is_no_setting_is_told_once_and_by_settings_never_hidden(plain: House):
    wrong = {"CLAUDE_JOBS_MAX_DETPH": "3"}
    said = told(plain.run("list", **wrong))
    assert said == (
        "CLAUDE_JOBS_MAX_DETPH is no setting. Did you mean CLAUDE_JOBS_MAX_DEPTH? `claude-jobs settings` lists them.\n"
    )
    assert told(plain.run("list", **wrong)) == ""
    assert "CLAUDE_JOBS_COLOUR is no setting." in told(plain.run("list", CLAUDE_JOBS_COLOUR="1", **wrong))
    assert "MAX_DETPH is no setting. Did you mean CLAUDE_JOBS_MAX_DEPTH?" in plain.run("doctor", **wrong).stdout


def test_a_key_of_the_file_that_is_no_setting_is_told_by_every_command(plain: House):
    plain.run("list")
    plain.paths.config.write_text("max_detph = 3\n")
    in_force(plain)
    assert "there is no setting 'max_detph'. Did you mean 'max_depth'?" in plain.run("list").stderr
    plain.run("engine", "stop")
    plain.wait_for_the_engine_to_go()
    refused = plain.run("list")
    assert refused.returncode == 1
    assert "there is no setting 'max_detph'. Did you mean 'max_depth'?" in refused.stderr


@pytest.mark.parametrize("command", [("list",), ("mcp",), ("engine", "status"), ("doctor",)])
def test_a_relative_state_directory_is_refused_by_every_command(plain: House, command: tuple[str, ...]):
    done = plain.run(*command, CLAUDE_JOBS_HOME="state")
    assert done.returncode == 1
    assert "relative path" in done.stdout + done.stderr
    assert "Set CLAUDE_JOBS_HOME to an absolute path." in done.stdout + done.stderr
    assert list(plain.work.iterdir()) == []


@pytest.mark.parametrize("command", [("list",), ("mcp",)])
def test_a_directory_of_other_things_is_not_closed_to_others_for_state(plain: House, command: tuple[str, ...]):
    shared = plain.base / "shared"
    shared.mkdir()
    shared.chmod(0o755)
    (shared / "novel.txt").touch()
    done = plain.run(*command, CLAUDE_JOBS_HOME=str(shared))
    assert done.returncode == 1
    assert "holds other files" in done.stderr
    assert stat.S_IMODE(shared.stat().st_mode) == 0o755
    assert [path.name for path in shared.iterdir()] == ["novel.txt"]
    # A settings file that a person wrote before the first engine is no such thing.
    (shared / "config.toml").touch()
    assert plain.run("list", CLAUDE_JOBS_HOME=str(shared)).returncode == 0
    assert stat.S_IMODE(shared.stat().st_mode) == 0o700
    plain.run("engine", "stop", CLAUDE_JOBS_HOME=str(shared))


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ("CLAUDE_JOBS_max_depth", " Did you mean CLAUDE_JOBS_MAX_DEPTH?"),
        ("CLAUDE_JOBS_MAX_RECURSION_DEPTH", " Did you mean CLAUDE_JOBS_MAX_DEPTH?"),
        ("CLAUDE_JOBS_X", ""),
    ],
)
def test_a_variable_that_is_no_setting_gets_the_name_that_is_like_it_or_none(plain: House, wrong: str, hint: str):
    assert told(plain.run("list", **{wrong: "3"})) == (
        f"{wrong} is no setting.{hint} `claude-jobs settings` lists them.\n"
    )


def test_the_table_of_settings_says_what_its_labels_mean(plain: House):
    shown = plain.run("settings").stdout
    assert {row["scope"] for row in json.loads(plain.run("settings", "--json").stdout)["settings"]} == {
        line[1:].partition("]")[0] for line in shown.splitlines() if line.startswith("[")
    }

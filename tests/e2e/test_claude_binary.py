"""Which `claude` runs the jobs of people who have several, an old one, or one that is just being updated."""

import json
import shutil
import sys
import threading
import time
from pathlib import Path

import pytest

from jobs.claude.binary import OLDEST_VERSION
from tests.support.engines import SECONDS, SHELL_STUB, SYSTEM_PATH, House, RefusedError, house
from tests.support.waiting import until_now


def old_claude(directory: Path) -> Path:
    """Put a `claude` into a directory that answers like what npm installs under Node 20."""
    return program(
        directory,
        "import sys\n"
        "if sys.argv[1:] == ['--version']: sys.exit(print('2.1.190 (Claude Code)'))\n"
        "sys.exit(\"error: unknown option '--await-initialize'\")\n",
    )


def new_claude(directory: Path) -> Path:
    """Put a `claude` into a directory that says a version that works, and otherwise is the stub."""
    return program(
        directory,
        "import os, sys\n"
        f"if sys.argv[1:] == ['--version']: sys.exit(print('{OLDEST_VERSION} (Claude Code)'))\n"
        f"os.execv('{SHELL_STUB}', ['claude', *sys.argv[1:]])\n",
    )


def program(directory: Path, text: str) -> Path:
    directory.mkdir(parents=True)
    claude = directory / "claude"
    claude.write_text(f"#!{sys.executable} -IS\n{text}")
    claude.chmod(0o755)
    return claude


def said(made: House, **environ: str) -> str:
    """Run one job and return everything that the person sees."""
    done = made.run("run", "stub:say=right", **environ)
    return f"{done.returncode} {done.stdout if done.returncode == 0 else done.stderr}"


@pytest.mark.parametrize("value", ["", "claude"])
def test_an_empty_setting_is_unset_and_a_bare_name_is_looked_up_on_the_path(value: str):
    with house(CLAUDE_JOBS_CLI=value) as made:
        new = new_claude(made.base / "bin")
        assert said(made, PATH=f"{new.parent}:{SYSTEM_PATH}") == "0 right\n"


def test_a_relative_path_is_refused_before_a_job_exists():
    with house(CLAUDE_JOBS_CLI="b/claude") as made:
        new_claude(made.work / "b")
        answer = said(made)
        assert answer.startswith("1 ")
        assert "'b/claude' is a relative path. Give an absolute path" in answer
        assert made.run("list").stdout == ""


def test_an_old_claude_that_is_first_on_the_path_is_passed_over():
    with house(CLAUDE_JOBS_CLI="") as made:
        old, new = old_claude(made.base / "old"), new_claude(made.base / "new")
        assert said(made, PATH=f"{old.parent}:{new.parent}:{SYSTEM_PATH}") == "0 right\n"


OLD_STARTS = """
import json, os, stat, sys, time
version = {version!r}
if sys.argv[1:] == ["--version"]: sys.exit(print(version))
awaits = "--await-initialize" in sys.argv
if awaits and version < "2.1.261": sys.exit("error: unknown option '--await-initialize'")
if version < "2.1.261" and stat.S_ISREG(os.fstat(0).st_mode): sys.exit(0)
files = [argument.partition("=")[2] for argument in sys.argv if argument.startswith("--mcp-config=")]
init = json.dumps({{"type": "system", "subtype": "init", "claude_code_version": version}})
if not files: sys.exit((print(init, flush=True), time.sleep(90)))
[file] = files
initialize, message = map(json.loads, sys.stdin)
task = message["message"]["content"]
if version < "2.1.261" and task.startswith("/"): sys.exit(0)
said = json.dumps([
    list(json.load(open(file))["mcpServers"]), oct(os.stat(file).st_mode & 0o777), file, task.strip().splitlines()[-1]
])
result = {{"type": "result", "subtype": "success", "is_error": False, "result": said, "num_turns": 1}}
print(init)
print(json.dumps({{"type": "assistant", "message": {{"id": "m", "content": [{{"type": "text", "text": said}}]}}}}))
print(json.dumps(result))
"""
"""Starts as these versions do (measured with npm's): neither takes servers from the first line of its stdin,
and the first has no `--await-initialize`, reads no file, and takes a task that begins with "/" for a command."""


@pytest.mark.parametrize("version", ["2.1.197", "2.1.325"])
def test_an_older_claude_is_started_in_the_way_that_it_understands(version: str):
    with house() as made:
        old = program(made.base / "bin", OLD_STARTS.format(version=version))
        with made.pump({"CLAUDE_JOBS_CLI": str(old)}) as pump:
            job = pump.json("claude_run_async", task="/cost is a question")["jobId"]
            status = pump.settled(job)
            assert (status["status"], status["cliVersion"]) == ("completed", version), status
            servers, mode, file, task = json.loads(pump.json("claude_result", jobId=job)["result"])
        assert (servers, mode, task) == (["claude-jobs"], "0o600", "/cost is a question")
        assert not Path(file).exists()


@pytest.mark.parametrize(
    ("version", "outcome"), [("2.1.197", "completed"), ("2.1.325", "completed"), ("2.1.190", "failed")]
)
def test_an_older_claude_behind_a_wrapper_is_found_out_at_the_first_job(version: str, outcome: str):
    with house() as made:
        old = program(made.base / "bin", OLD_STARTS.format(version=version))
        wrapper = program(made.base / "wrapper", "")
        wrapper.write_text(f'#!/bin/sh\nexec {old} "$@"\n')
        with made.pump({"CLAUDE_JOBS_CLI": str(wrapper)}) as pump:
            first = pump.settled(pump.json("claude_run_async", task="/cost is a question")["jobId"])
            assert (first["status"], first["attempt"]) == (outcome, 2), first
            if outcome == "failed":
                words = first["error"] + pump.refusal("claude_run_async", task="x")
                assert words.count(f"{wrapper} (2.1.190); {OLDEST_VERSION} or newer is needed") == 2
            else:
                second = pump.settled(pump.json("claude_run_async", task="/cost is a question")["jobId"])
                assert (second["status"], second["attempt"], second["cliVersion"]) == (outcome, 1, version)


def test_an_older_claude_is_found_out_behind_a_wrapper_that_loses_its_exit_code():
    with house() as made:
        old = program(made.base / "bin", OLD_STARTS.format(version="2.1.197"))
        wrapper = program(made.base / "wrapper", "")
        wrapper.write_text(f'#!/bin/sh\n{old} "$@" | tee {made.base}/log\n')
        with made.pump({"CLAUDE_JOBS_CLI": str(wrapper)}) as pump:
            status = pump.settled(pump.json("claude_run_async", task="/cost is a question")["jobId"])
    assert (status["status"], status["attempt"], status["cliVersion"]) == ("completed", 2, "2.1.197"), status


def test_what_a_claude_said_in_plain_text_is_told_where_it_failed():
    with house() as made:
        plain = program(made.base / "bin", "import sys\nprint('Not logged in · Please run /login')\nsys.exit(1)\n")
        assert "Not logged in · Please run /login" in said(made, CLAUDE_JOBS_CLI=str(plain))


def test_an_explicit_claude_that_is_too_old_is_refused_before_a_job_exists():
    with house() as made:
        old = old_claude(made.base / "old")
        answer = said(made, CLAUDE_JOBS_CLI=str(old))
        assert answer.startswith("1 ")
        assert f"{old} (2.1.190); {OLDEST_VERSION} or newer is needed" in answer
        assert made.run("list").stdout == ""


def test_a_status_tells_which_binary_ran_which_version_it_is_and_which_model_answered():
    with house(CLAUDE_JOBS_CLI="") as made:
        new = new_claude(made.base / "bin")
        with made.pump({"PATH": f"{new.parent}:{SYSTEM_PATH}"}) as pump:
            held = pump.json("claude_run_async", task="stub:sleep=60")["jobId"]
            until_now(lambda: pump.json("claude_status", jobId=held)["status"] == "running", SECONDS, "the job to run")
            status = pump.json("claude_status", jobId=held)
            assert (status["cli"], status["cliVersion"]) == (str(new), OLDEST_VERSION)
            over = pump.settled(pump.json("claude_run_async", task="stub:say=right")["jobId"])
    # The stub says another version in its first frame than where it is asked: the one that ran counts.
    assert (over["cli"], over["cliVersion"], over["model"]) == (str(new), "2.1.330", "stub")


@pytest.mark.skipif(sys.platform != "linux", reason="the stub is moved while it is run")
def test_no_job_fails_while_an_update_takes_the_binary_away_for_three_seconds():
    with house(CLAUDE_JOBS_CLI="claude", CLAUDE_JOBS_MAX_RUNNING="4") as made:
        new = new_claude(made.base / "bin")
        aside = new.with_name("aside")
        with made.pump({"PATH": f"{new.parent}:{SYSTEM_PATH}"}) as pump:
            batch = pump.json("claude_run_batch_async", tasks=["stub:say=right"] * 60)

            def update() -> None:
                new.rename(aside)
                time.sleep(3.0)
                aside.rename(new)

            updating = threading.Thread(target=update)
            updating.start()
            try:
                pump.text("claude_wait", batchId=batch["batchId"], timeoutSeconds=90)
            except RefusedError as refused:
                pytest.fail(str(refused))
            finally:
                updating.join(30)
            counts = pump.json("claude_status", jobId=batch["batchId"])
    assert counts["counts"] == {"completed": 60}, counts


@pytest.mark.parametrize("how", ["removed", "link to nothing"])
def test_no_other_version_takes_the_place_of_a_binary_in_an_update(how: str):
    with house(CLAUDE_JOBS_CLI="") as made:
        new, other = new_claude(made.base / "versions"), new_claude(made.base / "other")
        link = made.base / "bin" / "claude"
        link.parent.mkdir()
        link.symlink_to(new)
        away = link if how == "removed" else new
        with made.pump({"PATH": f"{link.parent}:{other.parent}:{SYSTEM_PATH}"}) as pump:
            first = pump.json("claude_run_async", task="stub:say=right")
            assert pump.settled(first["jobId"])["cli"] == str(link)
            away.rename(aside := made.base / "aside")
            back = threading.Timer(3.0, aside.rename, (away,))
            back.start()
            try:
                second = pump.settled(pump.json("claude_run_async", task="stub:say=right")["jobId"])
            finally:
                back.join(30)
    assert (second["status"], second["cli"]) == ("completed", str(link)), second


@pytest.mark.skipif(sys.platform != "linux", reason="other systems run a file that is open for writing")
def test_no_job_fails_while_the_binary_is_busy_for_three_seconds():
    with house(CLAUDE_JOBS_CLI="", CLAUDE_JOBS_MAX_RUNNING="4") as made:
        claude = program(made.base / "bin", "")
        # The file that must not be open for writing is the interpreter of a script, as it is a program itself.
        shell = Path(shutil.copy("/bin/sh", made.base / "shell"))
        claude.write_text(f'#!{shell}\n[ "$1" = --version ] && echo {OLDEST_VERSION} && exit\n. {SHELL_STUB}\n')
        with made.pump({"PATH": f"{claude.parent}:{SYSTEM_PATH}"}) as pump:
            first = pump.json("claude_run_async", task="stub:say=right")
            assert pump.settled(first["jobId"])["status"] == "completed"
            busy = shell.open("r+b")
            free = threading.Timer(3.0, busy.close)
            free.start()
            try:
                batch = pump.json("claude_run_batch_async", tasks=["stub:say=right"] * 40)
                pump.text("claude_wait", batchId=batch["batchId"], timeoutSeconds=90)
            finally:
                free.join(30)
            counts = pump.json("claude_status", jobId=batch["batchId"])["counts"]
    assert counts == {"completed": 40}, counts


def test_a_wrapper_whose_program_is_away_for_three_seconds_fails_no_job():
    with house(CLAUDE_JOBS_CLI="claude") as made:
        directory = made.base / "bin"
        real = program(made.base / "real", f"import os, sys\nos.execv('{SHELL_STUB}', ['claude', *sys.argv[1:]])\n")
        wrapper = program(directory, "")
        wrapper.write_text(f'#!/bin/sh\nexec {real} "$@"\n')
        aside = real.with_name("aside")
        with made.pump({"PATH": f"{directory}:{SYSTEM_PATH}"}) as pump:
            first = pump.json("claude_run_async", task="stub:say=right")
            assert pump.settled(first["jobId"])["status"] == "completed"
            real.rename(aside)
            back = threading.Timer(3.0, aside.rename, (real,))
            back.start()
            try:
                second = pump.settled(pump.json("claude_run_async", task="stub:say=right")["jobId"])
            finally:
                back.join(30)
    assert (second["status"], second["attempt"] > 1) == ("completed", True), second

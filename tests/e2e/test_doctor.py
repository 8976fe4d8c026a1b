"""`claude-jobs doctor` from outside: what keeps jobs from running is said with its remedy, and the status is 1."""

import fcntl
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from jobs.claude.binary import OLDEST_VERSION
from tests.support.engines import MAIN, SECONDS, SYSTEM_PATH, House, house

SETPRIV = shutil.which("setpriv")


@pytest.fixture
def ill() -> Iterator[House]:
    """A house in which no engine runs, with an account and a `claude` that says a good version."""
    with house(ANTHROPIC_API_KEY="sk-fake-not-real") as made:
        claude(made.base / "claude", OLDEST_VERSION)
        yield House(base=made.base, environ={**made.environ, "CLAUDE_JOBS_CLI": str(made.base / "claude")})


def claude(path: Path, version: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{version} (Claude Code)'\n")
    path.chmod(0o755)
    return path


def examined(made: House, *prefix: str, **environ: str) -> tuple[int, dict[str, Any]]:
    """Run `doctor --json` and return its exit status and its findings by name."""
    done = subprocess.run(
        [*prefix, sys.executable, str(MAIN), "doctor", "--json"],
        env={**made.environ, **environ},
        cwd=made.work,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.stderr == ""
    return done.returncode, {finding["name"]: finding for finding in json.loads(done.stdout)["findings"]}


def bad(made: House, name: str, *prefix: str, **environ: str) -> str:
    """Return everything that doctor says of the one thing that is bad."""
    status, findings = examined(made, *prefix, **environ)
    assert [found["name"] for found in findings.values() if found["status"] == "error"] == [name], findings
    assert status == 1
    assert findings[name]["remedy"]
    return f"{findings[name]['detail']}. {findings[name]['remedy']}"


def unprivileged() -> tuple[str, ...]:
    """Return what to put before a command so that the modes of files hold for it."""
    if os.geteuid():
        return ()
    if SETPRIV is None:
        pytest.skip("needs setpriv, or a user who is not root")
    return (SETPRIV, "--bounding-set=-all", "--inh-caps=-all")


def state_of(made: House) -> Path:
    made.paths.home.mkdir(mode=0o700)
    return made.paths.home


def database(made: House, version: int = 1) -> Path:
    path = state_of(made) / "jobs.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {version}")
        connection.execute("CREATE TABLE t (x)")
    return path


def test_a_machine_on_which_all_is_well_has_status_0(ill: House):
    status, findings = examined(ill)
    assert status == 0, findings
    assert {found["status"] for found in findings.values()} == {"ok"}
    assert ill.run("doctor").returncode == 0


def test_a_claude_that_is_too_old_is_named_with_the_version_needed(ill: House):
    old = claude(ill.base / "old" / "claude", "2.1.190")
    said = bad(ill, "claude", CLAUDE_JOBS_CLI=str(old))
    assert f"{old} (2.1.190); {OLDEST_VERSION} or newer is needed" in said
    assert "claude update" in said
    new = claude(ill.base / "new" / "claude", "2.1.999")
    _, findings = examined(ill, CLAUDE_JOBS_CLI="", PATH=f"{old.parent}:{new.parent}:{SYSTEM_PATH}")
    assert findings["claude"]["detail"].startswith(f"{new}, 2.1.999; passed over: {old} (2.1.190)")


def test_a_link_to_nothing_is_named_with_what_jobs_use_after_it(ill: House):
    link, new = ill.base / "bin" / "claude", claude(ill.base / "new" / "claude", OLDEST_VERSION)
    link.parent.mkdir()
    link.symlink_to(ill.base / "gone")
    status, findings = examined(ill, CLAUDE_JOBS_CLI="", PATH=f"{link.parent}:{new.parent}:{SYSTEM_PATH}")
    assert findings["claude"]["detail"] == f"{new}, {OLDEST_VERSION}; passed over: {link} (missing)"
    assert findings["claude"]["remedy"].startswith("Repair the link or remove it")
    assert status == 0


def test_a_relative_cli_is_refused_and_an_empty_one_is_unset(ill: House):
    claude(ill.work / "b" / "claude", OLDEST_VERSION)
    assert "'b/claude' is a relative path" in bad(ill, "claude", CLAUDE_JOBS_CLI="b/claude")
    on_path = claude(ill.base / "bin" / "claude", OLDEST_VERSION)
    for value in ("", "claude"):
        _, findings = examined(ill, CLAUDE_JOBS_CLI=value, PATH=f"{on_path.parent}:{SYSTEM_PATH}")
        assert findings["claude"]["detail"] == f"{on_path}, {OLDEST_VERSION}"


def test_a_state_directory_that_cannot_be_written(ill: House):
    state_of(ill).chmod(0o500)
    said = bad(ill, "State directory", *unprivileged())
    assert "cannot be written: Permission denied" in said
    assert f"chmod 700 {ill.paths.home}" in said


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's directory")
def test_a_state_directory_of_another_user(ill: House):
    os.chown(state_of(ill), 65534, 65534)
    assert "it belongs to user 65534, not to you" in bad(ill, "State directory")


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="only root can mount a small disk")
@pytest.mark.parametrize("kept", [0, 1024 * 1024])
def test_a_full_disk(ill: House, kept: int):
    # In a mount namespace of its own, so that nothing is left.
    fill = f'mount -t tmpfs -o size=4m,mode=0700 none "$0" && head -c {4 * 1024 * 1024 - kept} /dev/zero >"$0/fill"'
    shell = f'{fill}; shift 0; exec "$@"'
    state_of(ill)
    try:
        subprocess.run(["unshare", "-m", "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no mount namespaces here")
    said = bad(ill, "Disk", "unshare", "-m", "/bin/sh", "-c", shell, str(ill.paths.home))
    assert "so no job is started. Free at least" in said


def test_a_database_of_a_newer_version(ill: House):
    database(ill, version=99)
    said = bad(ill, "Job database")
    assert "written by a newer claude-jobs (schema 99" in said
    assert "pip install -U claude-jobs" in said


def test_a_database_that_is_read_only(ill: House):
    path = database(ill)
    path.chmod(0o400)
    said = bad(ill, "Job database", *unprivileged())
    assert f"{path} cannot be read and written (mode 0400" in said
    assert f"chmod 600 {path}" in said


def test_a_database_that_is_a_directory(ill: House):
    (state_of(ill) / "jobs.db").mkdir()
    said = bad(ill, "Job database")
    assert "jobs.db is a directory. Move it away: `mv " in said


def test_a_damaged_database_is_a_note_since_the_next_engine_repairs_it(ill: House):
    (state_of(ill) / "jobs.db").write_bytes(b"no database at all" * 1000)
    status, findings = examined(ill)
    assert status == 0
    assert findings["Job database"]["status"] == "note"
    assert "is damaged" in findings["Job database"]["detail"]


def test_a_lock_that_is_held_without_a_socket(ill: House):
    with (state_of(ill) / "engine.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        said = bad(ill, "Engine")
    assert "does not listen" in said


def test_a_running_engine_tells_what_its_jobs_use_and_nothing_secret(ill: House):
    program = ill.base / "answering"
    stub = Path(__file__).parents[1] / "fakes" / "claude_stub.sh"
    text = f"#!{sys.executable} -IS\nimport os, sys\nif sys.argv[1:] == ['--version']: sys.exit(print('2.1.999'))\n"
    program.write_text(f"{text}os.execv('{stub}', ['claude', *sys.argv[1:]])\n")
    program.chmod(0o755)
    work = House(base=ill.base, environ={**ill.environ, "CLAUDE_JOBS_CLI": str(program)})
    done = work.run("run", "--detach", f"stub:wait={work.base}/go")
    assert done.returncode == 0, done.stderr
    status, findings = examined(work)
    (work.base / "go").touch()
    assert status == 0, findings
    assert f"{program} (2.1.999)" in findings["Engine"]["detail"]
    assert "ANTHROPIC_API_KEY" in findings["Engine"]["detail"]
    assert "sk-fake" not in json.dumps(findings)


@pytest.mark.skipif(sys.platform != "linux", reason="a stopped process is recognised by /proc")
def test_an_engine_that_is_stopped_is_named_with_the_command_that_continues_it(ill: House):
    assert ill.run("list").returncode == 0
    answer = ill.control("status")
    assert answer is not None
    os.kill(answer["pid"], signal.SIGSTOP)
    try:
        said = bad(ill, "Engine")
    finally:
        os.kill(answer["pid"], signal.SIGCONT)
    assert f"kill -CONT {answer['pid']}" in said


@pytest.mark.skipif(sys.platform != "linux", reason="needs a user namespace")
def test_a_user_without_a_home_is_told_so_and_nothing_is_made(ill: House):
    prefix = ("unshare", "--user", "--map-user=54321")
    try:
        subprocess.run([*prefix, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no user namespaces here")
    environ = {name: value for name, value in ill.environ.items() if name not in {"HOME", "CLAUDE_JOBS_HOME"}}
    said = bad(House(base=ill.base, environ=environ), "State directory", *prefix)
    assert "there is no home directory for it: HOME is not set" in said
    assert list(ill.work.iterdir()) == []


ACCOUNTS: Mapping[str, tuple[Mapping[str, str], str]] = {
    "bedrock": (
        {"CLAUDE_CODE_USE_BEDROCK": "1", "AWS_BEARER_TOKEN_BEDROCK": "sekret"},
        "Amazon Bedrock with AWS_BEARER_TOKEN_BEDROCK",
    ),
    "foundry": (
        {"CLAUDE_CODE_USE_FOUNDRY": "1", "ANTHROPIC_FOUNDRY_API_KEY": "sekret"},
        "Microsoft Foundry with ANTHROPIC_FOUNDRY_API_KEY",
    ),
    "oauth": ({"CLAUDE_CODE_OAUTH_TOKEN": "sekret"}, "CLAUDE_CODE_OAUTH_TOKEN"),
}


@pytest.mark.parametrize("kind", ACCOUNTS)
def test_every_provider_is_known_before_none_is_seen(ill: House, kind: str):
    environ, expected = ACCOUNTS[kind]
    status, findings = examined(ill, ANTHROPIC_API_KEY="", **environ)
    assert (status, findings["Account"]["detail"], findings["Account"]["status"]) == (0, expected, "ok")
    assert "sekret" not in json.dumps(findings)


def test_no_account_is_a_note_with_the_command_that_asks_claude_itself(ill: House):
    status, findings = examined(ill, ANTHROPIC_API_KEY="")
    assert (status, findings["Account"]["status"]) == (0, "note")
    assert findings["Account"]["detail"].startswith("none seen")
    assert "claude auth status" in findings["Account"]["remedy"]

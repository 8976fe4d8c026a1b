"""`claude-jobs backup`: one private file without secrets, which is a copy wherever it is unpacked."""

import json
import sqlite3
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.engines import House, house
from tests.support.waiting import until_now

SECRET = "sk-fake-not-real-but-secret"


@pytest.fixture
def own() -> Iterator[House]:
    """A house whose engine the test may end."""
    with house() as made:
        yield made


def names_in(archive: Path) -> set[str]:
    with tarfile.open(archive) as tar:
        return {member.name for member in tar}


def test_a_backup_holds_jobs_and_transcripts_and_no_secrets_and_restores_as_a_copy(own: House):
    gate, ledger, file = own.base / "gate", own.base / "ledger", own.base / "jobs.tar.gz"
    with own.pump({"ANTHROPIC_API_KEY": SECRET}) as pump:
        over = pump.json("claude_run_async", task="stub:say=kept")["jobId"]
        pump.settled(over)
        running = pump.json("claude_run_async", task=f"stub:wait={gate} stub:ledger={ledger}")["jobId"]
        until_now(ledger.exists)
    token = json.loads((own.paths.trees / running / running / "1" / "in").read_bytes().splitlines()[0])
    done = own.run("backup", str(file))
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert not list(own.base.glob(".jobs*"))
    kept = {name.rpartition("/")[2] for name in names_in(file)}
    assert {"jobs.db", "out", "job.json", "lock"} <= kept
    assert not kept & {"in", "origin.json", "config.toml", "engine.log"}

    restored = own.base / "restored"
    (restored / "work").mkdir(parents=True)
    with tarfile.open(file) as tar:
        tar.extractall(restored, filter="fully_trusted")
    (restored / "claude-jobs").rename(restored / "state")
    everything = b"".join(path.read_bytes() for path in restored.rglob("*") if path.is_file())
    assert SECRET.encode() not in everything
    assert token["claude_jobs_token"].encode() not in everything
    with sqlite3.connect(restored / "state" / "jobs.db") as rows:
        assert rows.execute("SELECT count(*) FROM attempt WHERE token_hash IS NOT NULL").fetchone() == (0,)
    there = House(base=restored, environ={**own.environ, "CLAUDE_JOBS_HOME": str(restored / "state")})
    try:
        found = json.loads(there.run("list", "--json").stdout)["jobs"]
        assert {job["jobId"]: job["status"] for job in found} == {over: "completed", running: "failed"}
        assert "kept" in there.run("transcript", over).stdout
        assert "kept" in there.run("result", over).stdout
    finally:
        there.close()
    gate.touch()
    with own.pump() as pump:
        assert pump.settled(running)["status"] == "completed"
    assert ledger.read_text().count("begin") == 1


def test_a_backup_needs_no_engine_and_overwrites_nothing(own: House):
    file = own.base / "jobs.tar.gz"
    none = own.run("backup", str(file))
    assert (none.returncode, file.exists()) == (1, False)
    assert "jobs.db" in none.stderr
    with own.pump() as pump:
        pump.text("claude_run", task="x")
    own.run("engine", "stop")
    own.wait_for_the_engine_to_go()
    assert own.run("backup", str(file)).returncode == 0
    assert own.control("status") is None
    before = file.read_bytes()
    again = own.run("backup", str(file))
    assert again.returncode == 1
    assert "exists already" in again.stderr
    assert file.read_bytes() == before
    nowhere = own.run("backup", str(own.base / "no" / "jobs.tar.gz"))
    assert nowhere.returncode == 1
    assert "Traceback" not in nowhere.stderr

"""What the engine forgets on purpose, and what it does not forget although its database is damaged."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.support.engines import House, house
from tests.support.waiting import until_now


@pytest.fixture
def tidy() -> Iterator[House]:
    """A house whose trees are old enough to be forgotten as soon as they are over."""
    with house(CLAUDE_JOBS_KEEP_DAYS="1e-9") as made:
        yield made


def test_prune_says_what_would_go_and_then_forgets_it(tidy: House):
    gate = tidy.base / "gate"
    with tidy.pump() as pump:
        # What runs stays, whatever its age.
        running = pump.json("claude_run_async", task=f"stub:wait={gate}")["jobId"]
        over = pump.json("claude_run_async", task="x")["jobId"]
        pump.settled(over)
        directory = tidy.paths.trees / over
        told = tidy.run("prune", "--dry-run")
        assert (told.returncode, told.stdout.splitlines()[0]) == (0, over)
        assert "Would delete 1 tree, 1 job" in told.stderr
        assert directory.exists()
        assert pump.json("claude_status", jobId=over)["status"] == "completed"
        done = json.loads(tidy.run("prune", "--json").stdout)
        assert (done["trees"], done["jobs"], done["dryRun"]) == ([over], 1, False)
        assert not directory.exists()
        assert over in pump.refusal("claude_status", jobId=over)
        gate.touch()
        assert pump.settled(running)["status"] == "completed"


def test_a_damaged_database_is_moved_aside_and_the_person_is_told():
    with house() as made:
        with made.pump() as pump:
            kept = pump.json("claude_run_batch_async", tasks=["stub:say=one", "stub:say=two"])
            pump.text("claude_wait", batchId=kept["batchId"])
            gate, ledger = made.base / "gate", made.base / "ledger"
            task = f"stub:wait={gate} stub:ledger={ledger}"
            running = pump.json("claude_run_async", task=task)["jobId"]
            # One that is still queued has no directory to be brought back from.
            until_now(ledger.exists, 30.0, "the job")
            begun = made.base / "begun"
            killed = pump.json("claude_run_async", task=f"stub:wait={gate} stub:ledger={begun}")["jobId"]
            until_now(begun.exists, 30.0, "the job to be killed")
            assert pump.json("claude_kill_job", jobId=killed)["success"]
            pump.settled(killed)
        made.kill_engine()
        made.wait_for_the_engine_to_go()
        for path in made.paths.home.glob("jobs.db-*"):
            path.unlink()
        made.paths.database.write_bytes(b"not a database at all" * 1000)
        with made.pump() as pump:
            jobs = pump.json("claude_list_jobs", under=kept["batchId"], limit=10)
            assert [job["status"] for job in jobs] == ["completed"] * 2
            for job_id, answer in zip(kept["jobIds"], ("one", "two"), strict=True):
                assert f'"{answer}"' in pump.text("claude_result", jobId=job_id)
            assert pump.json("claude_status", jobId=killed)["status"] == "cancelled"
            # It ran on while its engine was dead and its row was gone.
            gate.touch()
            assert pump.settled(running)["attempt"] == 1
        [aside] = made.paths.home.glob("jobs.db.damaged-*")
        assert aside.read_bytes().startswith(b"not a database")
        for command in (("engine", "status"), ("doctor",)):
            told = made.run(*command).stdout
            assert "The job database was damaged" in told, command
            assert str(aside) in told
        with closing(sqlite3.connect(made.paths.database)) as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)

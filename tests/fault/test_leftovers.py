"""Processes that hide from every mark: whatever ends their job, they end with it, also while older jobs live.

Each process is looked for by its command line in the machine's process table, as a person would with `ps`.
"""

import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.engines import MAIN, PYTHON_STUB, SYSTEM_PATH, House, Pump, house
from tests.support.noted import shim_of
from tests.support.tokens import attempt_directory, pump_of_job, running
from tests.support.waiting import until_now

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives orphans to a process that asks for them"),
    pytest.mark.timeout(170),
]

SETTINGS = "CLAUDE_JOBS_HOME={home}"
SECONDS = 60.0
AS_ROOT = ("namespace", "other-user") if os.geteuid() == 0 else ()
KINDS = ("bare", "links", "deaf", "stopped", *AS_ROOT)
BEAT_SECONDS = 1.0
"""A chain makes its file a thousand times a second; on a machine with much to do, some times."""
SURROUNDINGS = ("alone", "with an older job", "nested")


ROOM = {
    "CLAUDE_JOBS_CLI": str(PYTHON_STUB),
    "CLAUDE_JOBS_MAX_RUNNING": "60",
    "CLAUDE_JOBS_MAX_CONCURRENT": '{"0": 60}',
    "CLAUDE_JOBS_MEMORY_FLOOR_BYTES": "0",
}


@pytest.fixture
def home(request: pytest.FixtureRequest) -> Iterator[House]:
    with house(**ROOM, **getattr(request, "param", {})) as made:
        yield made


@pytest.fixture(scope="module")
def shared() -> Iterator[House]:
    """The house of the tests whose engine lives on."""
    with house(**ROOM) as made:
        yield made


class Leavers:
    """One job for each kind of process that hides.

    Args:
        made: The house.
        pump: The client that starts them.
        then: What each job does once its process is there: "stay", or "answer" when the gate opens.
    """

    def __init__(self, made: House, pump: Pump, then: str) -> None:
        self.house, self.pump = made, pump
        own = Path(tempfile.mkdtemp(dir=made.base))
        self.gate, self.ready = own / "gate", own / "ready"
        # `sleep` takes fractions: each command line is one of its kind.
        self.tags = [f"300.{os.getpid():07d}{index:02d}" for index, _ in enumerate(KINDS)]
        self.beat = own / "beat"
        files = f"stub:ready={self.ready} stub:gate={self.gate} stub:beat={self.beat}"
        tasks = [
            f"stub:do=leave stub:arg={kind} stub:tag={tag} stub:then={then} {files}"
            for kind, tag in zip(KINDS, self.tags, strict=True)
        ]
        batch = pump.json("claude_run_batch_async", tasks=tasks)
        self.batch_id, self.job_ids = batch["batchId"], batch["jobIds"]
        until_now(lambda: self._standing() == len(KINDS), SECONDS, "every job's process")
        assert self.left() == set(KINDS)

    def _standing(self) -> int:
        return len(self.ready.read_text().splitlines()) if self.ready.exists() else 0

    def left(self) -> set[str]:
        """Return the kinds of which a process lives."""
        kinds = dict(zip((tag.encode() for tag in self.tags), KINDS, strict=True))
        found = {kinds[arguments[-1]] for _, arguments in command_lines() if arguments[-1] in kinds}
        # The links of a chain are faster than any look at the process table.
        return found | ({"links"} if self._beats() else set())

    def _beats(self) -> bool:
        self.beat.unlink(missing_ok=True)
        with suppress(TimeoutError):
            until_now(self.beat.exists, BEAT_SECONDS)
        return self.beat.exists()

    def shims(self) -> list[int]:
        statuses = [self.pump.json("claude_status", jobId=job_id) for job_id in self.job_ids]
        return [shim_of(attempt_directory(self.house, status)) for status in statuses]

    def end(self) -> set[str]:
        """Let the jobs answer, and return the statuses of all of them."""
        self.gate.touch()
        while self.pump.json("claude_wait", batchId=self.batch_id)["pending"]:
            pass
        return {self.pump.json("claude_status", jobId=job_id)["status"] for job_id in self.job_ids}

    def cancel(self) -> None:
        for job_id in self.job_ids:
            self.pump.text("claude_kill_job", jobId=job_id)

    def kill(self) -> None:
        for pid, arguments in command_lines():
            if arguments[-1] in {tag.encode() for tag in self.tags}:
                os.kill(pid, signal.SIGKILL)

    def all_gone(self) -> None:
        until_now(lambda: not self.left(), SECONDS, "the end of every process")


def command_lines() -> Iterator[tuple[int, list[bytes]]]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except OSError:
            continue
        if line:
            yield int(path.parent.name), line.rstrip(b"\0").split(b"\0")


@contextmanager
def surrounded(made: House, surrounding: str) -> Iterator[Pump]:
    """Give the client that starts the jobs: a person's, or that of a job which lives on; and see that it does."""
    with made.pump() as person:
        if surrounding == "alone":
            yield person
            return
        older = person.json("claude_run_async", task="stub:do=silent")["jobId"]
        status = running(person, older)
        if surrounding == "nested":
            with pump_of_job(made, attempt_directory(made, status)) as pump:
                yield pump
        else:
            yield person
        assert person.json("claude_status", jobId=older)["status"] == "running"
        person.text("claude_kill_job", jobId=older)
        person.settled(older)


def kill_engine(made: House) -> None:
    status: Any = made.control("status")
    os.kill(status["pid"], signal.SIGKILL)
    until_now(made.engine_is_gone, SECONDS, "the engine's end")


@pytest.mark.parametrize("surrounding", SURROUNDINGS)
def test_a_success_leaves_nothing(shared: House, surrounding: str):
    with surrounded(shared, surrounding) as pump:
        jobs = Leavers(shared, pump, "answer")
        assert jobs.end() == {"completed"}
        jobs.all_gone()


@pytest.mark.parametrize("surrounding", SURROUNDINGS)
def test_a_cancel_leaves_nothing(shared: House, surrounding: str):
    with surrounded(shared, surrounding) as pump:
        jobs = Leavers(shared, pump, "stay")
        jobs.cancel()
        jobs.all_gone()


@pytest.mark.parametrize("surrounding", SURROUNDINGS)
def test_a_job_whose_shim_was_killed_leaves_nothing(shared: House, surrounding: str):
    with surrounded(shared, surrounding) as pump:
        jobs = Leavers(shared, pump, "answer")
        for pid in jobs.shims():
            os.kill(pid, signal.SIGKILL)
        assert jobs.end() == {"completed"}
        jobs.all_gone()


@pytest.mark.parametrize("surrounding", SURROUNDINGS)
def test_nothing_is_left_of_a_job_that_ends_while_there_is_no_engine(home: House, surrounding: str):
    with surrounded(home, surrounding) as pump:
        jobs = Leavers(home, pump, "answer")
        kill_engine(home)
        jobs.gate.touch()
        jobs.all_gone()
        assert jobs.end() == {"completed"}


@pytest.mark.parametrize("surrounding", SURROUNDINGS)
def test_the_engine_after_a_killed_one_cancels_a_job_with_all_that_it_left(home: House, surrounding: str):
    with surrounded(home, surrounding) as pump:
        jobs = Leavers(home, pump, "stay")
        kill_engine(home)
        jobs.cancel()
        jobs.all_gone()


@pytest.mark.parametrize("home", [{"CLAUDE_JOBS_KEEP_PROCESSES": '["sleep"]'}], indirect=True)
@pytest.mark.parametrize("then", ["answer", "stay"])
def test_a_program_that_a_person_wants_to_keep_outlives_its_job_and_nothing_else_does(home: House, then: str):
    with home.pump() as pump:
        jobs = Leavers(home, pump, then)
        try:
            if then == "stay":
                jobs.cancel()
            assert jobs.end() == {"completed" if then == "answer" else "cancelled"}
            until_now(lambda: "links" not in jobs.left(), SECONDS, "the end of the chain")
            # A job that ends later has a pass of its own, which leaves them alone too.
            assert pump.settled(pump.json("claude_run_async", task="x")["jobId"])["status"] == "completed"
            assert jobs.left() == set(KINDS) - {"links"}
        finally:
            jobs.kill()


def test_an_engine_that_a_job_started_goes_on_after_that_job(home: House):
    with home.pump() as pump:
        script, gate, ready = (home.base / name for name in ("script", "gate", "ready"))
        job_id = pump.json(
            "claude_run_async", task=f"stub:do=script stub:arg={script} stub:gate={gate} stub:ready={ready}"
        )["jobId"]
        running(pump, job_id)
        other = running(pump, pump.json("claude_run_async", task="stub:do=silent")["jobId"])
        first: Any = home.control("status")
        # It is refused as a process of a job, and has started an engine before.
        script.with_suffix(".part").write_text(
            f"kill -9 {first['pid']}\n"
            f"env -i PATH={SYSTEM_PATH} HOME={home.base} {SETTINGS.format(home=home.paths.home)} "
            f"{sys.executable} {MAIN} list\n"
        )
        script.with_suffix(".part").rename(script)
        until_now(ready.exists, SECONDS, "the script's end")
        started: Any = home.control("status")
        assert started["pid"] != first["pid"]
        # This one hangs below the job that started the engine once the engine has died.
        late = running(pump, pump.json("claude_run_async", task="stub:do=silent")["jobId"])
        gate.touch()
        assert pump.settled(job_id)["status"] == "completed"
        after: Any = home.control("status")
        assert after["pid"] == started["pid"]
        for status in (other, late):
            assert pump.json("claude_status", jobId=status["jobId"])["status"] == "running"

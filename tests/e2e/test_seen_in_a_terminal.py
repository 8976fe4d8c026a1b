"""What a person sees of jobs: in terminals of several sizes, in a file, and in another time zone than the engine's."""

import json
import os
import re
import signal
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from rich.cells import cell_len

from tests.support.engines import House, Pump, house
from tests.support.seat import seated
from tests.support.waiting import until_now

pytestmark = pytest.mark.timeout(300)

SECONDS = 60.0
SIZES = [(24, 80), (40, 80), (50, 120)]


@pytest.fixture(scope="module")
def made() -> Iterator[House]:
    with house(CLAUDE_JOBS_MAX_CHILDREN="1000", CLAUDE_JOBS_MAX_RUNNING="4") as built:
        yield built


@pytest.fixture
def empty() -> Iterator[House]:
    """A house in which there was no job yet."""
    with house() as built:
        yield built


@pytest.fixture
def person(made: House) -> Iterator[Pump]:
    with made.pump() as pump:
        yield pump


def started(pump: Pump, *tasks: str) -> tuple[str, list[str]]:
    reply = pump.json("claude_run_batch_async", tasks=list(tasks))
    return reply["batchId"], reply["jobIds"]


def running(pump: Pump, count: int) -> None:
    """Wait until so many jobs run."""
    until_now(lambda: len(pump.json("claude_list_jobs", status="running")) == count, SECONDS, f"{count} running jobs")


@pytest.mark.parametrize(("lines", "columns"), SIZES)
def test_of_a_large_batch_what_runs_is_seen_in_every_size_and_the_rest_is_counted(
    made: House, person: Pump, tmp_path: Path, lines: int, columns: int
):
    gate = tmp_path / "gate"
    tasks = ["stub:exit=3 broken", *[f"stub:say=ok early {n}" for n in range(20)]]
    batch, ids = started(person, *tasks, *[f"stub:wait={gate} late {n}" for n in range(179)])
    counts = {"completed": 20, "failed": 1, "queued": 175, "running": 4}
    until_now(lambda: person.json("claude_status", jobId=batch)["counts"] == counts, SECONDS, str(counts))
    now_running = [job["jobId"] for job in person.json("claude_list_jobs", status="running")][::-1]
    with seated(made, "tree", "-f", batch, lines=lines, columns=columns) as seat:
        seat.wait_for("4 running")
        rows = seat.rows
        gate.touch()
        seat.wait_for("199 completed")
        assert seat.end() == 0
    assert rows[0].startswith(batch)
    head = " ".join(row.strip() for row in rows[:2])
    assert "200 jobs: 4 running, 175 queued, 20 completed, 1 failed" in head
    assert re.search(r"\$0\.02\d\d · \d", head)
    seen = [row for row in rows if row.startswith(("├── ", "└── "))]
    assert [row.split()[2] for row in seen] == [one[:6] for one in (*now_running, ids[0])]
    assert any(row.startswith("… ") and "175 queued" in row for row in rows)
    for screen in seat.screens:
        assert screen.highest < lines
        assert max(map(cell_len, screen.rows)) <= columns
    last = seat.rows
    assert "199 completed, 1 failed" in " ".join(last)
    assert any("exited with 3 and wrote nothing" in row for row in last)


def test_rows_stay_in_the_order_of_their_tasks_while_jobs_begin_and_end(made: House, person: Pump, tmp_path: Path):
    gates = [tmp_path / f"gate{n}" for n in range(6)]
    batch, ids = started(person, *[f"stub:wait={gate}" for gate in gates])
    orders = set()
    with seated(made, "tree", "-f", batch) as seat:
        for n in (3, 1, 0, 2, 5, 4):
            gates[n].touch()
            person.json("claude_wait", jobIds=[ids[n]])
        assert seat.end() == 0
    for screen in seat.screens:
        orders.add(tuple(row.split()[2] for row in screen.rows if row.startswith(("├", "└"))))
    assert orders - {()} == {tuple(one[:6] for one in ids)}


def test_a_drawing_follows_the_size_of_the_window(made: House, person: Pump, tmp_path: Path):
    gate = tmp_path / "gate"
    batch, _ = started(person, *[f"stub:wait={gate} {'words ' * 20}" for _ in range(60)])
    running(person, 4)
    with seated(made, "tree", "-f", batch, lines=70, columns=120) as seat:
        seat.wait_for("4 running")
        seat.resize(20, 60)
        seat.wait_for("… 56 queued")
        rows = seat.screens[-1].rows
        assert seat.interrupt() == 130
    gate.touch()
    person.json("claude_wait", batchId=batch)
    assert max(map(cell_len, rows[-15:])) <= 60


def test_without_an_id_the_next_job_is_waited_for_and_ctrl_c_ends_it_in_silence(empty: House):
    with seated(empty, "tree", "-f") as seat:
        seat.wait_for("waiting for the next one. Ctrl-C ends this.")
        empty.run("run", "stub:say=here the first")
        seat.wait_for("1 completed")
        assert seat.end() == 0
        assert any("the first" in row for row in seat.rows)
    with seated(empty, "tree", "-f") as seat:
        seat.wait_for("waiting for the next one")
        assert seat.interrupt() == 130
        assert "Traceback" not in seat.written
        assert "Abort" not in seat.written


def test_where_there_are_no_jobs_each_command_says_so(empty: House):
    tree = empty.run("tree")
    assert (tree.returncode, tree.stdout, tree.stderr) == (0, "", "No jobs.\n")
    unknown = empty.run("tree", "j404")
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert "j404" in unknown.stderr
    assert "`claude-jobs list`" in unknown.stderr


@pytest.mark.parametrize("colour", [{}, {"FORCE_COLOR": "1"}, {"NO_COLOR": "1"}])
def test_what_is_piped_is_neither_wrapped_nor_padded_nor_cut_and_not_redrawn(
    made: House, person: Pump, colour: dict[str, str]
):
    task = f"stub:say=fine {'long ' * 18}task"
    batch, [job_id] = started(person, task)
    person.settled(job_id)
    followed = made.run("batch", task, COLUMNS="", TERM="xterm", **colour)
    assert followed.returncode == 0
    assert sum(task in row for row in followed.stdout.splitlines()) >= 1
    for command in (["tree"], ["tree", batch], ["list"], ["status", job_id], ["dashboard"], ["tree", "-f", batch]):
        shown = made.run(*command, COLUMNS="", TERM="xterm", **colour).stdout
        text = re.sub(r"\x1b\[[\d;]*m", "", shown)
        assert ("\x1b[" in shown) == ("FORCE_COLOR" in colour and command[0] != "dashboard")
        assert "\x1b[?" not in shown + followed.stdout
        assert not [row for row in text.splitlines() if row != row.rstrip()]
        if command[0] != "dashboard":
            assert any(task in row for row in text.splitlines()), (command, text)


def test_a_file_is_told_each_change_once(made: House, person: Pump, tmp_path: Path):
    gates = [tmp_path / f"gate{n}" for n in range(3)]
    batch, ids = started(person, *[f"stub:wait={gate} number {n}" for n, gate in enumerate(gates)])
    running(person, 3)
    with seated(made, "tree", "-f", batch, TERM="dumb") as seat:
        seat.wait_for(f"{ids[2]} running")
        for gate, job_id in zip(gates, ids, strict=True):
            gate.touch()
            seat.wait_for(f"{job_id} completed")
        assert seat.end() == 0
    lines = seat.written.replace("\r", "").splitlines()
    for job_id in ids:
        told = [line for line in lines if re.match(rf"\d\d:\d\d:\d\d {job_id} ", line)]
        assert [line.split()[2] for line in told] == ["running", "completed"]
    assert "\x1b" not in seat.written


@pytest.mark.parametrize("command", ["list", "tree", "status", "dashboard", "settings", "engine status", "doctor"])
def test_nothing_needs_more_than_eighty_columns(made: House, person: Pump, command: str):
    _, [job_id] = started(person, "\u6771\u4eac \U0001f469\u200d\U0001f4bb stub:say=word " + "word " * 60)
    person.settled(job_id)
    arguments = [*command.split(), *([job_id] if command == "status" else [])]
    with seated(made, *arguments) as seat:
        seat.end()
    assert seat.rows != [""]
    assert not [row for row in seat.rows if cell_len(row) > 80 or row != row.rstrip()]


def test_times_are_those_of_the_terminal_with_their_age_and_carry_their_offset_in_json(made: House):
    tokyo = {"TZ": "Asia/Tokyo"}
    job_id = made.run("run", "--detach", "stub:say=x", TZ="America/New_York").stdout.strip()
    made.run("wait", job_id)
    status = json.loads(made.run("status", "--json", job_id).stdout)
    begun, ended = (datetime.fromisoformat(status[key]) for key in ("startedAt", "endedAt"))
    assert begun.utcoffset() == ended.utcoffset() == timedelta(0)
    assert datetime.fromisoformat(status["createdAt"]) <= begun <= ended
    assert status["durationSeconds"] == pytest.approx((ended - begun).total_seconds(), abs=1)
    # The older server's are as they were: of the engine's zone, without an offset.
    assert datetime.fromisoformat(status["startTime"]).tzinfo is None
    [row] = [job for job in json.loads(made.run("list", "--json").stdout)["jobs"] if job["jobId"] == job_id]
    assert row["durationSeconds"] == status["durationSeconds"]
    assert {key: f"{row[key][:19]}Z" for key in ("createdAt", "startedAt", "endedAt")} == {
        key: f"{status[key][:19]}Z" for key in ("createdAt", "startedAt", "endedAt")
    }
    shown = dict(line.split(maxsplit=1) for line in made.run("status", job_id, **tokyo).stdout.splitlines())
    there = begun + timedelta(hours=9)
    assert re.fullmatch(rf".*{there:%H:%M:%S}, \d+s ago", shown["started"])
    assert re.fullmatch(rf".*{ended + timedelta(hours=9):%H:%M:%S}, \d+s ago", shown["ended"])
    assert "duration" in shown
    assert "start" not in {name for name in shown if name == "start time"}
    listed = made.run("list", **tokyo).stdout
    assert re.search(rf"{there:%H:%M}, \d+s ago", listed)


def test_a_command_that_waits_for_a_busy_engine_says_so(empty: House):
    empty.start_engine()
    status = empty.control("status")
    assert status is not None
    os.kill(status["pid"], signal.SIGSTOP)
    try:
        with seated(empty, "list") as seat:
            seat.wait_for("Waiting for the engine: it is starting, or busy.")
            os.kill(status["pid"], signal.SIGCONT)
            assert seat.end() == 0
    finally:
        os.kill(status["pid"], signal.SIGCONT)
    assert "No jobs." in seat.written

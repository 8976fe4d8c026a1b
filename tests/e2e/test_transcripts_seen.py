"""`claude-jobs transcript` as a person reads it: lines kept, calls with their results, no noise, to its end."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from rich.cells import cell_len

from tests.support.engines import SHELL_STUB, House, Pump, house
from tests.support.seat import seated
from tests.support.waiting import until_now

pytestmark = pytest.mark.timeout(300)

STREAMS = Path(__file__).parents[1] / "fixtures" / "streams"
SECONDS = 60.0
KEY = "sk-ant-api03-" + "k" * 40


@pytest.fixture(scope="module")
def made() -> Iterator[House]:
    with house(CLAUDE_JOBS_MAX_RUNNING="4") as built:
        yield built


@pytest.fixture
def person(made: House) -> Iterator[Pump]:
    # With an account of its own: what a stream tells of a busy API holds up no job of another test.
    with made.pump({"ANTHROPIC_API_KEY": f"sk-fake-{uuid4().hex}"}) as pump:
        yield pump


def said(*blocks: dict[str, Any], kind: str = "assistant", **more: Any) -> dict[str, Any]:
    return {"type": kind, "message": {"role": kind, "content": list(blocks)}, **more}


def words(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def call(number: int, name: str, **arguments: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": f"t{number}", "name": name, "input": arguments}


def result(number: int, text: Any, **more: Any) -> dict[str, Any]:
    return said({"type": "tool_result", "tool_use_id": f"t{number}", "content": text, **more}, kind="user")


ANSWER = "# Report\n\n- one\n  - nested\n- two"
STORY: list[dict[str, Any]] = [
    {"type": "system", "subtype": "init", "session_id": "s1", "model": "stub"},
    {"type": "system", "subtype": "hook_started", "hook_name": "noise"},
    {"type": "rate_limit_event", "rate_limit_info": {"status": "allowed", "rateLimitType": "noise"}},
    {"type": "stream_event", "event": {"type": "message_start", "message": {"id": "noise"}}},
    said({"type": "thinking", "thinking": "a thought"}, words("I look around.\nTwo things first.")),
    said(call(1, "Bash", command="ls -la", description="list")),
    said(call(2, "mcp__box__open", lid="blue", depth=2)),
    result(1, "\n".join(f"file {n}" for n in range(9))),
    result(2, [{"type": "text", "text": f"opened with {KEY}"}]),
    said(call(3, "Edit", file_path="/a.py", old_string="x", new_string="y")),
    result(3, "<tool_use_error>File not found</tool_use_error>", is_error=True),
    said(call(4, "Read", file_path="/b.py"), parent_tool_use_id="t9"),
    {"type": "system", "subtype": "api_retry", "error": "overloaded", "error_status": 529, "attempt": 1},
    {"type": "system", "subtype": "api_retry", "error": "overloaded", "error_status": 529, "attempt": 2},
    said(words(ANSWER)),
    {"type": "result", "subtype": "success", "is_error": False, "result": ANSWER, "total_cost_usd": 0.1},
]


def replayed(made: House, person: Pump, frames: list[dict[str, Any]]) -> str:
    """Run a job that writes these frames, to its end, and return its id."""
    path = made.base / f"stream{len(list(made.base.iterdir()))}"
    path.write_text("".join(f"{json.dumps(frame)}\n" for frame in frames))
    job_id: str = person.json("claude_run_async", task=f"stub:replay={path}\nand more")["jobId"]
    person.settled(job_id)
    return job_id


def test_a_transcript_reads_as_claude_code_shows_it(made: House, person: Pump):
    job_id = replayed(made, person, STORY)
    task, *rows = made.run("transcript", job_id).stdout.splitlines()
    assert task.startswith("> stub:replay=")
    assert rows == [
        "  and more",
        "● I look around.",
        "  Two things first.",
        "● Bash(ls -la)",
        "● box:open(lid: blue, depth: 2)",
        "● Bash(ls -la)",
        "  ⎿  file 0",
        "     file 1",
        "     file 2",
        "     … +6 lines (--all shows them)",
        "● box:open(lid: blue, depth: 2)",
        "  ⎿  opened with [redacted]",
        "● Edit(/a.py)",
        "  ⎿  Error: File not found",
        "    ● Read(/b.py)",
        "▲ the API answered: overloaded (HTTP 529); it is asked again",
        "● # Report",
        "",
        "  - one",
        "    - nested",
        "  - two",
    ]


def test_all_shows_results_arguments_and_thoughts_whole(made: House, person: Pump):
    job_id = replayed(made, person, STORY)
    rows = made.run("transcript", "--all", job_id).stdout.splitlines()
    assert [f"     file {n}" for n in range(1, 9)] == rows[rows.index("  ⎿  file 0") + 1 :][:8]
    assert {"✻ a thought", "     old_string: x", "     new_string: y"} <= set(rows)
    assert KEY not in "".join(rows)


def test_in_a_terminal_lines_are_broken_at_blanks_below_their_text(made: House, person: Pump):
    job_id = replayed(made, person, [said(words("word " * 60)), said(call(1, "Bash", command="x " * 80))])
    with seated(made, "transcript", job_id) as seat:
        assert seat.end() in (0, 1)
    rows = seat.rows
    assert max(map(cell_len, rows)) <= 80
    begin = next(index for index, row in enumerate(rows) if row.startswith("● word"))
    assert rows[begin + 1].startswith("  word word")
    assert not any(row.endswith("wor") for row in rows)


@pytest.mark.parametrize("name", sorted(path.stem for path in STREAMS.glob("*.ndjson")))
def test_no_recorded_stream_shows_noise_or_an_answer_twice(made: House, person: Pump, name: str):
    job_id: str = person.json("claude_run_async", task=f"stub:replay={STREAMS / f'{name}.ndjson'}")["jobId"]
    person.settled(job_id)
    shown = made.run("transcript", job_id)
    assert shown.returncode == 0, shown.stderr
    rows = shown.stdout.splitlines()
    assert not [row for row in rows if row.startswith(("system", "rate_limit", "stream_event", "result."))]
    said_of_model = [row for row in rows if row.startswith("● ") and "(" not in row and "Next I use" not in row]
    if name not in {"same_frame_twice", "log_line_inside_result_line"}:
        assert len(said_of_model) == len(set(said_of_model)), rows


def test_a_transcript_is_followed_across_attempts_until_the_job_is_over(made: House, person: Pump):
    gate, first = made.base / "gate", made.base / "first"
    first.write_text(json.dumps(STORY[4]) + "\n")
    script = made.base / "claude"
    script.write_text(
        f"#!/bin/sh\nif mkdir {made.base}/once; then cat {first}; until [ -e {gate} ]; do sleep 0.05; done\n"
        f'kill -9 $$; fi\nexec {SHELL_STUB} "$@"\n'
    )
    script.chmod(0o755)
    job_id = made.run("run", "--detach", "stub:say=second", CLAUDE_JOBS_CLI=str(script)).stdout.strip()
    assert job_id
    with seated(made, "transcript", "-f", job_id) as seat:
        seat.wait_for("Two things first.")
        gate.touch()
        seat.wait_for("── attempt 2")
        assert seat.end() == 0
    whole = made.run("transcript", "--all", job_id).stdout
    assert whole.index("── attempt 1 of 2") < whole.index("Two things") < whole.index("── attempt 2 of 2")
    assert "Two things" not in made.run("transcript", job_id).stdout
    assert "Two things" in made.run("transcript", "--attempt", "1", job_id).stdout


def test_ctrl_c_ends_following_in_silence(made: House, person: Pump):
    job_id = person.json("claude_run_async", task=f"stub:wait={made.base / 'never'} stub:say=x")["jobId"]
    with seated(made, "transcript", "-f", job_id) as seat:
        seat.wait_for("> stub:wait=")
        assert seat.interrupt() == 130
        assert "Traceback" not in seat.written
        assert "Abort" not in seat.written
    person.json("claude_kill_job", jobId=job_id)
    person.settled(job_id)


def test_where_only_stderr_was_written_that_is_said_and_shown(made: House, person: Pump):
    script = made.base / "silent"
    script.write_text("#!/bin/sh\nprintf 'one\\nthe disk is gone\\n' >&2\nexit 3\n")
    script.chmod(0o755)
    job_id = made.run("run", "--detach", "x", CLAUDE_JOBS_CLI=str(script)).stdout.strip()
    made.run("wait", job_id)
    shown = made.run("transcript", job_id)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.splitlines() == ["It wrote nothing but this, on stderr:", "  one", "  the disk is gone"]


def test_a_job_that_has_not_started_says_how_to_wait_for_it(made: House, person: Pump):
    gate = made.base / "busy"
    tasks = [f"stub:wait={gate}"] * 5
    ids = person.json("claude_run_batch_async", tasks=tasks)["jobIds"]
    until_now(lambda: len(person.json("claude_list_jobs", status="running")) == 4, SECONDS, "four running jobs")
    refused = made.run("transcript", ids[4])
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "has not started yet" in refused.stderr
    assert f"`claude-jobs transcript -f {ids[4]}`" in refused.stderr
    gate.touch()
    for job_id in ids:
        person.settled(job_id)

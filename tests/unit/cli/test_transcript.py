"""`claude-jobs transcript`: what a job did, as a person reads it and as it was written."""

import json
from pathlib import Path

import pytest

from tests.support.engines import House
from tests.unit.conftest import Invoke


def finished(invoke: Invoke, quarters: House, task: str) -> tuple[str, Path]:
    """Run a job to its end; return its id and the file that it wrote."""
    job_id = invoke("run", "--detach", task).stdout.strip()
    invoke("wait", job_id)
    status = json.loads(invoke("status", "--json", job_id).stdout)
    return job_id, quarters.paths.trees / status["rootId"] / job_id / "1" / "out"


def test_a_transcript_is_the_task_and_what_was_said_and_done(invoke: Invoke, quarters: House):
    job_id, _ = finished(invoke, quarters, "plant stub:say=grown")
    assert invoke("transcript", job_id).stdout == "> plant stub:say=grown\n● grown\n"


def test_the_raw_lines_are_those_of_the_file(invoke: Invoke, quarters: House):
    job_id, written = finished(invoke, quarters, "stub:say=\u6771:bug:")
    assert invoke("transcript", "--json", job_id).stdout == written.read_text()


def test_a_long_text_is_read_whole_and_a_very_long_one_with_all(invoke: Invoke, quarters: House):
    job_id, written = finished(invoke, quarters, f"stub:say={'x' * 3000}")
    assert invoke("transcript", job_id).stdout.splitlines()[-1] == f"● {'x' * 3000}"
    frame = {"type": "assistant", "message": {"content": [{"type": "text", "text": "y" * 100_000}]}}
    with written.open("a") as file:
        file.write(f"{json.dumps(frame)}\n")
    *_, said, more = invoke("transcript", job_id).stdout.splitlines()
    assert (len(said), more) == (20_002, "  … +80000 characters (--all shows them)")
    assert invoke("transcript", "--all", job_id).stdout.splitlines()[-1] == f"● {'y' * 100_000}"


def test_a_transcript_of_many_megabytes_is_read_to_its_end(invoke: Invoke, quarters: House):
    job_id, written = finished(invoke, quarters, "stub:say=x")
    frame = {"type": "assistant", "message": {"content": [{"type": "text", "text": "y" * 100_000}]}}
    with written.open("a") as file:
        file.writelines(f"{json.dumps(frame)}\n" for _ in range(30))
        file.write('{"type":"result","result":"the end"}')
    assert invoke("transcript", job_id).stdout.splitlines()[-1] == "● the end"
    assert invoke("transcript", "--json", job_id).stdout == f"{written.read_text()}\n"


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_nothing_that_a_job_wrote_reaches_the_terminal_as_a_command(
    invoke: Invoke, quarters: House, options: tuple[str, ...]
):
    job_id, written = finished(invoke, quarters, "stub:say=x")
    with written.open("ab") as file:
        file.write(b"\x1b]52;c;aGk=\x07\x1b[2Jno frame\xff\n")
    shown = invoke("transcript", *options, job_id).stdout
    assert "no frame" in shown
    assert not {"\x1b", "\x07"} & set(shown)


def test_each_attempt_has_a_transcript_and_the_last_one_is_shown(invoke: Invoke, quarters: House):
    job_id, written = finished(invoke, quarters, "stub:exit=3")
    with written.open("a") as file:
        file.write("the first\n")
    invoke("retry", job_id)
    invoke("wait", job_id)
    assert "the first" not in invoke("transcript", job_id).stdout
    assert "the first" in invoke("transcript", "--attempt", "1", job_id).stdout


def test_where_nothing_was_written_that_is_said(invoke: Invoke, quarters: House):
    job_id, written = finished(invoke, quarters, "stub:say=x")
    missing = invoke("transcript", "--attempt", "7", job_id)
    assert (missing.exit_code, missing.stdout) == (1, "")
    assert missing.stderr == f"Job {job_id} has written nothing in attempt 7; its last one is 1.\n"
    written.parent.chmod(0o755)
    assert invoke("transcript", job_id).exit_code == 0
    assert "'j404'" in invoke("transcript", "j404").stderr

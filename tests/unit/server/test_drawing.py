"""What reaches a terminal: trees and lists of jobs."""

import io

from rich.console import Console

from jobs.model import JobStatus
from server.terminal.drawing import STYLES, draw, job_line, one_line


def line(job_id: str, parent: str | None = None, **more: object) -> dict:
    depth = 2 if parent else 1
    job = {"jobId": job_id, "parentJobId": parent, "status": "completed", "task": f"task of {job_id}"}
    return job | {"recursionDepth": depth, "startTime": "2026-01-01T00:00:00", "costUsd": 0} | more


def drawn(*jobs: dict) -> list[str]:
    console = Console(file=io.StringIO(), width=120, force_terminal=False)
    console.print(draw("the title", jobs))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_a_long_text_is_cut_to_one_line():
    assert one_line("a\n  b\tc", 10) == "a b c"
    assert one_line("x" * 50, 10) == "x" * 9 + "…"


def test_children_stand_below_their_parents_whatever_the_order_of_the_lines():
    lines = drawn(line("j3", "j1"), line("j2"), line("j1"))
    assert [name for text in lines for name in ("j1", "j2", "j3") if f" {name} " in text] == ["j1", "j3", "j2"]
    assert lines[0] == "the title"


def test_siblings_of_one_time_stand_in_the_order_of_their_tasks():
    newest_first = [line("j1"), line("j3"), line("j2")]
    assert [text.split()[2] for text in drawn(*newest_first) if "task of" in text] == ["j2", "j3", "j1"]


def test_a_job_that_waits_for_a_permission_says_so_in_a_tree_and_in_a_list():
    asking = line("j1", waitingFor="permission", status="running")
    assert [text.endswith("task of j1  waiting for permission") for text in drawn(asking)] == [False, True]
    assert job_line(asking).plain.endswith("task of j1  waiting for permission")
    assert "waiting" not in job_line(line("j2")).plain


def test_a_job_whose_parent_is_not_shown_stands_at_the_top():
    assert any(" j9 " in text for text in drawn(line("j9", "j-elsewhere")))


def test_cost_reason_and_answer_are_shown_and_markup_is_text():
    text = "\n".join(drawn(line("j1", costUsd=0.25, reason="max_turns", excerpt="[red]all\x1b[2J good[/red]")))
    assert "$0.2500" in text
    assert "max_turns" in text
    assert "[red]all good[/red]" in text


def test_every_status_has_a_mark_of_its_own():
    assert set(STYLES) == {status.value for status in JobStatus}
    assert len({mark for mark, _ in STYLES.values()}) == len(STYLES)

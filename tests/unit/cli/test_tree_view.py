"""What reaches a terminal: trees and lists of jobs."""

import re
import time
from collections import Counter
from datetime import UTC, datetime, timedelta

from rich.cells import cell_len

from jobs.model import JobStatus
from server.cli.columns import laid_out
from server.cli.lines import one_line
from server.cli.status_view import description, job_row
from server.cli.tree_view import STYLES, Picture, draw


def line(job_id: str, parent: str | None = None, **more: object) -> dict:
    depth = 2 if parent else 1
    job = {"jobId": job_id, "parentJobId": parent, "status": "completed", "task": f"task of {job_id}"}
    return job | {"recursionDepth": depth, "startTime": "2026-01-01T00:00:00", "costUsd": 0} | more


def listed(job: dict, *, width: int | None = None) -> str:
    [text] = laid_out([job_row(job, width=width)], width)
    return text.plain


def drawn(*newest_first: dict, width: int | None = 120, height: int | None = None) -> list[str]:
    jobs = newest_first[::-1]
    counts = Counter(job["status"] for job in jobs)
    picture = Picture(title="the title", jobs=jobs, counts=counts, whole="claude-jobs tree b1")
    return [text.plain for text in draw(picture, width=width, height=height)]


def test_a_long_text_is_cut_to_one_line():
    assert one_line("a\n  b\tc", 10) == "a b c"
    assert one_line("x" * 50, 10) == "x" * 9 + "…"


def test_a_parent_has_the_costs_of_all_below_it_and_the_figures_are_at_the_right_edge():
    started = {"startedAt": "2026-01-01T00:00:00Z", "endedAt": "2026-01-01T00:01:05Z"}
    tree = [line("j3", "j2", costUsd=0.5, **started), line("j2", "j1", costUsd=0.25), line("j1", costUsd=0.125)]
    for width in (60, 80, 120):
        rows = drawn(*tree, width=width)[1:]
        assert [re.findall(r"\$[\d.]+", row) for row in rows] == [["$0.8750"], ["$0.7500"], ["$0.5000"]]
        assert rows[2].endswith("  $0.5000  1m 05s")
        assert cell_len(rows[2]) == width
    assert "$" not in "".join(drawn(*tree, width=50)[1:])


def test_a_wait_says_until_when_and_why():
    soon = datetime.fromtimestamp(time.time() + 30, UTC)
    later = soon.replace(microsecond=0) + timedelta(hours=5)
    limited = line("j1", status="queued", waitingFor="limit", waitingBecause="five-hour limit")
    row = drawn(limited | {"waitingUntil": later.isoformat()})[1]
    assert re.search(r"  waiting for a limit until (\d+ \w+ )?\d\d:\d\d: five-hour limit$", row)
    trouble = line("j1", status="queued", waitingFor="back_off", waitingUntil=soon.isoformat())
    assert re.search(r"  waiting for the next try until (\d+ \w+ )?\d\d:\d\d:\d\d$", drawn(trouble)[1])


def test_a_silence_is_told_from_three_seconds_on_and_called_so_from_a_minute_on():
    busy = line("j1", status="running", activity="Bash: make")
    told = [drawn(busy | {"silentSeconds": seconds})[1].partition("task of j1  ")[2] for seconds in (2, 3, 75)]
    assert told == ["Bash: make", "Bash: make · 3s", "Bash: make · silent 1m 15s"]


def test_ids_are_as_short_as_they_differ_and_whole_in_a_file():
    names = ["j0123456789abcdef", "j01234z789abcdefg", "jz123456789abcdef"]
    jobs = [line(name) for name in names]
    assert [row.split()[2] for row in drawn(*jobs[::-1])[1:]] == ["j012345", "j01234z", "jz12345"]
    assert [row.split()[2] for row in drawn(*jobs[::-1], width=None)[1:]] == names


def test_children_stand_below_their_parents_whatever_the_order_of_the_lines():
    lines = drawn(line("j3", "j1"), line("j2"), line("j1"))
    assert [name for text in lines for name in ("j1", "j2", "j3") if f" {name} " in text] == ["j1", "j3", "j2"]
    assert lines[0] == "the title · 3 jobs: 3 completed"


def test_siblings_of_one_time_stand_in_the_order_of_their_tasks():
    newest_first = [line("j1"), line("j3", startTime="2027-01-01T00:00:00"), line("j2", status="queued")]
    assert [text.split()[2] for text in drawn(*newest_first) if "task of" in text] == ["j2", "j3", "j1"]


def test_a_job_that_waits_for_a_permission_says_so_in_a_tree_and_in_a_list():
    asking = line("j1", waitingFor="permission", status="running")
    assert [text.endswith("task of j1  waiting for permission") for text in drawn(asking)] == [False, True]
    assert listed(asking).endswith("task of j1  waiting for permission")
    assert "waiting" not in listed(line("j2"))


def test_a_parent_whose_children_are_live_is_not_called_queued():
    parent = line("j1", waitingFor="children", status="queued")
    children = [line(f"j{n}", "j1", status=status) for n, status in enumerate(("running", "queued", "completed"), 2)]
    assert drawn(*children[::-1], parent)[1].endswith("task of j1  waiting for 2 of 3 children")
    assert drawn(children[0], parent)[1].endswith("task of j1  waiting for its child")
    assert listed(parent).startswith("○ j1  waiting ")
    assert listed(parent).endswith("task of j1  waiting for its children")


def test_a_job_in_line_is_called_queued_and_a_later_engines_reason_is_shown_as_it_is():
    assert listed(line("j1", waitingFor="slot", status="queued")).endswith("task of j1  waiting for a slot")
    told = [text.plain for text in description({"status": "queued", "waitingFor": "host"})]
    assert [text.split(maxsplit=1) for text in told] == [["status", "queued, waiting for host"]]


def test_a_job_whose_parent_is_not_shown_stands_at_the_top():
    assert any(" j9 " in text for text in drawn(line("j9", "j-elsewhere")))


def test_cost_reason_and_answer_are_shown_and_markup_is_text():
    text = "\n".join(drawn(line("j1", costUsd=0.25, reason="max_turns", excerpt="[red]all\x1b[2J good[/red]")))
    assert "$0.2500\n" in text
    assert "max_turns" in text
    assert "[red]all good[/red]" in text


def test_an_error_names_commands_and_options_and_an_answer_is_as_it_was_given():
    advice = "allowedTools permits more; claude_retry with jobId 'j1' tries again."
    assert (
        "--allowed-tools` permits more; `claude-jobs retry j1` tries again."
        in drawn(line("j1", status="failed", error=advice))[2]
    )
    assert advice in drawn(line("j1", excerpt=advice))[2]


def test_every_status_has_a_mark_of_its_own():
    assert set(STYLES) == {status.value for status in JobStatus} | {"waiting"}
    assert len({mark for mark, _ in STYLES.values()}) == len(STYLES)


def fits(lines: list[str], width: int, height: int) -> None:
    assert len(lines) <= height
    assert max(map(cell_len, lines)) <= width
    assert lines == [text.rstrip() for text in lines]


def test_where_there_is_no_room_what_runs_is_drawn_then_what_failed_and_the_rest_is_counted():
    states = {50: "running", 60: "failed", 70: "running"}
    error = "the disk is full " * 9
    tasks = [line(f"j{n:03}", status=states.get(n, "completed" if n < 80 else "queued")) for n in range(200)]
    tasks[60] |= {"reason": "unknown_error", "error": error}
    lines = drawn(*tasks[::-1], width=80, height=24)
    fits(lines, 80, 24)
    assert lines[0] == "the title · 200 jobs: 2 running, 120 queued, 77 completed, 1 failed"
    assert [text.split()[2] for text in lines[1:-1]] == ["j050", "j070", "j060"]
    assert "unknown_error: the disk is full" in lines[3]
    assert lines[-1] == "… 120 queued, 77 completed"


def test_what_failed_of_a_large_tree_that_is_over_has_its_error_in_a_line_of_its_own():
    tasks = [
        line(f"j{n:03}", status="failed" if n % 50 == 0 else "completed", error="no such file") for n in range(200)
    ]
    lines = drawn(*tasks[::-1], width=80, height=24)
    fits(lines, 80, 24)
    assert sum(text.endswith("no such file") for text in lines) == 4
    assert lines[-1] == "… 196 completed. `claude-jobs tree b1` draws all."


def test_a_parent_stands_above_its_running_children_whatever_its_own_status():
    parents = [line(f"j{n:03}", status="queued") for n in range(30)]
    children = [line("jchild", "j029", status="running"), line("jolder", "j029")]
    lines = drawn(*[*parents, *children][::-1], width=80, height=10)
    fits(lines, 80, 10)
    assert [text.split()[-4] for text in lines[1:3]] == ["j029", "jchild"]


def test_more_than_the_screen_holds_is_never_drawn():
    every = [line(f"j{n:03}", status="running", task="x" * 90) for n in range(100)]
    for width, height in ((80, 24), (40, 10), (20, 3), (80, 1)):
        fits(drawn(*every[::-1], width=width, height=height), width, height)


def test_wide_characters_emoji_and_controls_neither_break_a_line_nor_widen_it():
    odd = "\u6771\u4eac" * 30 + "\U0001f469\u200d\U0001f4bb\u2764\ufe0f\x1b[2J\r\n\x00 end"
    lines = drawn(line("j1", task=odd, excerpt=odd), width=60)
    assert len(lines) == 3
    fits(lines, 60, 3)
    assert not {"\x1b", "\r", "\n", "\x00", "\ufe0f"} & set("".join(lines))


def test_in_a_file_a_task_is_whole_and_no_line_is_padded():
    [_, row] = drawn(line("j1", task="t" * 120), width=None)
    assert row.endswith("t" * 120)

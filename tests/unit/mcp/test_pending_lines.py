"""Who waits is told in a few short lines what the jobs do that are not over."""

import json
from dataclasses import replace
from typing import Any

import pytest

from jobs.activity import Activity
from jobs.model import Job, JobStatus, Usage
from jobs.waiting import Progress, WaitReport
from jobs.waiting_for import Wait, WaitingFor
from server.mcp import replies
from server.mcp.advice import advice_on_hold
from server.mcp.job_now import JobNow
from server.mcp.pending_lines import LINE_BYTES, MOST_LINES, pending_lines
from server.mcp.progress import progress
from tests.unit.jobs.support import job
from tests.unit.mcp.test_status_sizes import WORST_TEXTS

NOW = 1_796_000_000.0


def running(name: str, silent: float, doing: str = "Bash: make", wait: Wait | None = None) -> JobNow:
    activity = Activity(doing=doing, last_output_at=NOW - silent, usage=Usage())
    return JobNow(job=job(name, status=JobStatus.RUNNING), activity=activity, wait=wait, at=NOW)


def queued(name: str, wait: Wait) -> JobNow:
    return JobNow(job=job(name), activity=None, wait=wait, at=NOW)


def lines_of(*nows: JobNow) -> list[dict[str, Any]]:
    by_id = {now.job.id: now for now in nows}
    return pending_lines([now.job for now in nows], lambda one: by_id[one.id])


def test_what_needs_an_answer_comes_first_then_the_longest_silent_then_what_waits():
    asks = Wait(what=WaitingFor.PERMISSION, because="Bash: git push")
    children = Wait(what=WaitingFor.CHILDREN, because="2 live below it, 1 of them running")
    limit = Wait(what=WaitingFor.LIMIT, until=NOW + 60, because="five-hour limit")
    nows = [
        queued("held", limit),
        running("parent", 900, wait=children),
        running("busy", 1),
        running("stuck", 600),
        running("asks", 5, wait=asks),
    ]
    assert lines_of(*nows) == [
        {"jobId": "asks", "silentSeconds": 5, "waitingFor": "permission", "waitingBecause": "Bash: git push"},
        {"jobId": "stuck", "activity": "Bash: make", "silentSeconds": 600},
        {"jobId": "busy", "activity": "Bash: make", "silentSeconds": 1},
        {
            "jobId": "parent",
            "silentSeconds": 900,
            "waitingFor": "children",
            "waitingBecause": "2 live below it, 1 of them running",
        },
        {
            "jobId": "held",
            "waitingFor": "limit",
            "waitingUntil": "2026-11-30T00:54:20Z",
            "waitingBecause": "five-hour limit",
        },
    ]


@pytest.mark.parametrize("text", WORST_TEXTS, ids=["ascii", "wide", "escapes", "emoji"])
def test_the_lines_are_few_and_bounded_whatever_the_jobs_do(text: str):
    wait = Wait(what=WaitingFor.PERMISSION, until=NOW, because=text)
    nows = [running(f"j{number:016}", 86_400 * number, text[:80], wait if number % 2 else None) for number in range(99)]
    lines = lines_of(*nows)
    assert len(lines) == MOST_LINES
    assert all(len(replies.compact(line).encode()) <= LINE_BYTES for line in lines)
    assert len(replies.compact(lines).encode()) <= 600
    assert all("activity" in line or "waitingBecause" in line for line in lines)


def waited(report: WaitReport, **more: Any) -> Any:
    return json.loads(replies.waited(report, excerpt_chars=300, now_of=lambda one: running(one.id, 41), **more))


def test_a_wait_tells_of_live_jobs_only_while_there_are_some():
    live = job("j1", status=JobStatus.RUNNING)
    report = WaitReport(done=(), pending=1, total=1, cursor="0", live=[live])
    assert waited(report)["live"] == [{"jobId": "j1", "activity": "Bash: make", "silentSeconds": 41}]
    over = replace(report, pending=0, live=[], done=(job("j1", status=JobStatus.COMPLETED),))
    assert "live" not in waited(over)


def told(now: JobNow, **more: Any) -> str:
    jobs: list[Job] = [now.job]
    where = Progress(over=0, running=1, total=1, seconds=1.0, only=now.job, live=jobs)
    return progress(replace(where, **more), lambda _: now)


def test_progress_says_what_one_job_does_or_waits_for():
    assert told(running("j1", 41.7)) == "Bash: make, 41 s"
    asks = Wait(what=WaitingFor.PERMISSION, because="Bash: git push")
    assert told(running("j1", 3, wait=asks)) == "waiting for permission (Bash: git push)"
    starting = JobNow(job=job("j1", started_at=NOW - 7), activity=None, wait=None, at=NOW)
    assert told(starting) == "queued, 7 s"


def test_progress_of_several_counts_them_and_says_what_tells_most():
    several = {"only": None, "over": 3, "running": 5, "total": 10}
    assert told(running("j1", 41), **several) == "3 of 10 over, 5 running, 2 queued; j1: Bash: make, 41 s"
    assert told(queued("j1", Wait(what=WaitingFor.SLOT)), **several) == "3 of 10 over, 5 running, 2 queued"


def test_advice_in_a_pause_ends_a_sessions_turn_and_not_a_jobs():
    limit = Wait(what=WaitingFor.LIMIT, until=NOW, because="the five-hour limit is reached")
    for hold, before in ((limit, "five-hour"), (Wait(what=WaitingFor.PAUSE, because="paused by a person"), "a person")):
        session, parent = (advice_on_hold(hold, is_job=is_job) for is_job in (False, True))
        assert before in session
        assert before in parent
        assert "end your turn" in session
        assert "end your turn" not in parent
        assert "without timeoutSeconds" in parent

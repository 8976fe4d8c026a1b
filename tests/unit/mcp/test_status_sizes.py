"""A status has at most 700 bytes and a list of thirty jobs at most 9 KB, whatever the jobs; a person gets it whole."""

import json
from dataclasses import replace
from typing import Any

import pytest

from jobs.activity import DOING_CHARS, Activity
from jobs.limits.throttle import Pause
from jobs.model import Attempt, Batch, Job, JobStatus, Reason, Rollup, Usage
from jobs.spec import JobSpec
from jobs.waiting_for import Wait, WaitingFor
from server.mcp import replies
from server.mcp.fitting import cut
from server.mcp.job_now import JobNow

STATUS_BYTES = 700
LIST_BYTES = 9000

NOW = 1_796_000_000.0

OLDER = {"jobId", "status", "task", "startTime", "recursionDepth"}

WORST_TEXTS = ["x" * 5000, "日本" * 2500, '"\\\n\x1f' * 1000, "🚀" * 2500]
"""Each takes another number of bytes as JSON: one, three, two and six, and four."""

BIG = Usage(cost_usd=123456.123456, input_tokens=10**12, output_tokens=10**12, turns=10**6)


def worst_job(text: str, number: int = 0, **more: Any) -> Job:
    return Job(
        seq=number,
        id=f"j{number:016}",
        root_id="b" + "0" * 16,
        parent_id="j" + "1" * 16,
        batch_id="b" + "2" * 16,
        depth=12,
        path="x",
        spec=JobSpec(task=text, cwd="/w", model=text[:200]),
        usage=BIG,
        attempt=100,
        session_id="11111111-1111-4111-8111-111111111111",
        created_at=NOW - 100_000,
        **more,
    )


def running(text: str, number: int = 0) -> JobNow:
    job = worst_job(text, number, status=JobStatus.RUNNING, started_at=NOW - 90_000, waiting_for=WaitingFor.PERMISSION)
    activity = Activity(
        doing=text[:DOING_CHARS],
        last_output_at=NOW - 86_400,
        usage=BIG,
        model=text[:100],
        cli="/" + text[:4000],
        cli_version="2.1.330 (Claude Code)",
    )
    return JobNow(job=job, activity=activity, wait=Wait(what=WaitingFor.PERMISSION, until=NOW, because=text), at=NOW)


def queued(text: str, number: int = 0) -> JobNow:
    job = worst_job(text, number, reason=Reason.COMPLETED_WITH_DENIALS, error=text)
    return JobNow(job=job, activity=None, wait=Wait(what=WaitingFor.LIMIT, until=NOW + 10_000, because=text), at=NOW)


def failed(text: str, number: int = 0) -> JobNow:
    job = worst_job(
        text,
        number,
        status=JobStatus.FAILED,
        reason=Reason.COMPLETED_WITH_DENIALS,
        error=text[:2000],
        excerpt=text[:500],
        started_at=NOW - 9000,
        ended_at=NOW,
    )
    return JobNow(job=job, activity=None, wait=None, at=NOW)


def completed(text: str, number: int = 0) -> JobNow:
    now = failed(text, number)
    return replace(now, job=replace(now.job, status=JobStatus.COMPLETED))


ATTEMPT = Attempt(
    job_id="j",
    number=100,
    session_id="s",
    token_hash=None,
    setting_sources="user,project,local",
    cli="/" + "y" * 4000,
    cli_version="2.1.330 (Claude Code)",
    model="z" * 100,
)
BELOW = Rollup(counts=dict.fromkeys(JobStatus, 99_999), usage=BIG, deepest=12)
PAUSES = [Pause(until=NOW, because="w" * 200, waiting=10_000)] * 5


@pytest.mark.parametrize("text", WORST_TEXTS, ids=["ascii", "wide", "escapes", "emoji"])
@pytest.mark.parametrize("kind", [running, queued, failed, completed])
def test_a_status_is_bounded_and_keeps_what_matters(kind: Any, text: str):
    now = kind(text)
    reply = replies.job_status(now, BELOW, PAUSES, attempt=ATTEMPT, live_children=99_999, request_id="p12345678")
    assert len(reply.encode()) <= STATUS_BYTES
    status = json.loads(reply)
    assert status.keys() >= OLDER | {"endTime", "error", "parentJobId", "costUsd", "descendants"}
    assert status["taskChars"] == len(text)
    # A text is cut and not lost.
    assert status["task"].endswith("…")
    assert len(status["task"]) > 4
    for name in now.fields():
        assert status[name]


@pytest.mark.parametrize("text", WORST_TEXTS, ids=["ascii", "wide", "escapes", "emoji"])
def test_a_list_of_thirty_jobs_is_bounded_and_keeps_what_matters(text: str):
    nows = [kind(text, number) for number, kind in enumerate((running, queued, failed, completed, running) * 6)]
    by_id = {now.job.id: now for now in nows}
    reply = replies.job_list(
        [now.job for now in nows], more=True, excerpt_chars=300, now_of=lambda job: by_id[job.id], pauses=PAUSES
    )
    assert len(reply.encode()) <= LIST_BYTES
    rows = json.loads(reply)
    assert len(rows) == 32
    for row in rows[:30]:
        now = by_id[row["jobId"]]
        assert row.keys() >= OLDER | {"parentJobId"}
        assert ("activity" in row) is (now.activity is not None)
        assert row.get("waitingFor") == (now.wait and now.wait.what)
        assert ("endTime" in row) is (now.job.ended_at is not None)
        assert ("error" in row) is (now.job.status in {JobStatus.FAILED, JobStatus.QUEUED})


def test_the_status_of_a_batch_is_bounded():
    batch = Batch(id="b" + "0" * 16, root_id="b", parent_id="j" + "0" * 16, idempotency_key=None, created_at=0.0)
    reply = replies.batch_status(batch, BELOW, PAUSES, seconds=10**9)
    assert len(reply.encode()) <= STATUS_BYTES
    assert json.loads(reply)["elapsedSeconds"] == 10**9


def test_a_short_status_is_whole_and_a_person_gets_each_whole():
    job = replace(worst_job("short"), spec=JobSpec(task="short", cwd="/w"), usage=Usage())
    now = JobNow(job=job, activity=None, wait=None, at=NOW)
    short, whole = (json.loads(replies.job_status(now, None, whole=whole)) for whole in (False, True))
    # A person's times are more exact.
    times = {"startTime", "createdAt"}
    assert {name: value for name, value in short.items() if name not in times} == {
        name: value for name, value in whole.items() if name not in times
    }
    long = json.loads(replies.job_status(failed("x" * 5000), None, whole=True))
    assert (len(long["task"]), len(long["error"])) == (5000, 2000)
    [row] = json.loads(
        replies.job_list([job], more=False, excerpt_chars=300, now_of=lambda _: failed("x" * 5000), whole=True)
    )
    assert len(row["task"]) == 120


def test_a_long_path_of_the_cli_takes_no_other_fields_room():
    job = replace(worst_job("Say hello."), status=JobStatus.COMPLETED, spec=JobSpec(task="Say hello.", cwd="/w"))
    now = JobNow(job=job, activity=None, wait=None, at=NOW)
    attempt = replace(ATTEMPT, cli="/home/a/" + "deep/" * 60 + "claude", model="a-model")
    status = json.loads(replies.job_status(now, None, attempt=attempt))
    ran = {"settingSources": "user,project,local", "cliVersion": "2.1.330 (Claude Code)", "model": "a-model"}
    assert status.items() >= {"cli": "claude", **ran}.items()
    whole = json.loads(replies.job_status(now, None, attempt=attempt, whole=True))
    assert whole["cli"] == attempt.cli


@pytest.mark.parametrize("text", WORST_TEXTS, ids=["ascii", "wide", "escapes", "emoji"])
@pytest.mark.parametrize("room", [0, 5, 6, 40, 41, 100, 4999])
def test_a_text_is_cut_to_its_bytes(text: str, room: int):
    shown = cut(text, room)
    assert len(json.dumps(shown, ensure_ascii=False).encode()) <= max(room, 5)
    assert shown.endswith("…")
    # Nothing is cut that would fit.
    longer = text[: len(shown)] + "…"
    assert len(json.dumps(longer, ensure_ascii=False).encode()) > room
    assert cut("short", 7) == "short"


def test_running_attempts_count_in_the_totals():
    sums = Rollup(counts={JobStatus.RUNNING: 1}, usage=Usage(cost_usd=1.0), deepest=1, running=Usage(cost_usd=0.5))
    batch = Batch(id="b1", root_id="b1", parent_id=None, idempotency_key=None, created_at=0.0)
    assert json.loads(replies.batch_status(batch, sums, seconds=1.0))["costUsd"] == 1.5

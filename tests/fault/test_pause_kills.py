"""An engine is killed while it pauses and while it resumes: the client's call succeeds, nothing starts in between."""

import json
import os
import signal
import time
from collections.abc import Sequence
from typing import Any

import pytest

from tests.support.engines import House, Pump, house
from tests.support.long_form import LONG
from tests.support.tokens import running
from tests.support.waiting import until_now

pytestmark = pytest.mark.timeout(600)

SECONDS = 60.0
DELAYS = [step * 0.002 for step in range(40)] if LONG else [0.0, 0.004, 0.012, 0.03]
"""Seconds from the request to the kill: a pause with the ends of three processes took 20 ms (measured)."""


@pytest.mark.parametrize("moment", ["pause", "resume"])
def test_a_kill_at_any_moment_leaves_a_pause_that_holds_or_a_resume_that_is_whole(moment: str):
    with house() as made, made.pump() as pump:
        for delay in DELAYS:
            begun = made.base / f"begun at {delay}".replace(" ", "-")
            task = f"stub:ledger={begun} stub:wait={made.base}/never"
            ids = pump.json("claude_run_batch_async", tasks=[task] * 3)["jobIds"]
            # A job counts as running from its claim on. One that is killed before its process runs begins again.
            until_now(lambda begun=begun: begun.exists() and len(begun.read_text().split("\n")) > 3, SECONDS, "starts")  # type: ignore[misc]
            sessions = {job_id: running(pump, job_id)["sessionId"] for job_id in ids}
            _call(made, pump, delay if moment == "pause" else None, now=True)
            until_now(lambda ids=ids: _all(pump, ids, "queued"), SECONDS, "the ends")  # type: ignore[misc]
            other = pump.json("claude_run_async", task="x")["jobId"]
            # A new job that waits, and no attempt more of the others: nothing starts.
            assert _attempts(pump, [*ids, other]) == [1, 1, 1, 0]
            _call(made, pump, delay if moment == "resume" else None, resume=True)
            until_now(lambda ids=ids, other=other: _all(pump, [*ids, other], "completed"), SECONDS, "the jobs")  # type: ignore[misc]
            # An attempt that was claimed, and had no process yet when the engine was killed, is one more.
            more = [now - then for now, then in zip(_attempts(pump, [*ids, other]), [2, 2, 2, 1], strict=True)]
            assert set(more) <= {0, 1}
            assert moment == "resume" or not any(more)
            assert {job_id: _status(pump, job_id)["sessionId"] for job_id in ids} == sessions


def _call(made: House, pump: Pump, kill_after: float | None, **arguments: bool) -> None:
    """Pause or resume everything; the engine is killed so many seconds after the request."""
    status = made.control("status")
    assert status is not None
    number = pump.send("tools/call", name="claude_pause", arguments={"jobId": "all", **arguments})
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(status["pid"], signal.SIGKILL)
    result = pump.answer(number)
    assert not result.get("isError"), result
    assert json.loads(result["content"][0]["text"])["success"]


def _status(pump: Pump, job_id: str) -> Any:
    return pump.json("claude_status", jobId=job_id)


def _attempts(pump: Pump, job_ids: Sequence[str]) -> list[int]:
    return [_status(pump, job_id)["attempt"] for job_id in job_ids]


def _all(pump: Pump, job_ids: Sequence[str], status: str) -> bool:
    return all(_status(pump, job_id)["status"] == status for job_id in job_ids)

"""A job that a usage limit holds back says so, and until when, to every caller that asks about it."""

import re
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from jobs.limits.throttle import Pause
from server.mcp import replies
from tests.support.spending import STUB
from tests.support.waiting import until
from tests.unit.mcp.world import World, call_json, world

pytestmark = pytest.mark.anyio

WORDS = re.compile(
    r"paused until \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\S* because the five-hour limit is reached; 1 job waits"
)


async def test_the_status_of_a_job_and_of_its_batch_say_until_when_nothing_is_launched_and_why(home: Path):
    (home / "reset").write_text(str(time.time() + 3600))
    task = f"stub:bill={home / 'bill'} stub:reset={home / 'reset'}"
    async with world(home, cli=STUB) as here, here.client() as client:
        batch = await call_json(client, "claude_run_batch_async", tasks=[task])
        found: dict[str, Any] = {}

        async def is_held_back() -> bool:
            found.update(await call_json(client, "claude_status", jobId=batch["jobIds"][0]))
            return "paused" in found

        await until(is_held_back)
        of_batch = await call_json(client, "claude_status", jobId=batch["batchId"])
        of_machine = await call_json(client, "claude_recursion_stats")
        assert all(WORDS.fullmatch(one["paused"]) for one in (found, of_batch, of_machine))
        assert found["status"] == "queued"


async def test_a_person_is_told_to_come_back_and_a_job_to_wait_in_one_call(home: Path):
    (home / "reset").write_text(str(time.time() + 3600))
    task = f"stub:bill={home / 'bill'} stub:reset={home / 'reset'}"
    async with world(home, cli=STUB) as here, here.client() as client:
        parent = (await call_json(client, "claude_run_async", task=f"stub:wait={home / 'never'}"))["jobId"]
        token = await _token_of(here, parent)
        async with here.client(token=token) as inside:
            child = (await call_json(inside, "claude_run_async", task=task))["jobId"]
            replies: list[Any] = []

            async def is_paused() -> bool:
                asked = {"jobIds": [child], "timeoutSeconds": 0}
                replies[:] = [await call_json(one, "claude_wait", **asked) for one in (client, inside)]
                return all("paused" in reply for reply in replies)

            await until(is_paused, 60.0)
        of_person, of_job = (reply["next"] for reply in replies)
        assert "end your turn" in of_person
        assert "end your turn" not in of_job
        assert "without timeoutSeconds" in of_job


async def _token_of(here: World, job_id: str) -> str:
    found: list[str] = []

    async def has_one() -> bool:
        job = await here.services.store.job(job_id)
        with suppress(OSError, IndexError, ValueError):
            assert job is not None
            found.append(here.token(job))
        return bool(found)

    await until(has_one, 60.0)
    return found[-1]


def test_many_accounts_that_are_paused_fill_no_reply():
    pauses = [Pause(until=1e9 + number, because="x" * 200) for number in range(1000)]
    said = replies.paused(pauses)["paused"]
    assert said.endswith("997 more accounts are paused")
    assert len(said) < 1000

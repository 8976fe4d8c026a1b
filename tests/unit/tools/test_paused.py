"""A job that a usage limit holds back says so, and until when, to whoever asks about it."""

import re
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.spending import STUB
from tests.support.waiting import until
from tests.unit.server.world import call_json, world

pytestmark = pytest.mark.anyio

WORDS = re.compile(r"paused until \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\S* because five_hour; 1 job waits")


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

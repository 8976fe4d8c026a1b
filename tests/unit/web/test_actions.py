"""Actions of the page: the tools as a person, in a tree's own environment, and in words for a person."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from jobs.client_context import ClientContext
from jobs.ids import contains
from jobs.model import JobStatus
from server.cli.wording import in_words
from server.mcp.connection_state import Caller
from server.web.actions import CLIENT, Actions
from tests.support.waiting import until
from tests.unit.mcp.world import PATH, World, call, call_json, world

pytestmark = pytest.mark.anyio

HOLD = "stub:wait=/nonexistent"
OF_THE_PAGE = {"PATH": PATH, "WHOSE": "of the page"}
WIDE = {"max_concurrent": {0: 8, 1: 8}}


def caller_of(env: Mapping[str, str]) -> Caller:
    return Caller(client_context=ClientContext(cwd="/", env=env, client="claude-jobs command line"))


def actions_of(here: World) -> Actions:
    return Actions(here.services, in_words)


async def done(here: World, caller: Caller | None = None, **asked: Any) -> tuple[str, bool]:
    return await actions_of(here).act(asked, caller)


async def status_of(here: World, job_id: str) -> JobStatus:
    job = await here.services.store.job(job_id)
    assert job is not None
    return job.status


async def has_status(here: World, job_id: str, status: JobStatus) -> bool:
    return await status_of(here, job_id) is status


def kept(here: World, root_id: str) -> dict[str, Any]:
    """What the tree's file says of its client, while the tree lives."""
    found: dict[str, Any] = json.loads((here.paths.trees / root_id / "origin.json").read_text())
    return found


async def failed(here: World, client: Any) -> str:
    """A tree that is over, and has failed."""
    job_id = str((await call_json(client, "claude_run_async", task="stub:exit=1"))["jobId"])
    await call(client, "claude_wait", {"jobIds": [job_id]})
    await until(lambda: over(here, job_id))
    return job_id


async def over(here: World, root_id: str) -> bool:
    return not (here.paths.trees / root_id / "origin.json").exists()


async def test_a_kill_ends_a_job_and_a_second_one_says_that_it_is_over(home: Path):
    async with world(home) as here, here.client() as client:
        job = await here.waiting_job(client)
        assert await done(here, do="kill", id=job.id) == (f"Job {job.id} killed", True)
        await until(lambda: has_status(here, job.id, JobStatus.CANCELLED), 20)
        assert await done(here, do="kill", id=job.id) == (f"{job.id} is over already.", False)


async def test_a_pause_holds_back_a_tree_or_everything_until_it_is_resumed(home: Path):
    async with world(home, **WIDE) as here, here.client() as client:
        job = await here.waiting_job(client)
        for identity in (job.id, ""):
            said, good = await done(here, do="pause", id=identity)
            assert good, said
            assert "claude_" not in said
            assert here.services.recursion.paused_paths.holds(job.path)
            said, good = await done(here, do="resume", id=identity)
            assert good, said
            assert not here.services.recursion.paused_paths.holds(job.path)


async def test_a_pause_at_once_ends_what_runs(home: Path):
    async with world(home) as here, here.client() as client:
        job = await here.waiting_job(client)
        said, good = await done(here, do="pause", id=job.id, now=True)
        assert good, said
        await until(lambda: has_status(here, job.id, JobStatus.QUEUED), 20)
        await done(here, do="resume", id=job.id)


async def test_a_permission_is_granted_or_denied_once(home: Path):
    async with world(home, permission_requests="person", **WIDE) as here, here.client() as client:
        job = await here.waiting_job(client)
        for do, allowed in (("allow", "allow"), ("deny", "deny")):
            answers: list[str] = []
            async with here.client(token=here.token(job)) as itself:
                asked = {"tool_name": "Read", "input": {"file_path": "/etc/hostname"}}

                async def ask(itself: Any = itself, asked: Any = asked, answers: list[str] = answers) -> None:
                    answers.append(await call(itself, "claude_permit", asked))

                here.services.start_soon(ask)
                await until(lambda: is_open(here))
                [request] = here.services.approvals.open_to(None)
                said, good = await done(here, do=do, id=request.id)
                assert good, said
                await until(partial(has, answers))
            assert json.loads(answers[0])["behavior"] == allowed
            said, good = await done(here, do=do, id=request.id)
            assert (good, "`claude-jobs approve` lists those that are open" in said) == (False, True)
        assert not (await done(here, do="allow", id=""))[1]


async def is_open(here: World) -> bool:
    return bool(here.services.approvals.open_to(None))


async def has(answers: list[str]) -> bool:
    return bool(answers)


async def test_a_retry_below_a_live_job_runs_in_the_environment_of_its_tree(home: Path):
    async with world(home, **WIDE) as here, here.client() as client:
        parent = await here.waiting_job(client)
        async with here.client(token=here.token(parent)) as itself:
            child = (await call_json(itself, "claude_run_async", task="stub:exit=1"))["jobId"]
            await call(itself, "claude_wait", {"jobIds": [child]})
        before = kept(here, parent.root_id)
        said, good = await done(here, caller_of(OF_THE_PAGE), do="retry", id=child)
        assert (said, good) == ("Queued again: 1 job.", True)
        assert kept(here, parent.root_id) == before


async def test_a_retry_of_a_tree_that_is_over_runs_in_the_environment_of_whoever_opened_the_page(home: Path):
    async with world(home) as here, here.client() as client:
        job_id = await failed(here, client)
        # It stays queued, so that its environment can be looked at.
        await done(here, do="pause", id="")
        said, good = await done(here, caller_of(OF_THE_PAGE), do="retry", id=job_id)
        assert (said, good) == ("Queued again: 1 job.", True)
        assert kept(here, job_id)["env"] == OF_THE_PAGE
        await done(here, do="kill", id=job_id)
        await done(here, do="resume", id="")


async def test_without_such_an_environment_a_tree_that_is_over_is_left_alone_and_the_person_told_what_to_do(home: Path):
    async with world(home) as here, here.client() as client:
        job_id = await failed(here, client)
        for do, more in (("retry", {}), ("send", {"message": "go on"})):
            said, good = await done(here, None, do=do, id=job_id, **more)
            assert (good, "`claude-jobs web`" in said, f"claude-jobs {do} {job_id}" in said) == (False, True, True)
        assert await status_of(here, job_id) is JobStatus.FAILED
        assert len(await here.services.store.newest_jobs(limit=10)) == 1


async def test_a_message_goes_on_with_a_session_in_the_environment_of_the_page_and_once_for_a_key(home: Path):
    async with world(home, **WIDE) as here, here.client() as client:
        first = (await call_json(client, "claude_run_async", task="stub:say=first"))["jobId"]
        await call(client, "claude_wait", {"jobIds": [first]})
        await until(lambda: over(here, first))
        asked = {"do": "send", "id": first, "message": HOLD, "key": "k1"}
        said, good = await done(here, caller_of(OF_THE_PAGE), **asked)
        assert good, said
        [second] = [job for job in await here.services.store.newest_jobs(limit=10) if job.id != first]
        assert said == f"Sent. It runs as {second.id}."
        origin = kept(here, second.root_id)
        assert (origin["env"], origin["client"], origin["cwd"]) == (OF_THE_PAGE, CLIENT, str(here.work))
        assert await done(here, caller_of(OF_THE_PAGE), **asked) == (said, True)


async def test_a_message_to_a_job_in_a_live_tree_takes_the_environment_of_that_tree(home: Path):
    async with world(home, **WIDE) as here, here.client() as client:
        parent = await here.waiting_job(client)
        async with here.client(token=here.token(parent)) as itself:
            child = (await call_json(itself, "claude_run_async", task="stub:say=first"))["jobId"]
            await call(itself, "claude_wait", {"jobIds": [child]})
        said, good = await done(here, caller_of(OF_THE_PAGE), do="send", id=child, message=HOLD)
        assert good, said
        [sent] = [job for job in await here.services.store.newest_jobs(limit=10) if not contains(parent.path, job.path)]
        assert kept(here, sent.root_id)["env"] == kept(here, parent.root_id)["env"]
        assert "WHOSE" not in kept(here, sent.root_id)["env"]


async def test_what_nobody_knows_is_refused_in_words(home: Path):
    async with world(home) as here:
        for do in ("kill", "retry", "send", "pause"):
            for identity in ("j404", "b404"):
                said, good = await done(here, caller_of(OF_THE_PAGE), do=do, id=identity, message="x")
                assert not good
                assert identity in said
                assert "claude_" not in said


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"do": "kill"},
        {"do": "dance", "id": "j1"},
        {"do": "kill", "id": 1},
        {"do": "kill", "id": "j" * 200},
        {"do": "kill", "id": "j1", "now": "yes"},
        {"do": "kill", "id": "j1", "parentJobId": "j2"},
        {"do": "send", "id": "j1", "message": None},
        ["kill", "j1"],
        "kill",
        None,
    ],
)
async def test_what_the_page_may_not_ask_for_is_refused_before_anything_happens(home: Path, asked: object):
    async with world(home) as here:
        with pytest.raises(ValueError, match=r"Input|Extra|required|String"):
            await actions_of(here).act(asked, None)

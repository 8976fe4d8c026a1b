"""A person behind a client that shows forms is asked by one, for the jobs that are waited for and for no others."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import anyio
import pytest
from mcp import Client
from mcp_types import ElicitRequestParams, ElicitResult

from jobs.model import Job
from tests.support.waiting import until
from tests.unit.mcp.modern import modern
from tests.unit.mcp.world import MODERN, World, call_json, world

pytestmark = pytest.mark.anyio

COMMAND = "echo \x1b]0;title\x07 hello"
WANTED = {"tool_name": "Bash", "input": {"command": COMMAND}}
ASKS = {"permission_requests": "person", "max_concurrent": {0: 8, 1: 8}}
FORMS: Mapping[str, Any] = {"elicitation": {"form": {}}}
SECONDS = 15.0


class Person:
    """Fills in forms.

    Args:
        action: What it does with each.
        content: What it writes into them.
    """

    def __init__(self, action: Literal["accept", "decline", "cancel"], **content: Any) -> None:
        self.answer = ElicitResult(action=action, content=content or None)
        self.shown: list[str] = []

    async def __call__(self, _: Any, params: ElicitRequestParams) -> ElicitResult:
        self.shown.append(params.message)
        return self.answer


async def decided(here: World, job: Job) -> Mapping[str, Any]:
    """Have a job ask for its permission as its claude does, and return the decision."""
    async with here.client(token=here.token(job)) as itself:
        decision: Mapping[str, Any] = await call_json(itself, "claude_permit", **WANTED)
        return decision


async def while_waited_for(here: World, client: Client, job: Job, asker: Job | None = None) -> Mapping[str, Any]:
    """Wait for a job with a client until it, or the other one, has its decision; return that."""
    decisions: list[Mapping[str, Any]] = []
    with anyio.fail_after(SECONDS):
        async with anyio.create_task_group() as group:
            group.start_soon(call_json_quietly, client, job)
            decisions.append(await decided(here, asker or job))
            group.cancel_scope.cancel()
    return decisions[0]


async def call_json_quietly(client: Client, job: Job) -> None:
    await call_json(client, "claude_wait", jobIds=[job.id])


@pytest.mark.parametrize(
    ("person", "behaviour"),
    [
        (Person("accept"), "allow"),
        (Person("decline"), "deny"),
    ],
)
async def test_a_form_is_shown_while_a_job_is_waited_for_and_decides(home: Path, person: Person, behaviour: str):
    async with world(home, **ASKS) as here, here.client(elicitation_callback=person) as client:
        job = await here.waiting_job(client)
        decision = await while_waited_for(here, client, job)
        assert decision["behavior"] == behaviour
        [message] = person.shown
        assert message.startswith(f"Job {job.id} wants to use Bash. Accept allows it this once: ")
        assert "hello" in message
        assert "\x1b" not in message


async def test_a_form_is_shown_for_what_stands_below_the_job_that_is_waited_for(home: Path):
    person = Person("accept")
    async with world(home, **ASKS) as here, here.client(elicitation_callback=person) as client:
        job = await here.waiting_job(client)
        async with here.client(token=here.token(job)) as itself:
            child = await here.waiting_job(itself)
        assert (await while_waited_for(here, client, job, child))["behavior"] == "allow"


async def test_a_form_that_is_put_away_is_not_shown_again_and_leaves_the_request_open(home: Path):
    person = Person("cancel")
    async with world(home, **ASKS) as here, here.client(elicitation_callback=person) as client:
        job = await here.waiting_job(client)
        approvals = here.services.approvals

        async def then_by_hand() -> None:
            await until(is_put_away, SECONDS)
            await call_json(client, "claude_wait", jobIds=[job.id], timeoutSeconds=0.05)
            approvals.answer(approvals.open_to(None)[0].id, None, allow=True)

        async def is_put_away() -> bool:
            return any(one.dismissed for one in approvals.open_to(None))

        async with anyio.create_task_group() as group:
            group.start_soon(then_by_hand)
            assert (await while_waited_for(here, client, job))["behavior"] == "allow"
        assert len(person.shown) == 1


async def test_a_request_that_is_answered_elsewhere_takes_its_form_back(home: Path):
    async with world(home, **ASKS) as here:
        taken_back = anyio.Event()

        async def ponders(_: Any, __: ElicitRequestParams) -> ElicitResult:
            approvals = here.services.approvals
            approvals.answer(approvals.open_to(None)[0].id, None, allow=True)
            try:
                await anyio.sleep_forever()
            finally:
                taken_back.set()
            return ElicitResult(action="cancel")

        async with here.client(elicitation_callback=ponders) as client:
            job = await here.waiting_job(client)
            with anyio.fail_after(SECONDS):
                async with anyio.create_task_group() as group:
                    group.start_soon(call_json_quietly, client, job)
                    assert (await decided(here, job))["behavior"] == "allow"
                    await taken_back.wait()
                    group.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("settings", "capable", "waited_for"),
    [
        (ASKS, False, "itself"),
        (ASKS, True, "another"),
        ({**ASKS, "permission_requests": "parent"}, True, "itself"),
    ],
)
async def test_nobody_is_shown_a_form_who_cannot_or_waits_for_another_job_or_is_not_to_be_asked(
    home: Path, settings: dict[str, Any], capable: bool, waited_for: str
):
    person = Person("accept")
    more = {"permission_seconds": 0.5}
    callback: dict[str, Any] = {"elicitation_callback": person} if capable else {}
    async with world(home, **settings, **more) as here, here.client(**callback) as client:
        job, other = await here.waiting_job(client), await here.waiting_job(client)
        decision = await while_waited_for(here, client, job if waited_for == "itself" else other, job)
        assert (decision["behavior"], person.shown) == ("deny", [])


async def test_a_wait_for_what_is_not_there_is_refused_in_words_beside_a_person(home: Path):
    async with world(home, **ASKS) as here, here.client(elicitation_callback=Person("decline")) as client:
        refused = await client.call_tool("claude_wait", {"jobIds": ["jzzzzzzzzzzzzzzzz"]})
        assert refused.is_error
        assert "not found" in str(refused.content)


@pytest.mark.parametrize(
    ("response", "behaviour"),
    [({"action": "accept"}, "allow"), ({"action": "decline"}, "deny")],
)
async def test_a_task_shows_its_forms_and_takes_their_answers(home: Path, response: Mapping[str, Any], behaviour: str):
    async with world(home, **ASKS) as here, modern(here, capabilities=FORMS) as client, here.client() as other:
        job = await here.waiting_job(other)
        begun = await client.task("claude_wait", jobIds=[job.id])
        decisions: list[Mapping[str, Any]] = []

        async def ask() -> None:
            decisions.append(await decided(here, job))

        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            asked = await client.over(begun["taskId"])
            [(key, form)] = asked["inputRequests"].items()
            assert (asked["status"], form["method"]) == ("input_required", "elicitation/create")
            assert form["params"]["requestedSchema"] == {"type": "object", "properties": {}}
            assert job.id in form["params"]["message"]
            for answers in ({"p99": response}, {key: {"action": "shrug"}}, {key: response}):
                updated = await client.ask("tasks/update", taskId=begun["taskId"], inputResponses=answers)
                assert "error" not in updated
        assert [one["behavior"] for one in decisions] == [behaviour]
        assert (await client.ask("tasks/get", taskId=begun["taskId"]))["status"] == "working"


async def test_a_task_answers_no_form_of_another_and_shows_none_to_a_client_that_cannot(home: Path):
    async with world(home, **ASKS) as here, here.client() as other:
        job, foreign = await here.waiting_job(other), await here.waiting_job(other)
        async with (
            modern(here, capabilities=FORMS) as client,
            modern(here) as incapable,
            anyio.create_task_group() as group,
        ):
            group.start_soon(decided, here, job)
            approvals = here.services.approvals

            async def is_open() -> bool:
                return bool(approvals.open_to(None))

            await until(is_open, SECONDS)
            elsewhere = await client.task("claude_wait", jobIds=[foreign.id])
            [asked] = approvals.open_to(None)
            accepted = {asked.id: {"action": "accept"}}
            assert (await client.ask("tasks/get", taskId=elsewhere["taskId"]))["status"] == "working"
            await client.ask("tasks/update", taskId=elsewhere["taskId"], inputResponses=accepted)
            own = await incapable.task("claude_wait", jobIds=[job.id])
            assert (await incapable.ask("tasks/get", taskId=own["taskId"]))["status"] == "working"
            await incapable.ask("tasks/update", taskId=own["taskId"], inputResponses=accepted)
            assert approvals.open_to(None) == [asked]
            group.cancel_scope.cancel()


async def test_a_client_of_the_newest_protocol_without_tasks_fills_in_its_forms_between_two_calls(home: Path):
    person = Person("accept")
    async with (
        world(home, **ASKS) as here,
        here.client(mode=MODERN, elicitation_callback=person) as client,
        here.client() as other,
    ):
        job = await here.waiting_job(other)
        assert (await while_waited_for(here, client, job))["behavior"] == "allow"
        assert len(person.shown) == 1


async def test_a_wait_without_forms_is_answered_at_once_to_a_client_of_the_newest_protocol(home: Path):
    async with world(home, **ASKS) as here, here.client(mode=MODERN, elicitation_callback=Person("decline")) as client:
        job = await here.waiting_job(client)
        reply = await call_json(client, "claude_wait", jobIds=[job.id], timeoutSeconds=0)
        assert reply["pending"] == 1
        refused = await client.call_tool("claude_wait", {"jobIds": ["jzzzzzzzzzzzzzzzz"]})
        assert "not found" in str(refused.content)

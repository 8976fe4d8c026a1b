"""Who is asked for a permission, who may give it, and what silence means."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import anyio
import pytest

from jobs.errors import NotFoundError
from jobs.model import Job, JobStatus
from jobs.permissions.approvals import MOST_OPEN, Answerer, Approvals, Decision
from jobs.spec import JobSpec
from tests.unit.jobs.support import job, settle

pytestmark = pytest.mark.anyio

ARGUMENTS = {"command": "git status"}


def placed(path: str, **spec: Any) -> Job:
    name = path.rpartition("/")[2]
    return job(name, root=path.partition("/")[0], path=path, spec=JobSpec(task="x", cwd="/srv", **spec))


PARENT = placed("t/a", allowed_tools=("Bash(git *)",))
CHILD = placed("t/a/b")
GRANDCHILD = placed("t/a/b/c")
STRANGER = placed("u/x", permission_mode="bypassPermissions")


def approvals(answerer: Answerer = "parent", seconds: float = 60.0) -> Approvals:
    return Approvals(answerer, seconds, lambda: 0.0)


async def asked(
    subject: Approvals, who: Job, then: Callable[[str], object], arguments: dict[str, Any] | None = None
) -> Decision:
    """Ask, do something once the request is open, and return the decision."""
    decisions: list[Decision] = []

    async def ask() -> None:
        decisions.append(await subject.ask(who, "Bash", ARGUMENTS if arguments is None else arguments))

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            await settle()
            [request] = subject.open_to(None)
            assert subject.waiting() == {who.id}
            then(request.id)
    assert subject.waiting() == frozenset()
    return decisions[0]


async def test_a_job_is_noted_to_wait_until_its_last_question_is_over_however_it_ends():
    noted: list[tuple[str, bool]] = []

    async def note(job: Job, /, *, waits: bool) -> None:
        noted.append((job.id, waits))

    subject = Approvals("parent", 60.0, lambda: 0.0, note=note)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            for _ in range(2):
                group.start_soon(subject.ask, CHILD, "Bash", ARGUMENTS)
            await settle()
            first, _ = subject.open_to(None)
            subject.answer(first.id, None, allow=True)
            await settle()
            assert noted == [(CHILD.id, True)] * 2
            group.cancel_scope.cancel()
    assert noted[2:] == [(CHILD.id, False)]


@pytest.mark.parametrize("allow", [True, False])
@pytest.mark.parametrize("answerer", ["parent", "person"])
async def test_a_person_may_always_answer(answerer: Answerer, *, allow: bool):
    subject = approvals(answerer)
    decision = await asked(subject, CHILD, lambda one: subject.answer(one, None, allow=allow))
    assert decision.allowed is allow
    assert allow or "Denied by the person" in decision.why


async def test_a_parent_and_a_grandparent_may_answer_what_they_may_do_themselves():
    for who in (CHILD, GRANDCHILD):
        subject = approvals()
        assert (await asked(subject, who, partial(subject.answer, caller=PARENT, allow=True))).allowed


@pytest.mark.parametrize(
    ("answerer", "caller", "arguments"),
    [
        ("parent", CHILD, ARGUMENTS),
        ("parent", GRANDCHILD, ARGUMENTS),
        ("parent", STRANGER, ARGUMENTS),
        ("parent", PARENT, {"command": "rm -rf /"}),
        ("parent", PARENT, {"command": "git status; rm x"}),
        ("person", PARENT, ARGUMENTS),
    ],
)
async def test_nobody_else_may_and_to_them_the_request_does_not_exist(
    answerer: Answerer, caller: Job, arguments: dict[str, Any]
):
    subject = approvals(answerer)

    def try_it(request_id: str) -> None:
        assert subject.open_to(caller) == []
        with pytest.raises(NotFoundError, match=f"Request {request_id} not found"):
            subject.answer(request_id, caller, allow=True)
        subject.answer(request_id, None, allow=False)

    assert not (await asked(subject, CHILD, try_it, arguments)).allowed


async def test_silence_is_a_no():
    decision = await approvals(seconds=0.01).ask(CHILD, "Bash", ARGUMENTS)
    assert (decision.allowed, "Nobody answered" in decision.why) == (False, True)


async def test_where_nobody_is_asked_the_answer_is_no_at_once():
    assert not (await approvals("deny").ask(CHILD, "Bash", ARGUMENTS)).allowed


async def test_an_answer_comes_once():
    subject = approvals()

    def twice(request_id: str) -> None:
        subject.answer(request_id, None, allow=True)
        with pytest.raises(NotFoundError):
            subject.answer(request_id, None, allow=False)

    assert (await asked(subject, CHILD, twice)).allowed


async def test_an_answer_to_a_question_of_an_engine_that_is_gone_decides_no_question_of_the_next():
    before, after = approvals(), approvals()
    ids: list[str] = []

    def remember(request_id: str) -> None:
        ids.append(request_id)
        before.answer(request_id, None, allow=False)

    def answer_the_old_one(request_id: str) -> None:
        with pytest.raises(NotFoundError):
            after.answer(ids[0], None, allow=True)
        after.answer(request_id, None, allow=False)

    await asked(before, CHILD, remember)
    assert not (await asked(after, GRANDCHILD, answer_the_old_one)).allowed


async def test_a_job_cannot_flood_whoever_decides():
    subject = approvals()
    async with anyio.create_task_group() as group:
        for _ in range(MOST_OPEN):
            group.start_soon(subject.ask, CHILD, "Bash", ARGUMENTS)
        await settle()
        assert not (await subject.ask(CHILD, "Bash", ARGUMENTS)).allowed
        assert len(subject.open_to(None)) == MOST_OPEN
        group.cancel_scope.cancel()
    assert subject.waiting() == frozenset()


async def test_a_parents_wait_is_interrupted_once_for_each_request():
    subject = approvals()
    async with anyio.create_task_group() as group:
        with anyio.fail_after(60), subject.wake_on_new(PARENT) as scope:
            group.start_soon(subject.ask, CHILD, "Bash", ARGUMENTS)
            await anyio.sleep_forever()
        assert scope.cancelled_caught
        with subject.wake_on_new(PARENT) as again:
            await anyio.lowlevel.checkpoint()
        assert again.cancelled_caught
        assert [one.job.id for one in subject.mark_shown(PARENT)] == ["b"]
        with subject.wake_on_new(PARENT) as told, subject.wake_on_new(None) as person:
            await anyio.lowlevel.checkpoint()
        assert not told.cancelled_caught
        assert not person.cancelled_caught
        group.cancel_scope.cancel()


async def test_a_stranger_is_not_interrupted():
    subject = approvals()
    async with anyio.create_task_group() as group:
        with subject.wake_on_new(STRANGER) as scope:
            group.start_soon(subject.ask, CHILD, "Bash", ARGUMENTS)
            await settle()
        assert not scope.cancelled_caught
        group.cancel_scope.cancel()


async def test_a_client_outside_hears_once_of_what_it_waits_for_and_of_nothing_else():
    subject = approvals()
    async with anyio.create_task_group() as group:
        group.start_soon(subject.ask, CHILD, "Bash", ARGUMENTS)
        await settle()
        with subject.wake_on_new(None, ["t/a"], client="one") as asked:
            await anyio.lowlevel.checkpoint()
        assert asked.cancelled_caught
        assert [one.job.id for one in subject.mark_shown(None, ["t/a"], client="one")] == ["b"]
        with subject.wake_on_new(None, ["t/a"], client="one") as again, subject.wake_on_new(None, ["u"]) as other:
            await anyio.lowlevel.checkpoint()
        assert not again.cancelled_caught
        assert not other.cancelled_caught
        group.cancel_scope.cancel()


async def test_where_no_job_above_may_decide_the_answer_is_no_at_once():
    child, parent = replace(CHILD, parent_id="a"), replace(PARENT, status=JobStatus.RUNNING)
    over = replace(parent, status=JobStatus.COMPLETED)
    for above, arguments in ([over], ARGUMENTS), ([parent], {"command": "rm -rf /"}):
        with anyio.fail_after(60):
            decision = await approvals().ask(child, "Bash", arguments, above=above)
        assert (decision.allowed, "No live job above" in decision.why) == (False, True)
    decision = await approvals(seconds=0.01).ask(child, "Bash", ARGUMENTS, above=[parent])
    assert "Nobody answered" in decision.why

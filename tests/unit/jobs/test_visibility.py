"""Who sees what: whatever is not the caller's answers exactly as if it were not there."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from jobs.errors import NotFoundError
from jobs.model import JobStatus
from jobs.permissions.visibility import Visibility
from jobs.store.memory import MemoryStore
from tests.contract.support import admit, admit_root, known, start

pytestmark = pytest.mark.anyio

OWN = {"own": "jme", "child": "jchild", "grandchild": "jgrandchild"}
FOREIGN = {
    "sibling": "jsibling",
    "nephew": "jnephew",
    "parent": "jparent",
    "other tree": "jother",
    "random": "j0000000000000000",
    # "jme" is a beginning of this sibling's id: paths are compared id by id.
    "sibling of a longer name": "jme2",
}
OWN_BATCHES = {"my children's": "bmine", "my grandchildren's": "bdeep"}
FOREIGN_BATCHES = {
    "the one I came with": "bhers",
    "my nephew's": "bnephew",
    "another tree's": "bother",
    "my tree's root": "broot",
    "random": "b0000000000000000",
}
Ask = Callable[[Visibility, str], Awaitable[Any]]

JOB_QUESTIONS: dict[str, Ask] = {
    "job": lambda visibility, id_: visibility.job(id_),
    "jobs": lambda visibility, id_: visibility.jobs([id_]),
    "jobs beside an own one": lambda visibility, id_: visibility.jobs(["jme", id_]),
    "subtree_selection": lambda visibility, id_: visibility.subtree_selection(id_),
    "rollup": lambda visibility, id_: visibility.rollup(id_),
}
BATCH_QUESTIONS: dict[str, Ask] = {
    "batch": lambda visibility, id_: visibility.batch(id_),
    "batch_selection": lambda visibility, id_: visibility.batch_selection(id_),
    "subtree_selection": lambda visibility, id_: visibility.subtree_selection(id_),
    "rollup": lambda visibility, id_: visibility.rollup(id_),
}


@pytest.fixture
async def store() -> MemoryStore:
    built = MemoryStore()
    await admit(built, "broot", "jparent")
    await admit(built, "bhers", "jme", "jme2", "jsibling", parent_id="jparent")
    await admit(built, "bmine", "jchild", parent_id="jme")
    await admit(built, "bdeep", "jgrandchild", parent_id="jchild")
    await admit(built, "bnephew", "jnephew", parent_id="jsibling")
    await admit(built, "bother", "jother")
    await start(built, "jme")
    return built


async def mine(store: MemoryStore) -> Visibility:
    return Visibility(store, await known(store, "jme"))


@pytest.mark.parametrize("question", JOB_QUESTIONS)
@pytest.mark.parametrize("whose", OWN)
async def test_a_job_sees_itself_and_what_is_below_it(store: MemoryStore, question: str, whose: str):
    assert await JOB_QUESTIONS[question](await mine(store), OWN[whose])


@pytest.mark.parametrize("question", JOB_QUESTIONS)
@pytest.mark.parametrize("whose", FOREIGN)
async def test_a_job_that_is_not_the_callers_is_not_there(store: MemoryStore, question: str, whose: str):
    asked, only_me = FOREIGN[whose], MemoryStore()
    await admit(only_me, "bmine", "jme")
    with pytest.raises(NotFoundError) as refused:
        await JOB_QUESTIONS[question](await mine(store), asked)
    with pytest.raises(NotFoundError) as absent:
        await JOB_QUESTIONS[question](Visibility(only_me, None), asked)
    assert (str(refused.value), vars(refused.value)) == (str(absent.value), vars(absent.value))


@pytest.mark.parametrize("question", BATCH_QUESTIONS)
@pytest.mark.parametrize("whose", OWN_BATCHES)
async def test_a_job_sees_the_batches_below_it(store: MemoryStore, question: str, whose: str):
    assert await BATCH_QUESTIONS[question](await mine(store), OWN_BATCHES[whose])


@pytest.mark.parametrize("question", BATCH_QUESTIONS)
@pytest.mark.parametrize("whose", FOREIGN_BATCHES)
async def test_a_batch_that_is_not_the_callers_is_not_there(store: MemoryStore, question: str, whose: str):
    asked = FOREIGN_BATCHES[whose]
    with pytest.raises(NotFoundError) as refused:
        await BATCH_QUESTIONS[question](await mine(store), asked)
    with pytest.raises(NotFoundError) as absent:
        await BATCH_QUESTIONS[question](Visibility(MemoryStore(), None), asked)
    assert (str(refused.value), vars(refused.value)) == (str(absent.value), vars(absent.value))


@pytest.mark.parametrize("question", JOB_QUESTIONS)
@pytest.mark.parametrize("asked", [*OWN.values(), *FOREIGN.values()])
async def test_a_person_sees_every_job_that_there_is(store: MemoryStore, question: str, asked: str):
    person = Visibility(store, None)
    if asked == FOREIGN["random"]:
        with pytest.raises(NotFoundError):
            await JOB_QUESTIONS[question](person, asked)
    else:
        assert await JOB_QUESTIONS[question](person, asked)


async def test_the_newest_are_the_callers_own_newest_first_and_paged(store: MemoryStore):
    visibility = await mine(store)
    newest = await visibility.newest(limit=2)
    rest = await visibility.newest(limit=2, before_seq=newest[-1].seq)
    assert [[job.id for job in page] for page in (newest, rest)] == [["jgrandchild", "jchild"], ["jme"]]


async def test_the_newest_of_a_person_are_everybodys(store: MemoryStore):
    newest = await Visibility(store, None).newest(limit=100)
    assert [job.seq for job in newest] == sorted((job.seq for job in newest), reverse=True)
    assert {*OWN.values(), *FOREIGN.values()} - {job.id for job in newest} == {FOREIGN["random"]}


async def test_jobs_come_in_the_order_asked_and_each_once(store: MemoryStore):
    found = await (await mine(store)).jobs(["jgrandchild", "jme", "jgrandchild", "jchild"])
    assert [job.id for job in found] == ["jgrandchild", "jme", "jchild"]


async def test_a_foreign_job_among_own_ones_is_the_one_that_is_named(store: MemoryStore):
    with pytest.raises(NotFoundError, match="jsibling"):
        await (await mine(store)).jobs(["jchild", "jsibling", "jother"])


async def test_a_rollup_counts_the_callers_subtree_and_nothing_else(store: MemoryStore):
    rollup = await (await mine(store)).rollup("jme")
    assert rollup.counts == {JobStatus.RUNNING: 1, JobStatus.QUEUED: 2}


async def test_a_batch_that_began_a_tree_stands_for_the_whole_tree(store: MemoryStore):
    await admit_root(store, "jalone")
    person = Visibility(store, None)
    assert {job.id for job in (await person.subtree_selection("broot")).jobs} == {*OWN.values(), *FOREIGN.values()} - {
        "jother",
        FOREIGN["random"],
    }
    assert [job.id for job in (await person.subtree_selection("bmine")).jobs] == ["jchild"]


async def test_a_selection_knows_its_trees_and_its_members(store: MemoryStore):
    person = Visibility(store, None)
    subtree, batch = await person.subtree_selection("jme"), await person.batch_selection("bhers")
    assert subtree.root_ids == batch.root_ids == {"broot"}
    jobs = [await known(store, id_) for id_ in ("jme", "jgrandchild", "jme2", "jother")]
    assert [list(map(selection.membership(), jobs)) for selection in (subtree, batch)] == [
        [True, True, False, False],
        [True, False, True, False],
    ]

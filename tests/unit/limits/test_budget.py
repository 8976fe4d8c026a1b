"""What is left of a budget: reserved when a job is spawned, settled by what was used."""

from typing import Any

import pytest

from jobs.limits.budget import BudgetError, BudgetKind, budget_owners, check, deadline_of, remaining_for
from jobs.live_trees import LiveTrees
from jobs.model import Job, JobStatus, Tree, Usage
from jobs.ports import AdmissionFacts, NewJob, Submission
from jobs.spec import JobSpec
from orchestration.limits import SpawnFacts
from tests.unit.jobs.support import job


def job_at(path: str, *, cost: float = 0.0, status: JobStatus = JobStatus.RUNNING, **spec: Any) -> Job:
    """A job of the tree t at a path below it."""
    return job(
        path.rpartition("/")[2],
        path=path,
        depth=path.count("/"),
        status=status,
        attempt=1,
        usage=Usage(cost_usd=cost),
        spec=JobSpec(task="x", cwd="/", **spec),
    )


def spawn(*asked: JobSpec, tree: Tree, jobs: tuple[Job, ...] = (), parent: str = "t/a", at: float = 0.0):
    """What the store reads for a spawn below a job."""
    above = [each for each in jobs if parent == each.path or parent.startswith(f"{each.path}/")]
    return AdmissionFacts(
        spawn=SpawnFacts(depth=1, asked=len(asked), tree_id="t"),
        submission=Submission(
            batch_id="b", jobs=[NewJob(id=f"n{number}", spec=spec) for number, spec in enumerate(asked)], at=at
        ),
        tree=tree,
        ancestors=above,
    )


def live_trees_of(*jobs: Job) -> LiveTrees:
    """The sums of the tree t with these jobs."""
    trees = LiveTrees()
    trees.enter(tree(), jobs)
    return trees


def wants(usd: float | None = None, **spec: Any) -> JobSpec:
    return JobSpec(task="x", cwd="/", max_budget_usd=usd, **spec)


def tree(usd: float | None = None, deadline: float | None = None) -> Tree:
    return Tree(id="t", created_at=0.0, client=None, max_budget_usd=usd, deadline=deadline)


def test_a_child_may_ask_for_all_that_is_left_and_not_for_more():
    jobs = (job_at("t/a", cost=1.0), job_at("t/b", cost=2.0))
    check(spawn(wants(2.0), tree=tree(5.0), jobs=jobs), live_trees_of(*jobs))
    with pytest.raises(BudgetError) as refused:
        check(spawn(wants(2.01), tree=tree(5.0), jobs=jobs), live_trees_of(*jobs))
    assert (refused.value.kind, refused.value.remaining, refused.value.limit) == (BudgetKind.USD, 2.0, 5.0)
    assert "2.0000 USD of 5.0000 USD of tree t" in str(refused.value)


def test_the_children_of_one_batch_are_asked_for_together():
    with pytest.raises(BudgetError, match=r"3\.0000 USD in all"):
        check(spawn(wants(1.0), wants(2.0), tree=tree(2.5), jobs=(job_at("t/a"),)), live_trees_of(job_at("t/a")))


def test_a_reservation_is_not_lent_to_a_sibling():
    jobs = (job_at("t/a"), job_at("t/b", max_budget_usd=4.0, cost=0.5))
    with pytest.raises(BudgetError) as refused:
        check(spawn(wants(1.5), tree=tree(5.0), jobs=jobs), live_trees_of(*jobs))
    assert refused.value.remaining == 1.0


def test_what_a_job_that_is_over_did_not_use_is_given_back():
    jobs = (job_at("t/a"), job_at("t/b", max_budget_usd=4.0, cost=0.5, status=JobStatus.COMPLETED))
    check(spawn(wants(4.5), tree=tree(5.0), jobs=jobs), live_trees_of(*jobs))


def test_a_reservation_lasts_while_anything_below_it_lives():
    over = job_at("t/b", max_budget_usd=4.0, status=JobStatus.FAILED)
    jobs = (job_at("t/a"), over, job_at("t/b/c", status=JobStatus.QUEUED))
    with pytest.raises(BudgetError):
        check(spawn(wants(1.5), tree=tree(5.0), jobs=jobs), live_trees_of(*jobs))


def test_a_child_spends_its_parents_reservation_not_the_trees_remainder():
    jobs = (job_at("t/a", max_budget_usd=4.0), job_at("t/b", max_budget_usd=1.0))
    check(spawn(wants(4.0), tree=tree(5.0), jobs=jobs), live_trees_of(*jobs))
    with pytest.raises(BudgetError, match="job a"):
        check(spawn(wants(4.1), tree=tree(50.0), jobs=jobs), live_trees_of(*jobs))


@pytest.mark.parametrize("asked", [None, 0.1])
def test_at_nothing_left_the_next_spawn_is_refused_whether_or_not_it_names_a_budget(asked: float | None):
    with pytest.raises(BudgetError, match=r"Nothing is left of the 1\.0000 USD of tree t"):
        check(
            spawn(wants(asked), tree=tree(1.0), jobs=(job_at("t/a", cost=1.0),)), live_trees_of(job_at("t/a", cost=1.0))
        )


def test_an_overspent_tree_refuses_below_a_job_that_has_a_reservation_left():
    jobs = (job_at("t/a", max_budget_usd=1.0), job_at("t/b", cost=5.2))
    with pytest.raises(BudgetError, match="tree t"):
        check(spawn(wants(), tree=tree(5.0), jobs=jobs), live_trees_of(*jobs))


def test_a_child_without_a_budget_shares_what_is_left():
    check(spawn(*(wants() for _ in range(50)), tree=tree(0.01), jobs=(job_at("t/a"),)), live_trees_of(job_at("t/a")))


def test_what_a_running_attempt_has_cost_counts_and_what_was_settled_counts_once():
    live_trees = live_trees_of(job_at("t/a"), job_at("t/b"))
    assert live_trees.note_usage("a", 1, Usage(cost_usd=0.75))
    assert live_trees.note_usage("b", 1, Usage(cost_usd=1.0))
    live_trees.put(job_at("t/b", cost=1.0, status=JobStatus.COMPLETED))
    assert live_trees.spent("t") == pytest.approx(1.75)


def test_jobs_below_an_ancestor_are_counted_with_what_they_may_spawn_themselves():
    jobs = (job_at("t/a", max_jobs=5), job_at("t/a/b", max_jobs=2), job_at("t/a/c"))
    check(spawn(wants(), tree=tree(), jobs=jobs), live_trees_of(*jobs))
    with pytest.raises(BudgetError) as refused:
        check(spawn(wants(), wants(), tree=tree(), jobs=jobs), live_trees_of(*jobs))
    assert (refused.value.kind, refused.value.remaining, refused.value.asked) == (BudgetKind.JOBS, 1, 2)
    assert "Spawn at most 1" in str(refused.value)


def test_a_child_that_may_spawn_needs_room_for_those_too():
    with pytest.raises(BudgetError):
        check(
            spawn(wants(max_jobs=5), tree=tree(), jobs=(job_at("t/a", max_jobs=5),)),
            live_trees_of(job_at("t/a", max_jobs=5)),
        )


def test_jobs_that_are_over_are_not_given_back():
    jobs = (job_at("t/a", max_jobs=1), job_at("t/a/b", status=JobStatus.COMPLETED))
    with pytest.raises(BudgetError, match="and has that many"):
        check(spawn(wants(), tree=tree(), jobs=jobs), live_trees_of(*jobs))


def test_a_job_that_is_tried_again_does_not_bring_more_below_an_ancestor_than_that_one_may_have():
    # While b was over, what it had not used of its five was given to its siblings.
    others = tuple(job_at(f"t/a/c{number}") for number in range(7))
    jobs = (job_at("t/a", max_jobs=10), job_at("t/a/b", max_jobs=5), *others)
    check(spawn(wants(), wants(), tree=tree(), jobs=jobs, parent="t/a/b"), live_trees_of(*jobs))
    with pytest.raises(BudgetError, match="Spawn at most 2,") as refused:
        check(spawn(wants(), wants(), wants(), tree=tree(), jobs=jobs, parent="t/a/b"), live_trees_of(*jobs))
    assert (refused.value.owner, refused.value.remaining, refused.value.limit) == ("job a", 2, 10)


def test_what_was_promised_to_a_job_is_there_for_it_however_full_its_ancestor_is():
    jobs = (job_at("t/a", max_jobs=10), job_at("t/a/b", max_jobs=5), *(job_at(f"t/a/c{number}") for number in range(4)))
    check(spawn(*(wants() for _ in range(5)), tree=tree(), jobs=jobs, parent="t/a/b"), live_trees_of(*jobs))
    check(spawn(wants(max_jobs=4), tree=tree(), jobs=jobs, parent="t/a/b"), live_trees_of(*jobs))


def test_after_its_deadline_a_subtree_spawns_nothing():
    jobs = (job_at("t/a", deadline=10.0),)
    check(spawn(wants(), tree=tree(deadline=20.0), jobs=jobs, at=9.9), live_trees_of(*jobs))
    with pytest.raises(BudgetError, match="The time of job a is over"):
        check(spawn(wants(), tree=tree(deadline=20.0), jobs=jobs, at=10.0), live_trees_of(*jobs))


def test_a_child_may_ask_for_all_of_the_time_that_is_left_and_not_for_more():
    jobs = (job_at("t/a", deadline=10.0),)
    check(spawn(wants(deadline=10.0), tree=tree(deadline=20.0), jobs=jobs, at=4.0), live_trees_of(*jobs))
    with pytest.raises(
        BudgetError, match=r"7 s is more than is left: 6 s of job a\. Leave subtreeSeconds out"
    ) as refused:
        check(spawn(wants(deadline=11.0), tree=tree(deadline=20.0), jobs=jobs, at=4.0), live_trees_of(*jobs))
    assert (refused.value.kind, refused.value.asked, refused.value.remaining) == (BudgetKind.TIME, 7.0, 6.0)


def test_the_jobs_of_a_new_tree_must_fit_into_its_budget():
    check(spawn(wants(3.0), tree=tree()), live_trees_of())
    with pytest.raises(BudgetError):
        check(spawn(wants(3.0), tree=tree(2.0)), live_trees_of())


def test_what_is_left_for_a_job_is_the_least_of_what_bounds_it():
    jobs = (job_at("t/a", max_budget_usd=4.0, cost=1.0), job_at("t/a/b", cost=0.5), job_at("t/c", cost=2.0))
    live_trees = live_trees_of(*jobs)
    assert remaining_for(budget_owners(tree(10.0), jobs[:2]), live_trees) == pytest.approx(2.5)
    assert remaining_for(budget_owners(tree(4.0), jobs[:2]), live_trees) == pytest.approx(0.5)
    assert remaining_for(budget_owners(tree(1.0), jobs[:2]), live_trees) == 0.0
    assert remaining_for(budget_owners(tree(), jobs[2:]), live_trees) is None


def test_the_earliest_deadline_bounds_a_job():
    jobs = (job_at("t/a", deadline=7.0), job_at("t/a/b", deadline=9.0))
    assert deadline_of(budget_owners(tree(deadline=8.0), jobs)) == 7.0
    assert deadline_of(budget_owners(tree(), ())) is None

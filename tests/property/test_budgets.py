"""Random trees that spawn, spend and end: no budget promises too much, none is passed, and every sum is right."""

from dataclasses import replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from jobs.limits.budget import BudgetError, budget_owners, check, remaining_for
from jobs.live_trees import LiveTrees
from jobs.model import LIVE, Batch, Job, JobStatus, Tree, Usage
from jobs.ports import AdmissionFacts, NewJob, Submission
from jobs.spec import JobSpec
from orchestration.limits import SpawnFacts
from tests.support.long_form import LONG
from tests.unit.jobs.support import job

EPSILON = 1e-6
picks = st.integers(0, 10_000)
dollars = st.one_of(st.none(), st.floats(0.01, 10.0, allow_nan=False))
rooms = st.one_of(st.none(), st.integers(1, 12))


class BudgetMachine(RuleBasedStateMachine):
    """A tree whose jobs spend no more than they are told is left to them, one after the other."""

    @initialize(usd=st.floats(0.5, 20.0))
    def plant(self, usd: float) -> None:
        self.tree = Tree(id="t", created_at=0.0, client=None, max_budget_usd=usd)
        self.jobs: dict[str, Job] = {}
        self.live: dict[tuple[str, int], float] = {}
        self.live_trees = LiveTrees()
        self.live_trees.enter(self.tree, ())
        self._add(self._new("t", JobSpec(task="x", cwd="/")))

    @rule(parent=picks, usd=dollars, room=rooms, count=st.integers(1, 3))
    def spawn(self, parent: int, usd: float | None, room: int | None, count: int) -> None:
        above = self._pick(parent)
        if above is None:
            return
        spec = JobSpec(task="x", cwd="/", max_budget_usd=usd, max_jobs=room)
        new = [self._new(above.path, spec, number) for number in range(count)]
        refusal = self._refusal(self._facts(above, spec, count))
        if refusal is None:
            for each in new:
                self._add(each)
        else:
            assert str(refusal)
            assert 0 <= refusal.remaining < max(refusal.asked, EPSILON)

    @rule(who=picks, share=st.floats(0.0, 1.0))
    def spend(self, who: int, share: float) -> None:
        spender = self._pick(who)
        if spender is None:
            return
        left = remaining_for(self._owners(spender), self.live_trees)
        assert left is not None
        key = (spender.id, spender.attempt)
        self.live[key] = self.live.get(key, 0.0) + left * share
        self.live_trees.note_usage(*key, Usage(cost_usd=self.live[key]))

    @rule(who=picks, status=st.sampled_from([JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.QUEUED]))
    def settle(self, who: int, status: JobStatus) -> None:
        ending = self._pick(who)
        if ending is None:
            return
        spent = ending.usage.cost_usd + self.live.pop((ending.id, ending.attempt), 0.0)
        before = self.live_trees.spent("t")
        self._put(replace(ending, status=status, usage=Usage(cost_usd=spent)))
        assert abs(self.live_trees.spent("t") - before) < EPSILON

    @rule(who=picks)
    def run_again(self, who: int) -> None:
        waiting = [each for each in self.jobs.values() if each.status is JobStatus.QUEUED]
        if waiting:
            again = waiting[who % len(waiting)]
            self._put(replace(again, status=JobStatus.RUNNING, attempt=again.attempt + 1))

    @invariant()
    def no_budget_is_passed_or_promised_twice(self) -> None:
        for owner in budget_owners(self.tree, list(self.jobs.values())):
            if owner.usd is not None:
                assert self.live_trees.spent(owner.path) <= self.live_trees.charged(owner.path) + EPSILON
                assert self._promised(owner.path) <= owner.usd + EPSILON
            if owner.jobs is not None:
                assert self.live_trees.jobs(owner.path) <= owner.jobs

    @invariant()
    def every_sum_is_what_the_jobs_come_to(self) -> None:
        for path in ("t", *self.jobs):
            assert abs(self.live_trees.charged(path) - self._promised(path)) < EPSILON
            below = [each for each in self.jobs.values() if each.path.startswith(f"{path}/")]
            costs = [self._cost(each) for each in (*below, *(each for each in [self.jobs.get(path)] if each))]
            assert abs(self.live_trees.spent(path) - sum(costs)) < EPSILON
            assert self.live_trees.present(path) == len(below)
            assert self.live_trees.jobs(path) == self._rooms(path)

    def _promised(self, path: str) -> float:
        """Calculate again what has been spent below a path and may still be: every live subtree its whole budget."""
        own = self.jobs.get(path)
        spent = 0.0 if own is None else self._cost(own)
        return spent + sum(self._may_cost(each) for each in self.jobs.values() if each.path.rpartition("/")[0] == path)

    def _may_cost(self, each: Job) -> float:
        below = [other for other in self.jobs.values() if other.path.startswith(f"{each.path}/")]
        lives = any(one.status in LIVE for one in (each, *below))
        return max(self._promised(each.path), (each.spec.max_budget_usd or 0.0) if lives else 0.0)

    def _cost(self, each: Job) -> float:
        return each.usage.cost_usd + self.live.get((each.id, each.attempt), 0.0)

    def _rooms(self, path: str) -> int:
        children = [each for each in self.jobs.values() if each.path.rpartition("/")[0] == path]
        return sum(1 + max(self._rooms(each.path), self._room(each)) for each in children)

    def _room(self, each: Job) -> int:
        below = [other for other in self.jobs.values() if other.path.startswith(f"{each.path}/")]
        return (each.spec.max_jobs or 0) if any(one.status in LIVE for one in (each, *below)) else 0

    def _refusal(self, facts: AdmissionFacts) -> BudgetError | None:
        try:
            check(facts, self.live_trees)
        except BudgetError as refused:
            return refused
        return None

    def _owners(self, of: Job) -> Any:
        return budget_owners(
            self.tree, [each for each in self.jobs.values() if f"{of.path}/".startswith(f"{each.path}/")]
        )

    def _facts(self, above: Job, spec: JobSpec, count: int) -> AdmissionFacts:
        line = [each for each in self.jobs.values() if f"{above.path}/".startswith(f"{each.path}/")]
        new = [NewJob(id=f"n{number}", spec=spec) for number in range(count)]
        return AdmissionFacts(
            spawn=SpawnFacts(depth=above.depth + 1, asked=count, tree_id="t"),
            submission=Submission(batch_id="b", jobs=new, parent_id=above.id),
            tree=self.tree,
            ancestors=line,
        )

    def _new(self, above: str, spec: JobSpec, number: int = 0) -> Job:
        name = f"j{len(self.jobs) + number}"
        path = f"{above}/{name}"
        return job(name, path=path, depth=path.count("/"), status=JobStatus.RUNNING, attempt=1, spec=spec)

    def _add(self, new: Job) -> None:
        self.jobs[new.path] = new
        batch = Batch(id=f"b{new.id}", root_id="t", parent_id=None, idempotency_key=None, created_at=0.0)
        self.live_trees.admit([new], batch)

    def _put(self, changed: Job) -> None:
        self.jobs[changed.path] = changed
        self.live_trees.put(changed)

    def _pick(self, number: int) -> Job | None:
        running = [each for each in self.jobs.values() if each.status is JobStatus.RUNNING]
        return running[number % len(running)] if running else None


BudgetMachine.TestCase.settings = settings(max_examples=300 if LONG else 20, stateful_step_count=40, deadline=None)
TestBudgets = BudgetMachine.TestCase

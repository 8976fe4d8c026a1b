"""Sums of a tree are those of its jobs, whatever happens to them and in whatever order."""

from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from jobs.ids import contains
from jobs.model import Job, JobStatus, Usage
from jobs.spec import JobSpec
from jobs.waiting_for import WaitingFor
from server.feed.sums import TreeSums

SPEC = JobSpec(task="t", cwd="/")
PATHS = ("r", "r/a", "r/a/b", "r/a/b/c", "r/a/d", "r/e", "r/e/f")
STEPS = st.tuples(
    st.sampled_from(PATHS),
    st.sampled_from(sorted(JobStatus)),
    st.booleans(),
    st.integers(0, 100),
    st.none() | st.integers(0, 9),
)


def job_at(path: str, status: JobStatus = JobStatus.QUEUED, *, asks: bool = False, tokens: int = 0) -> Job:
    return Job(
        seq=PATHS.index(path) if path in PATHS else 99,
        id=path.rpartition("/")[2],
        root_id=path.partition("/")[0],
        parent_id=None,
        batch_id="b",
        depth=path.count("/"),
        path=path,
        spec=SPEC,
        status=status,
        waiting_for=WaitingFor.PERMISSION if asks and status is JobStatus.RUNNING else None,
        usage=Usage(cost_usd=tokens / 100, input_tokens=tokens, output_tokens=2 * tokens),
    )


@given(st.lists(STEPS, max_size=40))
def test_the_sums_are_those_of_the_jobs_after_any_changes_in_any_order(steps: list) -> None:
    sums, jobs, running = TreeSums("r"), {}, {}
    for path, status, asks, tokens, used in steps:
        jobs[path] = job_at(path, status, asks=asks, tokens=tokens)
        running[path] = 0 if used is None else used
        sums.put(jobs[path], None if used is None else Usage(input_tokens=used))

    for path, job in jobs.items():
        below = [path_ for path_ in jobs if path_ != path and contains(path, path_)]
        node = sums.node(job)
        if not below:
            assert node.below is None
            continue
        assert node.below is not None
        row = node.below.as_row()
        assert row["counts"] == Counter(jobs[one].status for one in below)
        assert row["asking"] == sum(jobs[one].waiting_for is not None for one in below)
        assert row["inputTokens"] == sum(jobs[one].usage.input_tokens + running[one] for one in below)
        assert row["outputTokens"] == sum(jobs[one].usage.output_tokens for one in below)
        assert abs(row["costUsd"] - sum(jobs[one].usage.cost_usd for one in below)) < 1e-6
        assert node.children == sum(one.count("/") == path.count("/") + 1 for one in below)
    assert sums.totals.jobs == len(jobs)
    assert sums.deepest == max((job.depth for job in jobs.values()), default=0)


def test_a_change_names_what_is_above_it_and_one_that_adds_nothing_names_nobody() -> None:
    sums = TreeSums("r")
    for path in PATHS:
        sums.put(job_at(path))

    changed = sums.put(job_at("r/a/b/c", JobStatus.RUNNING))
    assert [node.id for node in changed] == ["b", "a", "r"]
    assert sums.put(replace(job_at("r/a/b/c", JobStatus.RUNNING), excerpt="more")) == ()


def test_a_batch_at_the_root_is_summed_up_without_being_a_job() -> None:
    sums = TreeSums("batch")
    sums.put(replace(job_at("batch/y"), seq=8))
    sums.put(replace(job_at("batch/x"), seq=7))
    assert sums.totals.as_row()["counts"] == {"queued": 2}
    assert sums.first is not None
    assert sums.first.id == "x"

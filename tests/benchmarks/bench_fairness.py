"""Four trees at once on a machine with fewer slots than they want: what share each gets, and whether one must wait."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import anyio
import pytest

from jobs.model import Job
from jobs.spec import TaskRequest
from server.mcp.connection_state import Services
from tests.benchmarks.bench_engine import STUB, Node, engine, node_stub, random_tree, run, write_plan

pytestmark = pytest.mark.anyio

SIZES = (240, 120, 60, 30)
"""Jobs of each flat tree; the largest comes first and would keep every slot to its end if all stood in one line."""

SLOTS = 6
NODES = 60


async def test_four_flat_trees_of_different_sizes_share_the_slots(tmp_path: Path):
    async with engine(tmp_path / "state", STUB, max_running=SLOTS) as services:
        batches = [["stub:sleep=0.1"] * size for size in SIZES]
        trees = await side_by_side(services, [(tmp_path, tasks) for tasks in batches])
    starts = in_order(trees)
    contested = while_all_wait(starts, trees)
    shares = Counter(contested)
    print(f"\n{'jobs':>6} {'over at':>8} {'of the contested starts':>24} {'longest row of others':>22}")
    for number, jobs in enumerate(trees):
        share = shares[number] / len(contested)
        print(f"{len(jobs):>6} {over_at(jobs, trees):>8.2f} {share:>24.3f} {longest_row(contested, number):>22}")
    print(f"{len(contested)} starts while all four waited; least share of the largest: {evenness(shares):.2f}")
    assert len(contested) >= min(SIZES)


async def test_four_trees_whose_jobs_wait_for_their_children_all_end(tmp_path: Path):
    roots = [random_tree(random.Random(seed), NODES, 1.0) for seed in range(4)]
    places = [tmp_path / str(number) for number in range(4)]
    for root, place in zip(roots, places, strict=True):
        place.mkdir()
        write_plan(root, place)
    async with engine(tmp_path / "state", node_stub(tmp_path), max_running=SLOTS) as services:
        divided = TaskRequest(task="node:0 ", can_decompose=True)
        trees = await side_by_side(services, [(place, [divided]) for place in places])
    least = max(sum(map(work, roots)) / SLOTS, *(root.critical for root in roots))
    took = span(trees)
    ends = ", ".join(f"{over_at(jobs, trees):.2f}" for jobs in trees)
    print(f"\n4 trees of {NODES} jobs on {SLOTS} slots: {took:.2f} s, {took / least:.2f} of what their work needs")
    print(f"each tree is over at {ends} of it")
    assert [len(jobs) for jobs in trees] == [NODES] * 4


async def side_by_side(
    services: Services, batches: Sequence[tuple[Path, Sequence[str | TaskRequest]]]
) -> list[Sequence[Job]]:
    """Run one tree for each batch, all at once, and return every job of each."""
    roots: dict[int, str] = {}

    async def grow(number: int, place: Path, tasks: Sequence[str | TaskRequest]) -> None:
        roots[number] = (await run(services, tasks, place))[0].root_id

    async with anyio.create_task_group() as group:
        for number, (place, tasks) in enumerate(batches):
            group.start_soon(grow, number, place, tasks)
    return [await services.store.jobs_under(roots[number]) for number in range(len(batches))]


def in_order(trees: Sequence[Sequence[Job]]) -> list[tuple[float, int]]:
    """Return when each job started and which tree it belongs to, the first one first."""
    return sorted((job.started_at or 0.0, number) for number, jobs in enumerate(trees) for job in jobs)


def while_all_wait(starts: Sequence[tuple[float, int]], trees: Sequence[Sequence[Job]]) -> list[int]:
    """Return the trees of the starts from when each has had one, and so has jobs queued, to when one has had all."""
    begin = max(min(job.started_at or 0.0 for job in jobs) for jobs in trees)
    end = min(max(job.started_at or 0.0 for job in jobs) for jobs in trees)
    return [number for at, number in starts if begin < at <= end]


def longest_row(contested: Sequence[int], number: int) -> int:
    """Return the most starts of other trees between two of this one."""
    longest = row = 0
    for other in contested:
        row = 0 if other == number else row + 1
        longest = max(longest, row)
    return longest


def evenness(shares: Mapping[int, int]) -> float:
    """Return the smallest share divided by the largest; 1 is even."""
    return min(shares.values()) / max(shares.values())


def span(trees: Sequence[Sequence[Job]]) -> float:
    """Return the seconds from the first admission to the last end."""
    everybody = [job for jobs in trees for job in jobs]
    return max(job.ended_at or 0.0 for job in everybody) - min(job.created_at for job in everybody)


def over_at(jobs: Sequence[Job], trees: Sequence[Sequence[Job]]) -> float:
    """Return when a tree was over, as a part of the whole run."""
    began = min(job.created_at for each in trees for job in each)
    return (max(job.ended_at or 0.0 for job in jobs) - began) / span(trees)


def work(node: Node) -> float:
    """Return the seconds that a tree's jobs take together."""
    return node.seconds + sum(map(work, node.children))

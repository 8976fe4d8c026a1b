"""The statistics tools: the older server's dashboard, and the limits with their present use."""

from dataclasses import replace
from typing import Any

from jobs.metrics import JobMetrics, job_metrics
from jobs.model import LIVE, JobStatus, Rollup
from jobs.recursion_manager import RecursionStatistics
from server.mcp.arguments import NoArguments
from server.mcp.connection_state import Call
from server.mcp.replies import paused, pretty, spending
from server.mcp.tool_definitions import tool

_FIGURES_OVER = 5000
"""How many of the newest jobs the averages of the dashboard are taken from; the counts are those of all."""

_ROOTS = 100
"""Most trees whose live jobs are counted one by one."""


@tool(
    title="Show figures",
    about="How many jobs run, completed and failed, how long they take, what the engine holds.",
    reads=True,
)
async def claude_dashboard(call: Call, _: NoArguments) -> str:
    """Return the dashboard's figures."""
    store = call.services.store
    sums = await store.rollup_all() if call.job is None else await store.rollup_under(call.job.path)
    jobs = await call.visibility.newest(limit=_FIGURES_OVER)
    return dashboard(
        sums,
        job_metrics(jobs, now=call.services.now()),
        deepest=max((job.depth for job in jobs if job.status in LIVE), default=0),
        resident=call.services.resident(),
        statistics=await _statistics(call),
    )


@tool(
    title="Show limits",
    about="Limits of depth, width and concurrency, and how much is in use.",
    reads=True,
)
async def claude_recursion_stats(call: Call, _: NoArguments) -> str:
    """Return the limits and how much of them is in use."""
    return recursion_statistics(await _statistics(call))


TOOLS = (claude_dashboard, claude_recursion_stats)


async def _statistics(call: Call) -> RecursionStatistics:
    """Return the figures of the machine; a job gets only its own tree's."""
    statistics = await call.services.recursion.statistics()
    if call.job is None:
        return statistics
    own = call.job.root_id
    own_pauses = call.services.recursion.all_pauses((own,))
    by_root = {own: statistics.live_by_root.get(own, 0)}
    return replace(statistics, live_by_root=by_root, pauses=own_pauses, spending=())


def dashboard(
    sums: Rollup, figures: JobMetrics, *, deepest: int, resident: int, statistics: RecursionStatistics
) -> str:
    """Answer `claude_dashboard` with the older server's keys, where `failedJobs` includes cancelled ones.

    Args:
        sums: Every job that the caller may see.
        figures: Averages of their times.
        deepest: Depth of the deepest live job.
        resident: Bytes of memory that the engine holds.
        statistics: As for `claude_recursion_stats`.
    """
    completed = sums.counts.get(JobStatus.COMPLETED, 0)
    return pretty(
        {
            "activeJobs": sums.live,
            "completedJobs": completed,
            "failedJobs": sums.total - sums.live - completed,
            "averageDuration": round(figures.average_seconds, 3),
            "parallelEfficiency": round(figures.parallelism, 3),
            "nestedDepth": deepest,
            "systemLoad": round(resident / 2**20, 1),
            "recursionStats": _recursion(statistics),
            "cancelledJobs": sums.counts.get(JobStatus.CANCELLED, 0),
            "costUsd": round(sums.usage_so_far.cost_usd, 6),
            **spending(statistics.spending),
        }
    )


def recursion_statistics(statistics: RecursionStatistics) -> str:
    """Answer `claude_recursion_stats`."""
    return pretty(_recursion(statistics))


def _recursion(statistics: RecursionStatistics) -> dict[str, Any]:
    by_root = dict(sorted(statistics.live_by_root.items(), key=lambda one: -one[1])[:_ROOTS])
    left = len(statistics.live_by_root) - len(by_root)
    return {
        "max_depth": statistics.limits.max_depth,
        "depth_counts": {str(depth): count for depth, count in sorted(statistics.live_by_depth.items())},
        "root_job_counts": by_root,
        **({"otherRoots": left} if left else {}),
        "active_contexts": statistics.running + statistics.waiting,
        "running": statistics.running,
        "waiting": statistics.waiting,
        "limits": {
            "maxConcurrent": {str(k): v for k, v in statistics.limits.max_concurrent.items()},
            "maxChildren": statistics.limits.max_children,
            "maxJobs": statistics.limits.max_nodes,
        },
        **({} if statistics.window is None else {"window": statistics.window}),
        **paused(statistics.pauses),
    }

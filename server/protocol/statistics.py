"""The two tools about figures: the older server's dashboard, and the limits with how much of them is in use."""

from dataclasses import replace

from jobs.figures import figures_of
from jobs.model import LIVE
from jobs.recursion_manager import RecursionStatistics
from server.protocol import replies
from server.protocol.arguments import NoArguments
from server.protocol.tools import Call

_FIGURES_OVER = 5000
"""How many of the newest jobs the averages of the dashboard are taken from; the counts are those of all."""


async def claude_dashboard(call: Call, _: NoArguments) -> str:
    """Tell the older server's figures, as they are."""
    store = call.services.store
    sums = await store.rollup_all() if call.job is None else await store.rollup_under(call.job.path)
    jobs = await call.sight.newest(limit=_FIGURES_OVER)
    return replies.dashboard(
        sums,
        figures_of(jobs, now=call.services.now()),
        deepest=max((job.depth for job in jobs if job.status in LIVE), default=0),
        resident=call.services.resident(),
        statistics=await _statistics(call),
    )


async def claude_recursion_stats(call: Call, _: NoArguments) -> str:
    """Tell the limits and how much of them is in use."""
    return replies.recursion_statistics(await _statistics(call))


async def _statistics(call: Call) -> RecursionStatistics:
    """Return the figures of the machine; of trees a job hears of its own alone."""
    statistics = await call.services.recursion.statistics()
    if call.job is None:
        return statistics
    own = call.job.root_id
    return replace(statistics, live_by_root={own: statistics.live_by_root.get(own, 0)})

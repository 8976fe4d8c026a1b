"""What it all cost, and what one tree did: by account, day, tree, depth and model, running attempts included."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import anyio

from jobs.activity import Activity
from jobs.costs import CostStore, DepthCost, ModelCost, TreeCost
from jobs.errors import NotFoundError
from jobs.limits.account_budgets import AccountFigures
from jobs.model import Job, JobStatus, Usage
from jobs.ports import Clock, Store
from jobs.spending import local_day
from server.feed.rows import short_text
from server.mcp.replies import account_shown

MOST_TREES: Final = 200
"""Most trees; the dearest ones are shown."""

MOST_ACCOUNTS: Final = 50
"""Most accounts; those that spent most this month are shown."""

DAYS: Final = 30
"""Days that are shown, today included."""

KEPT_SECONDS: Final = 3.0
"""Seconds for which sums over all trees are kept: ten pages that look at the costs ask for the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CostSources:
    """What costs are read from.

    Args:
        store: Where trees are kept.
        sums: Sums over what is stored.
        figures: Returns what accounts have spent, and may.
        account_names: Returns the names of accounts by the shown part of their digests.
        activity_of: Returns what a job does now, or None where no attempt of it runs.
        clock: Time.
    """

    store: Store
    sums: CostStore
    figures: Callable[[], Sequence[AccountFigures]]
    account_names: Callable[[], Awaitable[Mapping[str, str]]]
    activity_of: Callable[[Job], Activity | None]
    clock: Clock


@dataclass(frozen=True, slots=True)
class _Running:
    """What a running attempt has used so far."""

    job: Job
    model: str | None
    usage: Usage


class Costs:
    """Reads costs.

    Args:
        sources: What they are read from.
    """

    def __init__(self, sources: CostSources) -> None:
        self._sources = sources
        self._reading = anyio.Lock()
        self._kept: tuple[float, dict[str, Any]] | None = None

    async def all(self) -> dict[str, Any]:
        """Return what everything that is kept has cost; at most `KEPT_SECONDS` old.

        Raises:
            StoreError: It cannot be read now.
        """
        async with self._reading:
            now = self._sources.clock.monotonic()
            if self._kept is None or now - self._kept[0] >= KEPT_SECONDS:
                self._kept = (now, await self._read_all())
            return self._kept[1]

    async def of_tree(self, root_id: str) -> dict[str, Any]:
        """Return what one tree has cost.

        Args:
            root_id: Id of the job or the batch at its root.

        Raises:
            NotFoundError: There is no such tree.
            StoreError: It cannot be read now.
        """
        sums = self._sources.sums
        tree = next((one for one in await sums.tree_costs(limit=0, also=[root_id])), None)
        if tree is None:
            raise NotFoundError("Tree", root_id)
        running = await self._running(root_id)
        row = _tree_row(tree, _sum(one.usage for one in running))
        return {
            "ok": True,
            **{name: row[name] for name in ("rootId", "title", "costUsd", "maxBudgetUsd") if name in row},
            "depths": _depth_rows(await sums.depth_costs(root_id), running),
            "models": _model_rows(await sums.model_costs(root_id), running),
        }

    async def _read_all(self) -> dict[str, Any]:
        sources = self._sources
        running = await self._running()
        figures = sources.figures()
        everything = (await sources.store.rollup_all()).usage
        return {
            "ok": True,
            "totalUsd": _usd((everything + _sum(one.usage for one in running)).cost_usd),
            "accounts": _account_rows(figures, await sources.account_names()),
            "days": await self._days(figures),
            "trees": await self._trees(running),
            "depths": _depth_rows(await sources.sums.depth_costs(), running),
            "models": _model_rows(await sources.sums.model_costs(), running),
        }

    async def _running(self, root_id: str | None = None) -> Sequence[_Running]:
        # From memory, for one tree too: one that is over may have ten thousand jobs on the disk.
        jobs = [job for job in await self._sources.store.unfinished() if root_id in (None, job.root_id)]
        found = ((job, self._sources.activity_of(job)) for job in jobs if job.status is JobStatus.RUNNING)
        return [_Running(job, activity.model, activity.usage) for job, activity in found if activity is not None]

    async def _days(self, figures: Sequence[AccountFigures]) -> list[dict[str, Any]]:
        now = self._sources.clock.now()
        days: dict[str, float] = {}
        for one in await self._sources.store.spending(local_day(now - (DAYS - 1) * 86_400)):
            days[one.day] = days.get(one.day, 0.0) + one.cost_usd
        # That of attempts which run is in the figures alone.
        if spent := max(days.get(local_day(now), 0.0), sum(one.today for one in figures)):
            days[local_day(now)] = spent
        return [{"day": day, "costUsd": _usd(cost)} for day, cost in sorted(days.items())]

    async def _trees(self, running: Sequence[_Running]) -> list[dict[str, Any]]:
        more: dict[str, Usage] = {}
        for one in running:
            more[one.job.root_id] = more.get(one.job.root_id, Usage()) + one.usage
        dearest = sorted(more, key=lambda root_id: -more[root_id].cost_usd)[:MOST_TREES]
        found = await self._sources.sums.tree_costs(limit=MOST_TREES, also=dearest)
        rows = [_tree_row(tree, more.get(tree.root_id, Usage())) for tree in found]
        return sorted(rows, key=lambda row: -row["costUsd"])[:MOST_TREES]


def _account_rows(figures: Sequence[AccountFigures], names: Mapping[str, str]) -> list[dict[str, Any]]:
    rows = []
    for one in figures[:MOST_ACCOUNTS]:
        shown = account_shown(one.account)
        row = {
            "account": names.get(shown, shown),
            "dayUsd": _usd(one.today),
            "dayBudgetUsd": one.daily,
            "monthUsd": _usd(one.month),
            "monthBudgetUsd": one.monthly,
        }
        rows.append({name: value for name, value in row.items() if value is not None})
    return rows


def _tree_row(tree: TreeCost, running: Usage) -> dict[str, Any]:
    row = {
        "rootId": tree.root_id,
        "title": short_text(tree.title),
        "jobs": tree.jobs,
        "costUsd": _usd(tree.cost_usd + running.cost_usd),
        "maxBudgetUsd": tree.max_budget_usd,
        "createdAt": tree.created_at,
        "endedAt": tree.ended_at,
    }
    return {name: value for name, value in row.items() if value is not None}


def _depth_rows(costs: Sequence[DepthCost], running: Sequence[_Running]) -> list[dict[str, Any]]:
    def used(cost: DepthCost) -> Usage:
        return cost.usage + _sum(one.usage for one in running if one.job.depth == cost.depth)

    return [{"depth": one.depth, "jobs": one.jobs, **_usage_row(used(one))} for one in costs]


def _model_rows(costs: Sequence[ModelCost], running: Sequence[_Running]) -> list[dict[str, Any]]:
    attempts = {one.model: one.attempts for one in costs}
    used = {one.model: one.usage for one in costs}
    for one in running:
        attempts[one.model] = attempts.get(one.model, 0) + 1
        used[one.model] = used.get(one.model, Usage()) + one.usage
    dearest_first = sorted(used, key=lambda model: (-used[model].cost_usd, model or ""))
    rows = [{"model": model, "attempts": attempts[model], **_usage_row(used[model])} for model in dearest_first]
    # An attempt that no model answered has used nothing, and says nothing here.
    return [row for row in rows if row["model"] is not None or row["costUsd"] or row["inputTokens"]]


def _sum(usages: Iterable[Usage]) -> Usage:
    return sum(usages, start=Usage())


def _usage_row(usage: Usage) -> dict[str, Any]:
    return {
        "costUsd": _usd(usage.cost_usd),
        "inputTokens": usage.input_tokens,
        "outputTokens": usage.output_tokens,
    }


def _usd(cost: float) -> float:
    return round(max(0.0, cost), 6)

"""What trees have cost: by depth, by model, and the dearest ones. Attempts that run are not in these sums."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from jobs.model import Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthCost:
    """What the jobs of one depth have used.

    Args:
        depth: Edges from the root.
        jobs: Number of jobs.
        usage: What their attempts that are over have used.
    """

    depth: int
    jobs: int
    usage: Usage = field(default_factory=Usage)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCost:
    """What the attempts have used that one model answered.

    Args:
        model: The model, as the API names it, or None where that is not known.
        attempts: Number of attempts that are over.
        usage: What they have used.
    """

    model: str | None
    attempts: int
    usage: Usage = field(default_factory=Usage)


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeCost:
    """What a tree has cost.

    Args:
        root_id: Its root.
        title: Key or task of the root job, or of the first job of the batch at the root.
        jobs: Number of jobs.
        cost_usd: US dollars that its attempts that are over have cost.
        max_budget_usd: Most US dollars for all of it, that of a root job too, or None.
        created_at: Seconds since the epoch.
        ended_at: Seconds since the epoch at which its last job ended, or None while one lives.
    """

    root_id: str
    title: str
    jobs: int
    cost_usd: float
    max_budget_usd: float | None
    created_at: float
    ended_at: float | None


class CostStore(Protocol):
    """Sums over what is stored. Every method raises `StoreError` where the storage fails."""

    async def depth_costs(self, root_id: str | None = None) -> Sequence[DepthCost]:
        """Return what jobs have used by depth, of one tree or of all, the root first."""
        ...

    async def model_costs(self, root_id: str | None = None) -> Sequence[ModelCost]:
        """Return what attempts have used by model, in one tree or in all, the dearest first."""
        ...

    async def tree_costs(self, *, limit: int, also: Sequence[str] = ()) -> Sequence[TreeCost]:
        """Return what trees have cost, the dearest first.

        Args:
            limit: Most trees.
            also: Trees that are returned too, if they are there.
        """
        ...

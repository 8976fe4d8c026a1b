"""Answers control requests to the engine: status, settings, one job, pruning, limits and the stop."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import anyio.to_thread

from jobs.effective_settings import EffectiveSettings
from jobs.errors import StoreError
from jobs.ids import is_batch_id
from jobs.limit_changes import LimitChanges
from jobs.maintenance.db_recovery import damage_words, last_recovery
from jobs.maintenance.pruning import Retention
from jobs.model import LIVE
from jobs.ports import Store
from jobs.recursion_manager import RecursionManager
from jobs.search import Search
from jobs.store.corruption import noted_damage
from server import __version__
from server.client.location import read_location
from server.client.state_dir import StatePaths
from server.engine.lifecycle import ConnectionCounter
from server.engine.limit_requests import answer_limits
from server.engine.search_requests import answer_search
from server.feed.job_details import JobDetails
from server.mcp import replies

Handler = Callable[[Mapping[str, Any]], Awaitable[dict[str, Any]]]
"""Answers a control request."""


class Control:
    """Answers control requests.

    Args:
        paths: A prepared state directory.
        store: Where trees are kept.
        recursion: Knows whether launches are paused.
        retention: Prunes old trees.
        connection_counter: Counts the connections.
        in_use: Returns which `claude` and which accounts jobs use; blocks.
        end_pauses: Forgets usage limits, so that the next engine keeps none.
        limits: Reads and changes limits of trees.
        search: Searches all trees.
        settings: The settings in force.
        details: Reads everything about one job.
        on_pruned: Called with the id of each tree that a person has deleted.
        page_port: Returns the port at which the page is served, or None.
        report: Answers the control request `report`.
    """

    def __init__(
        self,
        *,
        paths: StatePaths,
        store: Store,
        recursion: RecursionManager,
        retention: Retention,
        connection_counter: ConnectionCounter,
        in_use: Callable[[], Mapping[str, Any]],
        end_pauses: Callable[[], None],
        limits: LimitChanges,
        search: Search,
        settings: EffectiveSettings,
        undelivered: Callable[[], Awaitable[list[str]]],
        details: JobDetails,
        on_pruned: Callable[[str], None],
        page_port: Callable[[], int | None],
        report: Handler,
    ) -> None:
        self._paths = paths
        self._store = store
        self._recursion = recursion
        self._retention = retention
        self._connection_counter = connection_counter
        self._in_use = in_use
        self._end_pauses = end_pauses
        self._settings = settings
        self._undelivered = undelivered
        self._details = details
        self._on_pruned = on_pruned
        self._page_port = page_port
        self._handlers: Mapping[str, Handler] = {
            "stop": self._stop,
            "status": self._status,
            "settings": self._settings_of,
            "prune": self._prune,
            "limits": partial(answer_limits, limits),
            "search": partial(answer_search, search),
            "job": self._job,
            "report": report,
        }

    async def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Answer a request, by its `do`: one of those of `_handlers`.

        `leaving` in the answer makes the engine stop once the answer is sent.
        """
        do = request.get("do")
        handler = self._handlers.get(do) if isinstance(do, str) else None
        if handler is None:
            known = f"{', '.join(self._handlers)}, web and feed"
            return {"ok": False, "error": f"Unknown request {str(do)[:40]!r}; there are {known}."}
        return await handler(request)

    async def _stop(self, request: Mapping[str, Any]) -> dict[str, Any]:
        if request.get("if_idle") and not await self.idle():
            return {"ok": False, "error": "The engine has work."}
        if not request.get("if_idle"):
            # A person's request: a newer client that replaces an idle engine sends `if_idle`.
            self._end_pauses()
        return {"ok": True, "pid": os.getpid(), "leaving": True, "jobs": await self._fate_of_jobs()}

    async def _settings_of(self, request: Mapping[str, Any]) -> dict[str, Any]:
        return {"ok": True, "pid": os.getpid(), **await self._settings_for(request)}

    async def _job(self, request: Mapping[str, Any]) -> dict[str, Any]:
        return await self._details.of(str(request.get("job")))

    async def idle(self) -> bool:
        """Tell whether nothing would be lost if the engine stopped: no other client is connected and no job goes on."""
        if self._connection_counter.connections > 1:
            return False
        # Paused jobs need no engine, unless its end is theirs.
        ends = self._settings.settings.end_jobs_on_stop
        return not await (self._store.has_unfinished() if ends else self._recursion.has_work())

    async def _fate_of_jobs(self) -> str:
        """Return what happens to live jobs when the engine stops, as the end of a sentence."""
        if not await self._store.has_unfinished():
            return ""
        return "its jobs end" if self._settings.settings.end_jobs_on_stop else "its jobs go on"

    async def _settings_for(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return each setting in force, and how the variables in the request differ from them."""
        if await anyio.to_thread.run_sync(self._settings.refresh):
            logging.getLogger().setLevel(self._settings.settings.log_level)
        variables = _variables(request)
        if variables is None:
            return {"settings": self._settings.table(None), "note": None}
        live = await self._store.has_unfinished()
        return {
            "settings": self._settings.table(variables),
            "note": self._settings.notice(variables, jobs_live=live),
        }

    async def _prune(self, request: Mapping[str, Any]) -> dict[str, Any]:
        only, dry_run = request.get("trees", []), bool(request.get("dry_run"))
        if not isinstance(only, list) or not all(isinstance(tree_id, str) for tree_id in only):
            return {"ok": False, "error": "trees: give an array of ids, or leave it out. Nothing was deleted."}
        try:
            for tree_id in only:
                if (problem := await self._no_ended_tree(tree_id)) is not None:
                    return {"ok": False, "error": problem}
            pruned = await self._retention.prune(dry_run=dry_run, only=only)
        except (StoreError, OSError) as error:
            return {"ok": False, "error": f"Trees that are over could not be pruned: {error}"}
        for tree_id in () if dry_run else pruned.trees:
            self._on_pruned(tree_id)
        return {
            "ok": True,
            "dryRun": dry_run,
            "trees": list(pruned.trees),
            "jobs": pruned.jobs,
            "bytes": pruned.bytes,
            "keptBytes": pruned.kept_bytes,
        }

    async def _no_ended_tree(self, identity: str) -> str | None:
        """Return why this is no tree that can be pruned, or None."""
        part = await (self._store.batch(identity) if is_batch_id(identity) else self._store.job(identity))
        if part is None:
            return f"There is no tree {identity}. `claude-jobs list` shows the jobs."
        if part.root_id != identity:
            return f"{identity} is a part of the tree {part.root_id}. Name that tree: only whole trees are deleted."
        if not LIVE.isdisjoint((await self._store.rollup_under(identity)).counts):
            return f"The tree {identity} is not over. `claude-jobs kill {identity}` ends it."
        return None

    async def _status(self, request: Mapping[str, Any]) -> dict[str, Any]:
        everything = await self._store.rollup_all()
        report = await anyio.to_thread.run_sync(last_recovery, self._paths.database)
        damage = await anyio.to_thread.run_sync(noted_damage, self._paths.database)
        location = await anyio.to_thread.run_sync(read_location, self._paths.home)
        return {
            "ok": True,
            "pid": os.getpid(),
            "version": __version__,
            "socket": str(self._paths.socket),
            "connections": self._connection_counter.connections,
            "tasks": len(asyncio.all_tasks()),
            "jobs": {str(status): count for status, count in sorted(everything.counts.items())},
            "costUsd": round(everything.usage_so_far.cost_usd, 6),
            "damage": None if damage is None else damage_words(damage),
            "rescue": None if report is None else {**asdict(report), "says": str(report)},
            "copy": None if location is None else location.says(),
            "hooks": await self._undelivered(),
            "pagePort": self._page_port(),
            **replies.paused(self._recursion.pauses()),
            **replies.spending(self._recursion.spending()),
            "pausedByRequest": [str(pause) for pause in self._recursion.paused_paths.live()],
            **await anyio.to_thread.run_sync(self._in_use),
            **await self._settings_for(request),
        }


def _variables(request: Mapping[str, Any]) -> dict[str, str] | None:
    given = request.get("variables")
    if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()):
        return None
    return given

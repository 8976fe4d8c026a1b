"""The engine's services over a state directory of their own, and SDK clients that call them in memory."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import anyio
from mcp import Client
from mcp.server.runner import serve_dual_era_loop
from mcp.shared.memory import create_client_server_memory_streams
from mcp_types import CallToolResult, RequestParamsMeta, TextContent

from jobs.client_context import ClientContext
from jobs.ids import hash_token
from jobs.model import Job, JobStatus
from jobs.settings import Settings
from server.client.state_dir import StatePaths, prepare
from server.engine.app import assemble
from server.mcp.connection_state import Caller, Connection, Services
from server.mcp.server import build_server
from server.mcp.subscriptions import Subscriptions
from tests.support.waiting import until

STUB = Path(__file__).parents[2] / "fakes" / "claude_stub.sh"
"""Answers within a millisecond, and as the task's directives say."""

PATH = "/usr/bin:/bin"
LEGACY, MODERN = "legacy", "2026-07-28"
ERAS = (LEGACY, MODERN)


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Services that run the stub, and ways to call them.

    Args:
        services: What the tools call.
        paths: The state directory.
        work: The directory that jobs work in.
    """

    services: Services
    paths: StatePaths
    work: Path

    @asynccontextmanager
    async def client(
        self, *, token: str | None = None, mode: str = LEGACY, name: str = "test", **options: Any
    ) -> AsyncIterator[Client]:
        """Connect an SDK client in memory, as a person or as the job that holds a token; options are the client's."""
        client_context = ClientContext(cwd=str(self.work), env={"PATH": PATH}, client=name)
        caller = Caller(client_context=client_context, token_hash=hash_token(token) if token else None)
        beside = transport(Connection(services=self.services, caller=caller))
        async with Client(beside, mode=mode, read_timeout_seconds=60, **options) as client:
            yield client

    async def waiting_job(self, client: Client, **arguments: Any) -> Job:
        """Start a job that waits until the test is over, and return it once its process runs."""
        job_id = (await call_json(client, "claude_run_async", task="stub:wait=/nonexistent", **arguments))["jobId"]
        found: list[Job] = []

        async def begun() -> bool:
            job = await self.services.store.job(job_id)
            if job is not None and self._begun(job):
                found.append(job)
            return bool(found)

        await until(begun)
        return found[-1]

    def token(self, job: Job) -> str:
        """Return the token that a running job's pump would find."""
        return str(json.loads((self._attempt(job) / "in").read_bytes().splitlines()[0])["claude_jobs_token"])

    def _begun(self, job: Job) -> bool:
        stdin = self._attempt(job) / "in"
        return job.status is JobStatus.RUNNING and stdin.exists() and stdin.stat().st_size > 0

    def _attempt(self, job: Job) -> Path:
        return self.paths.trees / job.root_id / job.id / str(job.attempt)


@asynccontextmanager
async def world(home: Path, **settings: Any) -> AsyncIterator[World]:
    """Build the services; at the end every job that still runs is cancelled."""
    paths, work = prepare(home / "state"), home / "work"
    work.mkdir()
    chosen = Settings(**{"home": paths.home, "cli": STUB, "grace_seconds": 0.2, **settings})
    async with anyio.create_task_group() as group, assemble(chosen, paths, group) as services:
        yield World(services=services, paths=paths, work=work)
        for job in await services.store.unfinished():
            await services.manager.cancel(job.id)
        await until(lambda: everything_is_over(services), 60)
        group.cancel_scope.cancel()


async def everything_is_over(services: Services) -> bool:
    """Tell whether each job has ended, and with it its process."""
    return await services.store.unfinished() == []


async def call(client: Client, tool: str, arguments: Mapping[str, Any], meta: Mapping[str, Any] | None = None) -> str:
    """Call a tool that succeeds and return its text."""
    result = await client.call_tool(tool, dict(arguments), meta=cast(RequestParamsMeta | None, meta))
    assert not result.is_error, text_of(result)
    return text_of(result)


async def call_json(client: Client, tool: str, **arguments: Any) -> Any:
    """Call a tool that succeeds and return the JSON in its text."""
    return json.loads(await call(client, tool, arguments))


async def refusal(client: Client, tool: str, **arguments: Any) -> str:
    """Call a tool that refuses and return its words."""
    result = await client.call_tool(tool, arguments)
    assert result.is_error, text_of(result)
    words = text_of(result)
    assert "Traceback" not in words
    assert 'File "' not in words
    return words


def text_of(result: CallToolResult) -> str:
    """Return the one block of text that a reply consists of."""
    [block] = result.content
    assert isinstance(block, TextContent)
    assert result.structured_content is None
    return block.text


@asynccontextmanager
async def transport(state: Connection) -> AsyncIterator[Any]:
    """Connect two ends in memory, of which a server holds the other."""
    async with create_client_server_memory_streams() as (client_streams, server_streams):
        server = build_server(Subscriptions(state.services.event_bus, state.services.start_soon))

        async def serve() -> None:
            options = server.create_initialization_options()
            await serve_dual_era_loop(server, *server_streams, lifespan_state=state, init_options=options)

        async with anyio.create_task_group() as group:
            group.start_soon(serve)
            yield client_streams
            group.cancel_scope.cancel()

"""The production app over loopback HTTP, for test suites that speak nothing else: `python -m tests.e2e.http_server`.

With `fixtures` as the third argument it also answers for what the conformance suite asks every server for by name.
"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import uvicorn
from mcp.server.lowlevel import Server

from jobs.client_context import ClientContext
from jobs.settings import Settings
from server.client.state_dir import prepare
from server.engine.app import assemble
from server.mcp.connection_state import Caller, Connection
from server.mcp.server import build_server
from server.mcp.subscriptions import Subscriptions
from tests.e2e.suite.events import Events
from tests.e2e.suite.overlay import add_fixtures
from tests.support.engines import SHELL_STUB, SYSTEM_PATH


async def serve(home: Path, port: int, fixtures: bool) -> None:
    """Serve until the process is ended.

    Args:
        home: State directory.
        port: On 127.0.0.1.
        fixtures: Serve the suite's fixtures too.
    """
    paths = prepare(home)
    settings = Settings(home=paths.home, cli=SHELL_STUB)
    async with anyio.create_task_group() as group, assemble(settings, paths, group) as services:
        server = build_server(Subscriptions(services.event_bus, services.start_soon))
        caller = Caller(client_context=ClientContext(cwd="/", env={"PATH": SYSTEM_PATH}, client="http"))
        connection = Connection(services=services, caller=caller)

        @asynccontextmanager
        async def lifespan(_: Server[Connection]) -> AsyncIterator[Connection]:
            yield connection

        server.lifespan = lifespan
        if fixtures:
            add_fixtures(server)
        app = server.streamable_http_app(event_store=Events() if fixtures else None, retry_interval=100)
        config = uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning")
        await uvicorn.Server(config).serve()
        group.cancel_scope.cancel()


if __name__ == "__main__":
    anyio.run(serve, Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:] == ["fixtures"])

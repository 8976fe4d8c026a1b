"""An engine's parts over the stub that spends, and that stub's own bill."""

from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio

from jobs.client_context import ClientContext
from jobs.model import Job
from jobs.spec import TaskRequest
from jobs.validation import TreeBounds
from tests.support.waiting import until
from tests.unit.jobs.support import CLIENT_ENV, Parts, parts

STUB = Path(__file__).parents[1] / "fakes" / "spending_stub.py"
LOOK_SECONDS = 0.02


class Till:
    """What the stubs say that they have spent.

    Args:
        path: The file that they bill in.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def by_session(self) -> dict[str, float]:
        """US dollars by session."""
        spent: defaultdict[str, float] = defaultdict(float)
        for line in self.path.read_text().splitlines() if self.path.exists() else ():
            session, dollars = line.split()
            spent[session] += float(dollars)
        return spent

    def total(self) -> float:
        """US dollars of all sessions."""
        return sum(self.by_session().values())


class Shop:
    """Starts jobs that spend.

    Args:
        engine: The parts.
        root: An empty directory, for the stub's files.
    """

    def __init__(self, engine: Parts, root: Path) -> None:
        self.engine = engine
        self.root = root
        self.till = Till(root / "bill")
        self.home = root / "client"
        self.home.mkdir()

    @property
    def client_context(self) -> ClientContext:
        env = CLIENT_ENV | {"HOME": str(self.home)}
        return ClientContext(cwd=str(self.engine.work), env=env, client="a client")

    def task(self, **directives: object) -> str:
        """A task with these directives of the stub's."""
        return " ".join(f"stub:{name}={value}" for name, value in {"bill": self.till.path, **directives}.items())

    async def start(
        self, requests: Sequence[str | TaskRequest], *, parent: str | None = None, **bounds: Any
    ) -> Sequence[Job]:
        """Start a batch, with bounds for its tree."""
        admission = await self.engine.manager.submit(
            requests, parent, client_context=self.client_context, bounds=TreeBounds(**bounds) if bounds else None
        )
        return admission.jobs

    async def speaks(self, job: Job) -> None:
        """Wait until a job has made its first call."""

        async def has_paid() -> bool:
            session = (await self.engine.job(job.id)).session_id
            return session is not None and self.till.by_session().get(session, 0.0) > 0

        await until(has_paid, 20.0)


@asynccontextmanager
async def shop(tmp_path: Path, **settings: Any) -> AsyncIterator[Shop]:
    """Build the parts over the stub that spends."""
    async with parts(tmp_path, processes=True, cli=STUB, **settings) as engine:
        engine.group.start_soon(_poke, engine)
        yield Shop(engine, tmp_path)


async def _poke(engine: Parts) -> None:
    # As the composition root does: the gate opens by itself.
    while True:
        await anyio.sleep(LOOK_SECONDS)
        engine.scheduler.reschedule()

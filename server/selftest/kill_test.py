"""The kill test: clients submit, wait and cancel without pause while the engine is killed again and again."""

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any
from uuid import uuid4

from server.client.connect import control
from server.client.engine_socket import EngineEndpoint, lock
from server.client.state_dir import prepare
from server.client.tool_client import ToolError
from server.client.wire import ClientError, Hello
from server.selftest.check import PromiseCheck, check_promises
from server.selftest.mcp_client import McpClient, caller
from server.selftest.stub import StubTask, write_stub

TIMEOUT_SECONDS = 60.0
"""Seconds within which an engine must answer after one was killed; a start takes three on a busy core (measured)."""

_LOOK = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How hard a kill test is.

    Args:
        kills: Most kills.
        seconds: Most seconds of killing.
        clients: How many clients.
        longest_life: Most seconds that an engine lives on after its first answer. It loads what it starts jobs with in
            about two of them (measured on two busy cores).
        seed: Of the random choices.
    """

    kills: int
    seconds: float
    clients: int = 3
    longest_life: float = 4.0
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a kill test did and found.

    Args:
        kills: Engines that were killed.
        repeated: Calls that a client had to repeat because no engine took them.
        refused: What tools refused, which should be nothing.
        died: Clients that ended too early, which should be none, and why.
        outages: Seconds from each kill to the next engine's first answer.
        seconds: How long it took.
        verdict: What was found at the end.
    """

    kills: int
    repeated: int
    refused: list[str]
    died: list[str]
    outages: list[float]
    seconds: float
    verdict: PromiseCheck

    @property
    def good(self) -> bool:
        """Whether every promise was kept and every call of every client was answered."""
        return self.verdict.good and not self.refused and not self.died

    def lines(self) -> list[str]:
        """Return the figures, and then every broken promise."""
        found = self.verdict
        outage = f"{median(self.outages):.2f} s, at most {max(self.outages):.2f} s" if self.outages else "none"
        return [
            f"{self.kills} kills in {self.seconds:.0f} s; from a kill to the next answer {outage}",
            f"{found.acknowledged} jobs acknowledged, {found.jobs} in the database",
            f"lost {len(found.lost)}, run twice {len(found.twice)}, wrong outcome {len(found.wrong)}",
            f"attempts with lines of output missing or doubled {len(found.events)}",
            f"calls repeated {self.repeated}, refused {len(self.refused)}, clients lost {len(self.died)}",
            *(f"  {line}" for kind in (found.lost, found.twice, found.wrong, found.events) for line in kind[:5]),
            *(f"  {line}" for line in (*self.refused[:5], *self.died)),
        ]


@dataclass
class _Notes:
    """The answers that the clients got; each client writes only its own."""

    acknowledged: dict[str, StubTask] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    died: list[str] = field(default_factory=list)
    repeated: int = 0


class KillTest:
    """One kill test over its own state directory.

    Args:
        base: An empty directory with a short path.
        plan: How hard it is.
        environ: Settings for the engine, in addition to those of the kill test.
    """

    def __init__(self, base: Path, plan: Plan, environ: Mapping[str, str] | None = None) -> None:
        for name in ("home", "work"):
            (base / name).mkdir(exist_ok=True)
        write_stub(base / "claude", base / "ledger")
        self.environ = {
            "HOME": str(base / "home"),
            "PATH": os.defpath,
            "CLAUDE_JOBS_HOME": str(base / "state"),
            "CLAUDE_JOBS_CLI": str(base / "claude"),
            "CLAUDE_JOBS_GRACE_SECONDS": "0.5",
            # An interrupted kill test leaves no process; one that ends well has no job left.
            "CLAUDE_JOBS_END_JOBS_ON_STOP": "true",
            **(environ or {}),
        }
        self.endpoint = EngineEndpoint(paths=prepare(base / "state"), environ=self.environ)
        self._base = base
        self._plan = plan
        self._start: Callable[[], None] | None = None
        self._random = random.Random(plan.seed)  # noqa: S311 - a campaign is repeated by its seed
        self._notes = _Notes()
        self._enough = threading.Event()
        self._callers: list[McpClient] = []

    def start_with(self, start: Callable[[], None]) -> None:
        """Start engines by `start` after each kill, instead of by the clients' pumps."""
        self._start = start

    def run(self, tell: Callable[[str], None] = lambda _line: None) -> Report:
        """Run it to its end and return the report.

        Args:
            tell: Called now and then with a line on the progress.

        Raises:
            TimeoutError: No engine came after one was killed.
            EOFError: No engine can come, since every client has died and nothing else starts one.
        """
        began = time.monotonic()
        if self._start is not None:
            self._start()
        clients = [
            threading.Thread(target=self._be_client, args=(index,), daemon=True) for index in range(self._plan.clients)
        ]
        try:
            for thread in clients:
                thread.start()
            outages = self._kill(began, tell)
            self._enough.set()
            self._join(clients)
        finally:
            self._end(clients)
        verdict = check_promises(self.endpoint.paths, self._base / "ledger", self._notes.acknowledged)
        return Report(
            kills=len(outages),
            repeated=self._notes.repeated,
            refused=self._notes.refused,
            died=self._notes.died,
            outages=outages,
            seconds=time.monotonic() - began,
            verdict=verdict,
        )

    def _kill(self, began: float, tell: Callable[[str], None]) -> list[float]:
        """Kill engines at random moments after their first answer; return the seconds until each next one's."""
        outages: list[float] = []
        pid = self._answering(0)
        while len(outages) < self._plan.kills and time.monotonic() - began < self._plan.seconds:
            time.sleep(self._random.uniform(0, self._plan.longest_life))
            os.kill(pid, signal.SIGKILL)
            killed = time.monotonic()
            if self._start is not None:
                self._start()
            pid = self._answering(pid)
            outages.append(time.monotonic() - killed)
            tell(f"{len(outages)} kills, {len(self._notes.acknowledged)} jobs")
        return outages

    def _answering(self, dead: int) -> int:
        """Wait for an engine other than the dead one to answer and return its process id."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while time.monotonic() < deadline and not self._deserted():
            try:
                answer = self._ask("status")
            except (ClientError, OSError):
                answer = None
            # An engine that cannot read its store says so, and no pid.
            if answer and answer.get("pid", dead) != dead:
                return int(answer["pid"])
            time.sleep(_LOOK)
        log = f"the engine's log is {self.endpoint.paths.log}"
        if self._deserted():
            raise EOFError(f"no client is left to start an engine ({'; '.join(self._notes.died)}); {log}")
        raise TimeoutError(f"no engine answered within {TIMEOUT_SECONDS:g} s; {log}")

    def _deserted(self) -> bool:
        return 0 < self._plan.clients <= len(self._notes.died)

    def _ask(self, do: str) -> dict[str, Any] | None:
        return control(self.endpoint, {"do": do}, Hello(cwd="/", client="selftest"))

    def _end(self, clients: Sequence[threading.Thread]) -> None:
        """Leave nothing running, also where the kill test is interrupted and clients are in a call."""
        self._enough.set()
        # The clients first: one that still asks would start another engine.
        for client in self._callers:
            client.hang_up()
        self._join(clients)
        self._stop_engine()

    def _join(self, clients: Sequence[threading.Thread]) -> None:
        # Bounded: a client that waits for a lost job would wait for ever. If its pump is ended, it counts as died.
        deadline = time.monotonic() + TIMEOUT_SECONDS
        for thread in clients:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _stop_engine(self) -> None:
        self._ask("stop")
        held = lock(self.endpoint.paths.engine_lock, TIMEOUT_SECONDS)
        if held is not None:
            os.close(held)

    def _be_client(self, index: int) -> None:
        died = "it ended with a traceback"
        try:
            with caller(self.endpoint.paths.home, self.environ, self._base / "work") as client:
                self._callers.append(client)
                self._talk(client, random.Random(f"{self._plan.seed} {index}"))  # noqa: S311 - likewise
                self._notes.repeated += client.repeated
            died = ""
        except (EOFError, OSError) as error:
            died = str(error)
        finally:
            if died:
                self._notes.died.append(f"client {index}: {died}")

    def _talk(self, client: McpClient, choice: random.Random) -> None:
        while not self._enough.is_set():
            try:
                self._one_round(client, choice)
            except ToolError as error:
                self._notes.refused.append(str(error))

    def _one_round(self, client: McpClient, choice: random.Random) -> None:
        tasks = [_stub_task(choice) for _ in range(choice.choice((1, 3)))]
        job_ids = _submit(client, tasks)
        self._notes.acknowledged.update(zip(job_ids, tasks, strict=True))
        for job_id, task in zip(job_ids, tasks, strict=True):
            if task.cancel:
                client.call("claude_kill_job", jobId=job_id)
        cursor, pending = None, len(job_ids)
        while pending:
            reply = client.call("claude_wait", jobIds=job_ids, timeoutSeconds=20, cursor=cursor)
            cursor, pending = reply["cursor"], reply["pending"]


def _submit(client: McpClient, tasks: list[StubTask]) -> list[str]:
    # The key is the client's own here: where the pump gives up, it is the client who repeats the call.
    key = tasks[0].token
    if len(tasks) == 1:
        return [client.call("claude_run_async", task=tasks[0].task, idempotencyKey=key)["jobId"]]
    texts = [task.task for task in tasks]
    found: list[str] = client.call("claude_run_batch_async", tasks=texts, idempotencyKey=key)["jobIds"]
    return found


def _stub_task(choice: random.Random) -> StubTask:
    token = uuid4().hex[:12]
    match choice.random():
        case chance if chance < 0.15:
            return StubTask(token, seconds=60, cancel=True)
        case chance if chance < 0.25:
            return StubTask(token, code=3)
        case chance if chance < 0.5:
            return StubTask(token, seconds=round(choice.uniform(0.1, 1.0), 2))
        case _:
            return StubTask(token)

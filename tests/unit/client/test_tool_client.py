"""The command line's client before engines that the test plays: what it does when one goes away during a call."""

import json
import socket
import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from server.client.tool_client import Client, EngineLostError, ToolError

SECONDS = 20.0
ANSWER = {"content": [{"type": "text", "text": "done"}]}


class Engine(threading.Thread):
    """Shakes hands, notes each call, and answers it or goes away.

    Args:
        answer: What it answers a call with; None goes away instead.
    """

    def __init__(self, answer: dict[str, Any] | None) -> None:
        super().__init__(daemon=True)
        self.answer = answer
        self.calls: list[Any] = []
        self.client, self._own = socket.socketpair()
        self.client.settimeout(SECONDS)
        self._own.settimeout(SECONDS)
        self.start()

    def run(self) -> None:
        with self._own, self._own.makefile("rb") as lines:
            for line in lines:
                message = json.loads(line)
                if message["method"] == "tools/call":
                    self.calls.append(message["params"])
                    if self.answer is None:
                        return
                if "id" in message:
                    answer = {"jsonrpc": "2.0", "id": message["id"], "result": self.answer}
                    self._own.sendall(json.dumps(answer).encode() + b"\n")


def dial(*engines: Engine) -> Callable[[], socket.socket]:
    """Return what connects to one engine after the other."""
    left = iter(engines)
    return lambda: next(left).client


def test_a_call_is_made_once_more_where_the_engine_goes_away_meanwhile():
    first, second, third = Engine(None), Engine(None), Engine(ANSWER)
    with closing(Client(first.client, dial(second, third))) as client:
        with pytest.raises(EngineLostError, match="claude-jobs wait ID"):
            client.call("claude_run_async", {"task": "t", "idempotencyKey": "k"})
        asked = {"name": "claude_run_async", "arguments": {"task": "t", "idempotencyKey": "k"}}
        assert first.calls == second.calls == [{**asked, "_meta": {"claude-jobs/whole": True}}]
        # The next call is not lost for it.
        assert client.call("claude_list_jobs", {}) == "done"


def test_the_next_engine_is_greeted_before_it_is_asked():
    first, second = Engine(None), Engine(ANSWER)
    with closing(Client(first.client, dial(second))) as client:
        assert client.call("claude_list_jobs", {"limit": 3}) == "done"
    assert [call["arguments"] for call in second.calls] == [{"limit": 3}]


def test_what_a_tool_refuses_is_not_asked_again():
    first = Engine({**ANSWER, "isError": True})
    with closing(Client(first.client, dial())) as client, pytest.raises(ToolError, match="done"):
        client.call("claude_kill_job", {"jobId": "j1"})
    assert len(first.calls) == 1

#!/usr/bin/env -S python3 -I -S
"""A `claude` that spends: makes calls of a known price, reports them as the CLI does, and bills them in a file.

Directives in the task's text, each `stub:NAME=VALUE`:
    bill=F       append "SESSION DOLLARS" to F for every part of a call, before it is reported
    calls=N      how many calls of the model it makes, 1 by default      pause=S   seconds within each call
    read=N, written=N   tokens of a call, 1,000 and 500 by default       model=M   the model, else claude-sonnet-5-5
    die=N        end itself with SIGKILL after the N-th call of its first attempt
    limited=N    meet an overloaded API after the N-th call of its first attempt
    used_up=S    in its first attempt, meet a usage limit that ends in S seconds, before any call
    reset=F      the same, with the epoch of the limit's end in the file F; a request before it is refused too
    starts=F     append the session to F when it starts
    rmdir=N      remove its own attempt directory after its calls, with 2 its job's, with 3 its tree's, with 4 all trees
    rmcwd=1      remove its working directory after its calls
    sparse=N     make its stdout N bytes long without writing them
    noise=N, flood=N   write N bytes to stderr or stdout after its calls, as fast as the disk takes them
    fall=NAME    after its calls end itself with the signal SIGNAME, in every attempt
    wait=F       wait after its calls until F exists, a minute at most
    stay=S       stay for S seconds after its answer
    requests=F   append the time of every request to F      argv=F   append the arguments of every attempt to F
A SIGTERM is obeyed between two parts of a call, so that the bill and the report agree.
"""

import json
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NOISE = b'{"type":"noise","text":"' + b"x" * 65509 + b'"}\n'
"""64 KiB: a frame that says nothing."""

PRICES = {"claude-sonnet-5-5": (2.0, 10.0), "claude-opus-5-5": (4.0, 20.0)}


class Stub:
    """One attempt."""

    def __init__(self, task: str, session: str, *, resumed: bool) -> None:
        self.given = dict(re.findall(r"stub:([a-z_]+)=([^\s\"]*)", task))
        self.session = session
        self.resumed = resumed
        self.spent = 0.0
        self.ordered_away = False
        signal.signal(signal.SIGTERM, self.on_term)

    def on_term(self, number: int, frame: object) -> None:
        self.ordered_away = True

    def number(self, name: str, default: float) -> float:
        return float(self.given.get(name, default))

    def emit(self, kind: str, **fields: Any) -> None:
        data = json.dumps({"type": kind, "session_id": self.session, **fields}).encode() + b"\n"
        while data:
            data = data[os.write(1, data) :]

    def event(self, kind: str, **fields: Any) -> None:
        self.emit("stream_event", event={"type": kind, **fields}, parent_tool_use_id=None)

    def bill(self, dollars: float) -> None:
        self.spent += dollars
        if path := self.given.get("bill"):
            append(path, f"{self.session} {dollars:.9f}\n")

    def call(self, number: int) -> None:
        """Make a call: its input is billed when it begins, its output when it ends."""
        model = self.given.get("model", "claude-sonnet-5-5")
        read, written = int(self.number("read", 1000)), int(self.number("written", 500))
        price_in, price_out = PRICES[model]
        message = {"id": f"msg_{self.session}_{os.getpid()}_{number}", "role": "assistant", "model": model}
        self.bill(read * price_in / 1e6)
        self.event("message_start", message={**message, "usage": {"input_tokens": read, "output_tokens": 0}})
        self.leave_if_ordered()
        time.sleep(self.number("pause", 0))
        self.leave_if_ordered()
        self.bill(written * price_out / 1e6)
        usage = {"input_tokens": read, "output_tokens": 1}
        self.emit("assistant", message={**message, "content": [{"type": "text", "text": "on"}], "usage": usage})
        self.event("message_delta", delta={"stop_reason": "tool_use"}, usage={"output_tokens": written})
        self.leave_if_ordered()

    def leave_if_ordered(self) -> None:
        if self.ordered_away:
            sys.exit(143)

    def result(self, **fields: Any) -> None:
        usage = {"stub": {"costUSD": self.spent, "inputTokens": 0, "outputTokens": 0}}
        answer = {
            "subtype": "success", "is_error": False, "result": "done", "num_turns": 1, "permission_denials": [],
            "terminal_reason": "completed", "total_cost_usd": self.spent + (1000.0 if self.resumed else 0.0),
            "model_usage_since_last_result": usage if self.spent else {},
        }  # fmt: skip
        self.emit("result", **(answer | fields))


def append(path: str, line: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, line.encode())
    os.close(descriptor)


def refuse(stub: Stub, resets_at: float) -> int:
    info = {"status": "rejected", "resetsAt": resets_at, "rateLimitType": "five_hour"}
    stub.emit("rate_limit_event", rate_limit_info=info)
    stub.emit("assistant", message={"role": "assistant", "content": []}, error="rate_limit")
    stub.result(is_error=True, result="You've hit your 5-hour limit", terminal_reason="api_error", api_error_status=429)
    return 1


def overloaded(stub: Stub) -> int:
    stub.emit("system", subtype="api_retry", attempt=1, max_retries=3, retry_delay_ms=5, error_status=529)
    stub.result(is_error=True, result="API Error: 529", terminal_reason="api_error", api_error_status=529)
    return 1


def limit_of(stub: Stub) -> float | None:
    """Return the end of the usage limit that this request meets, or None."""
    if path := stub.given.get("requests"):
        append(path, f"{time.time()}\n")
    if path := stub.given.get("reset"):
        resets_at = float(Path(path).read_text())
        return resets_at if time.time() < resets_at else None
    if "used_up" in stub.given and not stub.resumed:
        return time.time() + stub.number("used_up", 0)
    return None


def run(stub: Stub) -> int:
    if path := stub.given.get("starts"):
        append(path, f"{stub.session}\n")
    if path := stub.given.get("argv"):
        append(path, " ".join(sys.argv[1:]) + "\n")
    stub.emit("system", subtype="init", model="stub", tools=[], mcp_servers=[], claude_code_version="2.1.330")
    if (resets_at := limit_of(stub)) is not None:
        return refuse(stub, resets_at)
    for number in range(1, int(stub.number("calls", 1)) + 1):
        stub.call(number)
        if not stub.resumed and number == stub.number("die", 0):
            os.kill(os.getpid(), signal.SIGKILL)
        if not stub.resumed and number == stub.number("limited", 0):
            return overloaded(stub)
    misbehave(stub)
    stub.result()
    time.sleep(stub.number("stay", 0))
    return 0


def misbehave(stub: Stub) -> None:
    damage(stub)
    for name, descriptor in (("noise", 2), ("flood", 1)):
        for _ in range(int(stub.number(name, 0)) // len(NOISE)):
            os.write(descriptor, NOISE)
    until = time.monotonic() + 60.0
    while "wait" in stub.given and not Path(stub.given["wait"]).exists() and time.monotonic() < until:
        time.sleep(0.01)
    if signal_name := stub.given.get("fall"):
        number = getattr(signal, f"SIG{signal_name}")
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def damage(stub: Stub) -> None:
    if "rmdir" in stub.given:
        shutil.rmtree(Path("/proc/self/fd/1").readlink().parents[int(stub.number("rmdir", 1)) - 1])
    if "rmcwd" in stub.given:
        shutil.rmtree(Path.cwd())
    if "sparse" in stub.given:
        os.ftruncate(1, int(stub.number("sparse", 0)))


def task_of(session: str, said: str) -> str:
    """Return the session's task: what was said first, kept beside the session as the CLI keeps its transcripts."""
    kept = Path(os.environ.get("HOME", ".")) / f"{session}.task"
    if kept.exists():
        return kept.read_text()
    kept.write_text(said)
    return said


def main(argv: list[str]) -> int:
    sys.stdin.readline()
    message: Mapping[str, Any] = json.loads(sys.stdin.readline() or "{}")
    options = dict(argument.split("=", 1) for argument in argv if "=" in argument)
    session = options.get("--resume") or options.get("--session-id") or ""
    said = task_of(session, str(message.get("message", {}).get("content", "")))
    return run(Stub(said, session, resumed="--resume" in options))


if __name__ == "__main__":
    sys.exit(main(sys.argv))

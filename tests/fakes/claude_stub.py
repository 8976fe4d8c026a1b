#!/usr/bin/env -S python3 -I -S
"""A `claude` for torture: misbehaves as the directives in the task's text say, and otherwise answers as the CLI does.

Directives, each `stub:NAME=VALUE` up to the next blank or quotation mark:
    do=SCENARIO  one of the functions in SCENARIOS    arg=VALUE    its argument
    ledger=F     append "SESSION begin" and "SESSION end" to F
    pids=F       append the ids of processes that the scenario starts to F
    ready=F      create F once the scenario stands
    cost=USD, say=WORD, sleep=S                       the answer and when it comes
Whatever waits "for ever" ends after two minutes, so that a failing test leaves nothing for good.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

FOR_EVER = 120.0
TERMINATORS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Stub:
    """What the scenarios share: the directives and the frames."""

    def __init__(self, task: str, session: str) -> None:
        self.given = dict(re.findall(r"stub:([a-z]+)=([^\s\"]*)", task))
        self.session = session
        self.results = 0

    def emit(self, kind: str, **fields: Any) -> None:
        self.write(json.dumps({"type": kind, "session_id": self.session, **fields}).encode() + b"\n")

    def write(self, data: bytes) -> None:
        while data:
            data = data[os.write(1, data) :]

    def init(self) -> None:
        self.emit("system", subtype="init", model="stub", tools=[], mcp_servers=[], claude_code_version="2.1.330")

    def say(self, words: str, **fields: Any) -> None:
        self.emit("assistant", message={"role": "assistant", "content": [{"type": "text", "text": words}]}, **fields)

    def result(self, **fields: Any) -> None:
        answer = {
            "subtype": "success",
            "is_error": False,
            "result": self.given.get("say", "done"),
            "num_turns": 1,
            "total_cost_usd": float(self.given.get("cost", "0.001")),
            "usage": {"input_tokens": 10, "output_tokens": 20},
            "permission_denials": [],
            "terminal_reason": "completed",
            "result_index": self.results,
        }
        self.results += 1
        self.emit("result", **(answer | fields))

    def fail(self, words: str, **fields: Any) -> None:
        self.result(is_error=True, result=words, terminal_reason="api_error", total_cost_usd=0, **fields)

    def ready(self) -> None:
        if path := self.given.get("ready"):
            append(path, "ready\n")

    def note(self, pid: int) -> None:
        if path := self.given.get("pids"):
            append(path, f"{pid}\n")


def append(path: str, line: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, line.encode())
    os.close(descriptor)


def answer(stub: Stub) -> int:
    stub.say(stub.given.get("say", "done"))
    stub.result()
    return 0


def exit_at_once(stub: Stub) -> int:
    os.write(2, b"the stub was told to fail\n")
    return int(stub.given.get("arg", "1"))


def garbage(stub: Stub) -> int:
    stub.write(b"Welcome to the banner\n\xff\xfe\x00\x80 no text\n\n{broken json\n[1, 2]\n")
    stub.write(b'{"type":' + b"[" * 100_000 + b"\n" + b'{"type": 7, "message": [null], "subtype": {}}\n')
    stub.say("\x1b]52;c;aGVsbG8=\x07\x1b[31mred\x1b[0m \ud800")
    stub.result()
    stub.write(b'{"type":"assistant","partial')
    return 0


def big_line(stub: Stub) -> int:
    left = int(stub.given.get("arg", str(100 * 1024 * 1024)))
    while left:
        piece = min(left, 1024 * 1024)
        stub.write(b"x" * piece)
        left -= piece
    stub.write(b"\n")
    return answer(stub)


def ignore_term(stub: Stub) -> int:
    for number in TERMINATORS:
        signal.signal(number, signal.SIG_IGN)
    stub.ready()
    time.sleep(FOR_EVER)
    return 0


def silent(stub: Stub) -> int:
    stub.ready()
    time.sleep(FOR_EVER)
    return 0


def linger(stub: Stub) -> int:
    answer(stub)
    return silent(stub)


def daemonise(stub: Stub, environment: dict[str, str] | None = None) -> int:
    """Leave a daemon behind: forked twice, in a session of its own, its files closed."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            sleep_elsewhere(stub, os.environ if environment is None else environment)
        os._exit(0)
    os.wait()
    wait_for(stub.given.get("pids"))
    return answer(stub)


def daemonise_unseen(stub: Stub) -> int:
    """The same, with nothing left by which it could be known."""
    return daemonise(stub, {})


def daemonise_scrubbed(stub: Stub) -> int:
    """Leave a child without the environment, in a session of its own, and go on living above it."""
    if os.fork() == 0:
        os.setsid()
        sleep_elsewhere(stub, {})
    wait_for(stub.given.get("pids"))
    stub.ready()
    time.sleep(FOR_EVER)
    return 0


def chain(stub: Stub) -> int:
    """Leave a chain behind whose every link forks the next one, changes its session, creates a file and ends."""
    if os.fork() == 0:
        end = time.monotonic() + FOR_EVER
        stub.note(os.getpid())
        while time.monotonic() < end:
            if os.fork():
                os._exit(0)
            os.setsid()
            time.sleep(0.001)
        os._exit(0)
    wait_for(stub.given.get("pids"))
    return answer(stub)


LINKS = """
import os, sys, time
while time.time() < float(sys.argv[2]):
    if os.fork(): os._exit(0)
    os.setsid()
    os.close(os.open(sys.argv[1], os.O_CREAT))
    time.sleep(0.001)
"""
"""A chain whose every link forks the next one, changes its session, creates a file and ends; the last one ends when the
file's directory is gone, or at a time."""


def leave(stub: Stub) -> int:
    """Leave a process of the kind `arg` in a session of its own, without parent and environment, and answer or stay.

    Its command line holds the value of `tag`, by which a test finds it; the links of a chain create the file `beat`
    again whenever it was removed.
    """
    kind, tag = stub.given["arg"], stub.given["tag"]
    sleep = ["/bin/sleep", tag]
    commands = {
        "links": [sys.executable, "-I", "-S", "-c", LINKS, stub.given["beat"], str(time.time() + FOR_EVER), tag],
        "namespace": ["/usr/bin/unshare", "--pid", "--fork", *sleep],
        "other-user": ["/usr/bin/setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *sleep],
    }
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            if kind == "deaf":
                for number in TERMINATORS:
                    signal.signal(number, signal.SIG_IGN)
            os.closerange(0, 64)
            os.chdir("/")
            command = commands.get(kind, sleep)
            os.execve(command[0], command, {})
        os._exit(0)
    os.wait()
    if kind == "links":
        wait_for_file(stub.given["beat"])
    else:
        found = running_with(tag)
        os.kill(found, signal.SIGSTOP if kind == "stopped" else 0)
    stub.ready()
    if stub.given.get("then") == "stay":
        time.sleep(FOR_EVER)
    wait_for_file(stub.given["gate"])
    return answer(stub)


def run_script(stub: Stub) -> int:
    """Run the script `arg` once it is there, whatever it says, and answer."""
    wait_for_file(stub.given["arg"])
    subprocess.run(["/bin/sh", stub.given["arg"]], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False)
    stub.ready()
    wait_for_file(stub.given["gate"])
    return answer(stub)


def wait_for_file(path: str) -> None:
    end = time.monotonic() + FOR_EVER
    while not Path(path).exists() and time.monotonic() < end:
        time.sleep(0.02)


def running_with(tag: str) -> int:
    """Wait until the program with this argument runs, and return its id."""
    while True:
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                arguments = path.read_bytes().split(b"\0")
            except OSError:
                continue
            if arguments[-2:-1] == [tag.encode()] and arguments[0] != b"/usr/bin/unshare":
                return int(path.parent.name)
        time.sleep(0.005)


def wide(stub: Stub) -> int:
    """Start many children, a third of them in sessions of their own, and wait."""
    for index in range(int(stub.given.get("arg", "100"))):
        child = os.fork()
        if child == 0:
            if index % 3 == 0:
                os.setsid()
            time.sleep(FOR_EVER)
            os._exit(0)
        stub.note(child)
    stub.ready()
    time.sleep(FOR_EVER)
    return 0


def two_results(stub: Stub) -> int:
    stub.emit("system", subtype="background_tasks_changed", tasks=[{"task_id": "b1"}])
    stub.result(result="first")
    stub.emit("system", subtype="task_notification", task_id="b1", status="completed")
    stub.emit("system", subtype="background_tasks_changed", tasks=[])
    stub.init()
    return answer(stub)


def api_retry(stub: Stub) -> int:
    stub.emit(
        "system",
        subtype="api_retry",
        attempt=1,
        max_retries=10,
        retry_delay_ms=500,
        error_status=529,
        error="overloaded",
    )
    return answer(stub)


def overloaded(stub: Stub) -> int:
    stub.say("API Error: 529", error="overloaded")
    stub.fail("API Error: 529 overloaded", api_error_status=529)
    return 1


def usage_limit(stub: Stub) -> int:
    reset = int(stub.given.get("arg", "0")) or int(time.time()) + 3600
    stub.emit(
        "rate_limit_event",
        rate_limit_info={"status": "rejected", "resetsAt": reset, "rateLimitType": "five_hour"},
    )
    stub.say("You've hit your limit", error="rate_limit")
    stub.fail("You've hit your 5-hour limit", api_error_status=429)
    return 1


def endless(stub: Stub) -> int:
    """Write for ever, about as fast as the disk takes it."""
    end = time.monotonic() + FOR_EVER
    while time.monotonic() < end:
        stub.say("y" * 65536)
    return 0


SCENARIOS: dict[str, Callable[[Stub], int]] = {
    "answer": answer,
    "exit": exit_at_once,
    "garbage": garbage,
    "bigline": big_line,
    "ignoreterm": ignore_term,
    "silent": silent,
    "linger": linger,
    "daemon": daemonise,
    "unseen": daemonise_unseen,
    "scrubbed": daemonise_scrubbed,
    "chain": chain,
    "leave": leave,
    "script": run_script,
    "wide": wide,
    "tworesults": two_results,
    "apiretry": api_retry,
    "overloaded": overloaded,
    "usagelimit": usage_limit,
    "endless": endless,
}
BEFORE_INIT = {"exit"}


def sleep_elsewhere(stub: Stub, environment: "os._Environ[str] | dict[str, str]") -> None:
    stub.note(os.getpid())
    os.closerange(0, 64)
    os.execve("/bin/sleep", ["sleep", str(FOR_EVER)], environment)


def wait_for(path: str | None) -> None:
    while path and not (Path(path).exists() and Path(path).stat().st_size):
        time.sleep(0.005)


def session_of(argv: list[str]) -> str:
    found = [argument.partition("=")[2] for argument in argv if argument.startswith(("--session-id=", "--resume="))]
    return found[-1] if found else "00000000-0000-4000-8000-000000000000"


def main() -> int:
    sys.stdin.readline()
    message = json.loads(sys.stdin.readline() or "{}")
    stub = Stub(str(message.get("message", {}).get("content", "")), session_of(sys.argv))
    name = stub.given.get("do", "answer")
    if name not in BEFORE_INIT:
        stub.init()
    ledger = stub.given.get("ledger")
    if ledger:
        append(ledger, f"{stub.session} begin\n")
    time.sleep(float(stub.given.get("sleep", "0")))
    code = SCENARIOS[name](stub)
    if ledger:
        append(ledger, f"{stub.session} end\n")
    return code


if __name__ == "__main__":
    sys.exit(main())

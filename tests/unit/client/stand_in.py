"""A stand-in engine: it greets, echoes what an MCP client sends, answers requests, and obeys `stop`.

Run as a script with CLAUDE_JOBS_HOME set; how it behaves is in its arguments. It writes down each start, its birth and
each hello in the state directory, for the tests to read.
"""

import argparse
import json
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[3]))

from server.client.engine_socket import lock
from server.client.state_dir import StatePaths

SELF = str(Path(__file__).resolve())


def command(*options: str) -> tuple[str, ...]:
    """The command that runs a stand-in with these options."""
    return (sys.executable, "-I", "-S", SELF, *options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--version", default="0.1.0")
    parser.add_argument("--busy", action="store_true")
    parser.add_argument("--refuse", help="refuse everybody with this sentence")
    parser.add_argument("--die", help="write this line to stderr and end with status 3 before listening")
    parser.add_argument("--die-first", action="store_true", help="the first start ends before listening")
    parser.add_argument("--mute", action="store_true", help="never listen")
    parser.add_argument("--leave-first", action="store_true", help="the first start ends at its first connection")
    parser.add_argument("--hang-up", action="store_true", help="close every connection unanswered")
    parser.add_argument("--eager", help="send this line together with the welcome")
    parser.add_argument("--wire", type=int, default=1)
    return parser.parse_args()


def _note(path: Path, values: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(values) + "\n")


def _birth() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "parent": os.getppid(),
        "session": os.getsid(0),
        "group": os.getpgid(0),
        "cwd": str(Path.cwd()),
        "environ": dict(os.environ),
        "descriptors": [number for number in range(256) if _is_open(number)],
    }


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _serve(connection: socket.socket, home: Path, options: argparse.Namespace) -> None:
    with connection, connection.makefile("rb") as lines:
        line = lines.readline()
        if not line or options.hang_up:
            return
        hello = json.loads(line)
        _note(home / "hellos", hello)
        welcome = {"claude_jobs": options.wire, "version": options.version, "pid": os.getpid()}
        if options.refuse:
            connection.sendall(json.dumps({"ok": False, "error": options.refuse}).encode() + b"\n")
            return
        behind = f"{options.eager}\n" if options.eager else ""
        connection.sendall(f"{json.dumps(welcome | {'ok': True, 'idle': not options.busy})}\n{behind}".encode())
        if hello["role"] == "control":
            _obey(connection, json.loads(lines.readline() or b"{}"))
            return
        while line := lines.readline():
            connection.sendall(line)
            if "id" in (message := json.loads(line)):
                connection.sendall(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": {}}).encode() + b"\n")
        # Proof that only the way up was closed.
        connection.sendall(b"end\n")


def _obey(connection: socket.socket, request: dict[str, Any]) -> None:
    connection.sendall(b'{"ok":true}\n')
    if request.get("do") == "stop":
        os._exit(0)


def main() -> None:
    options = _options()
    # Whatever a failing test leaves behind ends by itself.
    signal.alarm(100)
    paths = StatePaths(Path(os.environ["CLAUDE_JOBS_HOME"]))
    birth = _birth()
    _note(paths.home / "starts", birth)
    if options.die:
        sys.stderr.write(options.die + "\n")
        sys.exit(3)
    first_start = len((paths.home / "starts").read_text().splitlines()) == 1
    if options.die_first and first_start:
        sys.exit(3)
    if lock(paths.engine_lock, 1.0) is None:
        sys.exit("another engine holds the lock")
    if options.mute:
        signal.pause()
    paths.socket.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(paths.socket))
    listener.listen(128)
    while True:
        connection, _ = listener.accept()
        if options.leave_first and first_start:
            os._exit(0)
        threading.Thread(target=_serve, args=(connection, paths.home, options), daemon=True).start()


if __name__ == "__main__":
    main()

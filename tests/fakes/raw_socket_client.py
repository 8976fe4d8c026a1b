"""Knocks at the engine's socket by hand: says hello, and then asks for what only a person may have.

Usage: raw_socket_client.py SOCKET ROLE TOKEN CONNECTOR, where CONNECTOR is one of the functions in CONNECTORS.
Prints every line that the engine says. Standard library only, so that it starts at once.
"""

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable

NOBODY = 65534


def itself(connection: socket.socket, path: str) -> None:
    connection.connect(path)


def ended_child(connection: socket.socket, path: str) -> None:
    os.waitpid(_child(connection, path), 0)


def zombie_child(connection: socket.socket, path: str) -> None:
    os.waitid(os.P_PID, _child(connection, path), os.WEXITED | os.WNOWAIT)


def living_child(connection: socket.socket, path: str) -> None:
    child = _child(connection, path, stays=True)
    while True:
        try:
            connection.getpeername()
            break
        except OSError:
            time.sleep(0.005)
    _LEFT.append(child)


def other_user_later(connection: socket.socket, path: str) -> None:
    connection.connect(path)
    os.setgroups([])
    os.setuid(NOBODY)


def other_user(connection: socket.socket, path: str) -> None:
    os.setgroups([])
    os.setuid(NOBODY)
    connection.connect(path)


CONNECTORS = {each.__name__: each for each in (itself, ended_child, zombie_child, living_child)}
CONNECTORS |= {each.__name__: each for each in (other_user_later, other_user)}
_LEFT: list[int] = []


def _child(connection: socket.socket, path: str, *, stays: bool = False) -> int:
    child = os.fork()
    if child == 0:
        connection.connect(path)
        if stays:
            time.sleep(30)
        os._exit(0)
    return child


def knock(path: str, role: str, token: str, connect: Callable[[socket.socket, str], None]) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connect(connection, path)
        hello = {"claude_jobs": 1, "version": "99", "role": role, "token": token or None, "cwd": "/", "env": {}}
        lines = connection.makefile("rwb")

        def say(frame: dict[str, object]) -> None:
            lines.write(json.dumps(frame).encode() + b"\n")
            lines.flush()

        def hear() -> bytes:
            line = lines.readline()
            print(line.decode().rstrip(), flush=True)
            return line

        say(hello)
        if not json.loads(hear() or b"{}").get("ok"):
            return
        if role == "control":
            say({"do": "stop"})
        else:
            info = {"name": "x", "version": "1"}
            params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": info}
            say({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params})
            hear()
            say({"jsonrpc": "2.0", "method": "notifications/initialized"})
            call = {"name": "claude_run_async", "arguments": {"task": "a way out"}}
            say({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call})
        hear()


def main(path: str, role: str, token: str, connector: str) -> None:
    try:
        knock(path, role, token, CONNECTORS[connector])
    except OSError as error:
        print(f"closed: {error}")
    finally:
        for pid in _LEFT:
            os.kill(pid, signal.SIGKILL)


main(*sys.argv[1:])

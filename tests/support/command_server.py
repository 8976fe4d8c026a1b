"""A process that has imported the command line once and forks for each command of a test.

Importing takes nine tenths of what a command costs. An order comes over a socket as four files: those of the command's
streams, and one that holds its arguments, environment and directory. The answers are lines: the process id of the fork
at once, and its exit status once it is over.
"""

import gc
import json
import os
import runpy
import socket
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MAIN = ROOT / "server" / "__main__.py"


def take_orders(connection: socket.socket) -> None:
    """Return in the fork for each order, ready to run its command, and in the server once nobody can order more."""
    while True:
        word, files, _, _ = socket.recv_fds(connection, 1, 4)
        if not word:
            os._exit(0)
        pid = os.fork()
        if pid == 0:
            connection.close()
            _become(*files)
            return
        for descriptor in files:
            os.close(descriptor)
        connection.sendall(f"{pid}\n".encode())
        connection.sendall(f"{os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}\n".encode())


def _become(stdin: int, stdout: int, stderr: int, order: int) -> None:
    with open(order, encoding="utf-8") as file:
        wanted = json.load(file)
    for number, descriptor in enumerate((stdin, stdout, stderr)):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(wanted["environ"])
    time.tzset()
    os.umask(wanted["umask"])
    os.chdir(wanted["cwd"])
    sys.argv = [str(MAIN), *wanted["arguments"]]


if __name__ == "__main__":
    sys.path[:] = [*(path for path in sys.path if path != str(Path(__file__).parent)), str(ROOT)]
    import server.cli.app  # noqa: F401 - what the commands share

    gc.freeze()
    take_orders(socket.socket(fileno=int(sys.argv[1])))
    runpy.run_path(str(MAIN), run_name="__main__")

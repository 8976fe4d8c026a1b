"""A `claude` whose shell tool is in the hands of a test: it runs the commands that come over a socket, inside its job.

The task holds `stub:shell=PATH`: a unix socket on which the test listens. Each line that comes is a JSON list, program
and arguments; each line that goes back holds what the program wrote. At the end of the connection the job completes.
"""

import json
import re
import socket
import subprocess
import sys

SECONDS = 60.0


def run(argv: list[str]) -> str:
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=SECONDS, check=False
    )
    return done.stdout.decode("utf-8", "replace")


def emit(**frame: object) -> None:
    sys.stdout.write(json.dumps({"session_id": "s", **frame}) + "\n")
    sys.stdout.flush()


def main() -> None:
    task = sys.stdin.readline() + sys.stdin.readline()
    found = re.search(r"stub:shell=([^\s\"\\]+)", task)
    emit(type="system", subtype="init", model="stub", tools=[], mcp_servers=[], claude_code_version="2.1.330")
    if found:
        serve(found[1])
    usage = {"input_tokens": 1, "output_tokens": 1}
    emit(type="assistant", message={"role": "assistant", "content": [{"type": "text", "text": "done"}]})
    emit(
        type="result", subtype="success", is_error=False, result="done", num_turns=1, total_cost_usd=0.001, usage=usage,
        permission_denials=[], terminal_reason="completed", result_index=0,
    )  # fmt: skip


def serve(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        for line in connection.makefile("rb"):
            connection.sendall(json.dumps(run(json.loads(line))).encode() + b"\n")


main()

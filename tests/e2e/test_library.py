"""`orchestration` as a newcomer's program uses it: the plan's literal calls, and `claude -p` where no work is given."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from server.demo.environment import isolated_environment
from server.demo.messages_api import ScriptedApi
from server.demo.script import Story
from tests.e2e.support import SYSTEM_PATH
from tests.support.engines import ROOT, SHELL_STUB
from tests.support.waiting import until_now

SECONDS = 60.0

RUN = """
import asyncio
import sys
from orchestration import RecursiveClaudeExecutor

executor = RecursiveClaudeExecutor(max_depth=5, max_concurrent={0: 1, 1: 10, 2: 50})
sys.stdout.write(asyncio.run(executor.execute_with_recursion(sys.stdin.read())))
"""

GRAPH = """
import asyncio
from orchestration import RecursionLimitError, RecursiveOrchestrationPattern

graph = RecursiveOrchestrationPattern().create_recursive_graph()
ended = asyncio.run(graph.ainvoke({"tasks": ["one", "two"]}))
print([record["value"] for record in ended["results"].values()])
print(RecursionLimitError())
"""


class Newcomer:
    """A directory with programs of its own, and a `claude` that is a few lines of shell."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.bin = base / "bin"
        self.bin.mkdir()
        self.environ = {"HOME": str(base), "PATH": f"{self.bin}:{SYSTEM_PATH}", "PYTHONPATH": str(ROOT)}

    def claude(self, *lines: str) -> None:
        path = self.bin / "claude"
        path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
        path.chmod(0o755)

    def start(self, program: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-W", "error", "-c", program],
            cwd=self.base,
            env=self.environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, program: str, task: str = "") -> tuple[int, str, str]:
        with self.start(program) as process:
            out, err = process.communicate(task, timeout=SECONDS)
        return process.returncode, out, err


@pytest.fixture
def newcomer(tmp_path: Path) -> Newcomer:
    return Newcomer(tmp_path)


ANY_TEXT = """
import asyncio
import json
from orchestration import RecursiveClaudeExecutor

for task in ("hello", "--version", "-", "two\\nlines '\\"$(id)", "x" * 300_000, "half \\ud83d"):
    executor = RecursiveClaudeExecutor(max_depth=5, max_concurrent={0: 1, 1: 10, 2: 50})
    print(json.dumps([task, asyncio.run(executor.execute_with_recursion(task))]))
"""


def test_an_executor_without_work_hands_any_text_to_claude_and_returns_its_answer(newcomer: Newcomer):
    newcomer.claude('printf "%s:" "$*"', "cat", "echo")
    code, out, err = newcomer.run(ANY_TEXT)
    assert (code, err) == (0, "")
    answers = [json.loads(line) for line in out.splitlines()]
    assert len(answers) == 6
    assert [answer for _, answer in answers] == [f"-p:{task}".replace("\ud83d", "?") for task, _ in answers]


def test_the_plans_graph_is_made_without_arguments_and_asks_claude(newcomer: Newcomer):
    newcomer.claude("tr a-z A-Z")
    code, out, err = newcomer.run(GRAPH)
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "['ONE', 'TWO']"
    assert out.splitlines()[1].startswith("Recursion depth limit exceeded.")


def test_without_claude_the_error_says_what_to_install_or_pass(newcomer: Newcomer):
    code, out, err = newcomer.run(RUN, "task")
    assert (code, out) == (1, "")
    last = err.splitlines()[-1]
    assert "no `claude` on PATH" in last
    assert "npm install -g @anthropic-ai/claude-code" in last
    assert "`work=`" in last


def test_a_claude_that_fails_is_an_error_with_its_words_and_the_callers_traceback(newcomer: Newcomer):
    newcomer.claude("echo 'Invalid API key' >&2", "exit 7")
    code, _, err = newcomer.run(RUN, "task")
    assert code == 1
    assert "ended with exit code 7: Invalid API key" in err
    assert "in ask_claude" in err


def test_a_task_that_is_no_text_is_an_error_that_says_so(newcomer: Newcomer):
    newcomer.claude("cat")
    _, _, err = newcomer.run(RUN.replace("sys.stdin.read()", "[1]"))
    assert "not list. Give texts as tasks, or pass `work=`" in err


def test_claude_does_not_take_itself_for_a_part_of_the_session_around_it(newcomer: Newcomer):
    newcomer.claude("env")
    newcomer.environ |= {
        "CLAUDECODE": "1",
        "CLAUDE_CODE_ENTRYPOINT": "cli",
        "CLAUDE_CODE_SESSION_ID": "s",
        "ANTHROPIC_MODEL": "haiku",
    }
    _, out, _ = newcomer.run(RUN, "task")
    assert "ANTHROPIC_MODEL=haiku" in out
    assert "CLAUDECODE" not in out
    assert "CLAUDE_CODE_" not in out


def test_a_cancelled_executor_ends_claude_and_what_claude_started(newcomer: Newcomer):
    newcomer.claude("sleep 1000 &", 'echo "$$ $!" >pids.part; mv pids.part pids', "wait")
    with newcomer.start(RUN) as process:
        assert process.stdin is not None
        process.stdin.close()
        pids = newcomer.base / "pids"
        until_now(pids.exists, SECONDS, "the start of claude")
        process.send_signal(signal.SIGINT)
        process.wait(SECONDS)
    until_now(lambda: not any(map(lives, pids.read_text().split())), SECONDS, "the end of both processes")


def test_a_second_interrupt_ends_a_claude_that_ignores_the_first(newcomer: Newcomer):
    newcomer.claude("trap ': >asked' TERM", "echo $$ >pid.part; mv pid.part pid", "while :; do sleep 1; done")
    with newcomer.start(RUN) as process:
        assert process.stdin is not None
        process.stdin.close()
        pid, asked = newcomer.base / "pid", newcomer.base / "asked"
        until_now(pid.exists, SECONDS, "the start of claude")
        process.send_signal(signal.SIGINT)
        until_now(asked.exists, SECONDS, "the first interrupt's effect")
        process.send_signal(signal.SIGINT)
        process.wait(SECONDS)
    until_now(lambda: not lives(pid.read_text().strip()), SECONDS, "the end of claude")


REFUSED = """
from orchestration import RecursiveClaudeExecutor

for slots in ({'0': 1}, {0: 1.5}, {0: None}, 10, {True: 1}):
    try:
        RecursiveClaudeExecutor(max_depth=5, max_concurrent=slots)
    except (TypeError, ValueError) as error:
        print(error)
"""


def test_slots_that_are_no_whole_numbers_by_depth_are_refused_at_once(newcomer: Newcomer):
    code, out, err = newcomer.run(REFUSED)
    assert (code, err) == (0, "")
    refusals = out.splitlines()
    assert len(refusals) == 5
    assert all("max_concurrent" in said and "such as {0: 1, 1: 10}" in said for said in refusals)


def lives(pid: str) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text() if Path("/proc/self").is_dir() else ""
        os.kill(int(pid), 0)
    except (FileNotFoundError, ProcessLookupError):
        return False
    return ") Z" not in state


@pytest.mark.parametrize("task", ["--help me count the swans", "/help"])
def test_the_real_claude_answers_for_an_executor_without_work(
    newcomer: Newcomer, claude_cli: Path, scripted: Callable[[Story], ScriptedApi], task: str
):
    api = scripted(Story.model_validate({"default": "x", "roles": {"x": [{"text": "Seven swans."}]}}))
    (newcomer.bin / "claude").symlink_to(claude_cli)
    newcomer.environ |= isolated_environment(newcomer.base, api.url, path=newcomer.environ["PATH"])
    code, out, err = newcomer.run(RUN, task)
    assert (code, out, err) == (0, "Seven swans.", "")
    [request] = api.requests
    assert request.conversation.opening == task


MANAGER = """
import asyncio
import sys
import tempfile
from pathlib import Path
from jobs import EnhancedJobManager

async def main():
    async with EnhancedJobManager() as manager:
        ids = await manager.execute_batch_async(["stub:say=a", "stub:say=b", "stub:exit=3"])
        print(await manager.results(ids))
        await manager.execute_batch_async(["stub:wait=/nonexistent"])
        while not pids(): await asyncio.sleep(0.05)
        print(*pids())
    print(*Path(tempfile.gettempdir()).iterdir())
    await manager.execute_batch_async(["one more"])

def pids():
    files = Path(tempfile.gettempdir()).glob("claude-jobs-*/trees/*/*/1/lock")
    words = [file.read_text().split() for file in files]
    return [word for line in words for name, word in zip(line, line[1:]) if name == "claude" and "exit" not in line]

asyncio.run(main())
"""


def test_a_manager_without_parts_runs_a_batch_and_leaves_nothing_after_its_close(newcomer: Newcomer):
    temporary = newcomer.base / "tmp"
    temporary.mkdir()
    newcomer.environ |= {"TMPDIR": str(temporary), "CLAUDE_JOBS_CLI": str(SHELL_STUB)}
    code, out, err = newcomer.run(MANAGER)
    assert code == 1
    assert err.splitlines()[-1].startswith("jobs.errors.ManagerClosedError: This manager is closed.")
    answers, held, left = out.splitlines()
    assert answers.startswith("['a', 'b', Failure(type='unknown_error', message='The process exited with 3")
    assert [pid for pid in held.split() if lives(pid)] == []
    assert left == ""
    # Neither a state directory nor an engine.
    assert sorted(path.name for path in newcomer.base.iterdir()) == ["bin", "tmp"]


def test_a_manager_that_is_not_closed_leaves_no_process_behind(newcomer: Newcomer):
    temporary = newcomer.base / "tmp"
    temporary.mkdir()
    newcomer.environ |= {"TMPDIR": str(temporary), "CLAUDE_JOBS_CLI": str(SHELL_STUB)}
    program = MANAGER.replace("async with EnhancedJobManager() as manager:", "if manager := EnhancedJobManager():")
    code, out, err = newcomer.run(program.replace("    print(*Path", "    return\n    print(*Path"))
    assert (code, err) == (0, "")
    [_, held] = out.splitlines()
    assert held
    until_now(lambda: not any(map(lives, held.split())), SECONDS, "the end of the job")
    assert list(temporary.iterdir()) == []


def test_a_manager_without_claude_says_what_to_install(newcomer: Newcomer):
    newcomer.environ |= {"CLAUDE_JOBS_CLI": str(newcomer.base / "none")}
    code, _, err = newcomer.run(MANAGER)
    assert code == 1
    assert f"{newcomer.base}/none" in err.splitlines()[-1]


def test_a_job_of_such_a_manager_runs_in_the_real_claude_without_tools_of_ours(
    newcomer: Newcomer, claude_cli: Path, scripted: Callable[[Story], ScriptedApi]
):
    api = scripted(Story.model_validate({"default": "x", "roles": {"x": [{"text": "Seven swans."}]}}))
    newcomer.environ |= isolated_environment(newcomer.base, api.url, path=SYSTEM_PATH)
    newcomer.environ |= {"CLAUDE_JOBS_CLI": str(claude_cli), "CLAUDECODE": "1"}
    program = MANAGER.replace('["stub:say=a", "stub:say=b", "stub:exit=3"]', '["How many?"]')
    code, out, err = newcomer.run(program.replace("        await manager.execute_batch", "        return\n        a"))
    assert (code, out, err) == (0, "['Seven swans.']\n", "")
    [request] = api.requests
    assert "This is the deepest level: do all of the work yourself." in str(request.body)
    assert not [name for name in request.tool_names if name.startswith("mcp__")]


BAD_INPUT = """
import asyncio
from jobs import EnhancedJobManager

async def main():
    async with EnhancedJobManager() as manager:
        for tasks in ([None], [1], [{"task": "a"}], ["a", None], 5):
            try:
                print(await manager.execute_batch_async(tasks))
            except Exception as error:
                print(f"{type(error).__name__}: {error}")
        try:
            print(await manager.results("jabc"))
        except Exception as error:
            print(f"{type(error).__name__}: {error}")

asyncio.run(main())
"""


def test_what_is_no_list_of_tasks_or_ids_is_told_as_such(newcomer: Newcomer):
    newcomer.environ |= {"CLAUDE_JOBS_CLI": str(SHELL_STUB)}
    code, out, err = newcomer.run(BAD_INPUT)
    assert (code, err) == (0, "")
    use = "Give a text, or a `jobs.spec.TaskRequest`."
    assert out.splitlines() == [
        f"BadInputError: tasks[0]: it is of type NoneType. {use}",
        f"BadInputError: tasks[0]: it is of type int. {use}",
        f"BadInputError: tasks[0]: it is of type dict. {use}",
        f"BadInputError: tasks[1]: it is of type NoneType. {use}",
        "BadInputError: tasks: it is of type int and not a list. Give a list.",
        "BadInputError: job_ids: it is of type str and not a list. Give a list.",
    ]


TWO_LOOPS = """
import asyncio
import os
import tempfile
from jobs import EnhancedJobManager

manager = EnhancedJobManager()
asyncio.run(manager.execute_batch_async(["stub:say=a"]))
try:
    asyncio.run(manager.execute_batch_async(["stub:say=b"]))
except Exception as error:
    print(f"{type(error).__name__}: {error}")
print(os.listdir(tempfile.gettempdir()))
"""


def test_a_manager_of_an_event_loop_that_is_over_says_so_and_writes_nothing_more(newcomer: Newcomer):
    temporary = newcomer.base / "tmp"
    temporary.mkdir()
    newcomer.environ |= {"TMPDIR": str(temporary), "CLAUDE_JOBS_CLI": str(SHELL_STUB)}
    code, out, err = newcomer.run(TWO_LOOPS)
    assert (code, err) == (0, "")
    told, left = out.splitlines()
    assert told == "RuntimeError: This manager was opened in another event loop. Make one in each `asyncio.run`."
    assert left == "[]"


CANCELLED_CLOSE = """
import asyncio
from jobs import EnhancedJobManager

async def main():
    manager = EnhancedJobManager()
    await manager.execute_batch_async(["stub:wait=/nonexistent"])
    closing = asyncio.ensure_future(manager.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait([closing])
    await manager.aclose()
    print("closed")

asyncio.run(main())
"""


def test_a_close_after_one_that_was_cancelled_returns(newcomer: Newcomer):
    newcomer.environ |= {"CLAUDE_JOBS_CLI": str(SHELL_STUB)}
    assert newcomer.run(CANCELLED_CLOSE) == (0, "closed\n", "")

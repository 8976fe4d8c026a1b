"""A tree of jobs in every state that a person looks at: the review of a source tree, played by a stub.

A script takes the place of `claude`. It says what the file of its task holds and stays until it may end, so every job
is where it is for as long as the scene lasts.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.engines import House, Pump, house
from tests.support.tokens import attempt_directory, pump_of_job, running
from tests.support.waiting import until_now

SECONDS = 60.0
MODEL = "claude-sonnet-5"

_SCRIPT = """\
#!/bin/sh
IFS= read -r initialize
IFS= read -r message
case $message in
{cases}
esac
cat "$played.said"
turns=0
while ! [ -e "$played.over" ] && [ "$turns" -lt 6000 ]; do turns=$((turns + 1)); sleep 0.05; done
cat "$played.over"
"""

ROOT = "Review src/ for security problems"
AUTH = "auth/ with a job for each file"
API = "api/ in one go"
BROKEN = "db/migrate.py"
TOKENS, PASSWORD, OAUTH, SESSION = "auth/tokens.py", "auth/password.py", "auth/oauth.py", "auth/session.py"
UPLOAD, TEMPLATES, SUMMARY = "web/upload.py", "web/templates/", "Write the report"
ASKED = "git log -p -- auth/"


@dataclass(frozen=True, kw_only=True)
class Scene:
    """The scene while it lasts.

    Args:
        made: Where the engine runs.
        person: A client outside every tree.
        ids: Task to the id of its job.
        directory: Holds what each task says.
    """

    made: House
    person: Pump
    ids: dict[str, str]
    directory: Path

    def status(self, task: str) -> Any:
        """Return the status of a task's job."""
        return self.person.json("claude_status", jobId=self.ids[task])

    def until(self, statuses: Mapping[str, str]) -> None:
        """Wait until jobs have these statuses."""

        def holds() -> bool:
            return all(self.status(task)["status"] == status for task, status in statuses.items())

        until_now(holds, SECONDS, str(statuses))

    def spawn(self, parent: Pump, tasks: Sequence[Any]) -> None:
        """Start jobs below one."""
        started = parent.json("claude_run_batch_async", tasks=tasks)["jobIds"]
        names = (task if isinstance(task, str) else task["task"] for task in tasks)
        self.ids.update(zip(names, started, strict=True))

    def pump_of(self, stack: ExitStack, task: str) -> Pump:
        """Start the pump of a task's job once it runs."""
        directory = attempt_directory(self.made, running(self.person, self.ids[task]))
        return stack.enter_context(pump_of_job(self.made, directory))

    def is_set(self) -> bool:
        """Whether every job is where it is to be."""
        waits = {task: self.status(task).get("waitingFor") for task in self.ids}
        return {task: what for task, what in waits.items() if what} == {
            ROOT: "children",
            AUTH: "children",
            SESSION: "permission",
            TEMPLATES: "slot",
            SUMMARY: "siblings",
        }

    def end_all(self) -> None:
        """Let every process answer."""
        for task, *_ in _PLAYED:
            self.end(task)

    def end(self, task: str) -> None:
        """Let a task's process answer."""
        number = next(number for number, (played, *_) in enumerate(_PLAYED) if played == task)
        path = self.directory / f"{number}.over"
        if not path.exists():
            path.with_suffix(".new").write_text(_result("no findings", 0.12))
            path.with_suffix(".new").rename(path)


def _frame(kind: str, **fields: Any) -> str:
    return json.dumps({"type": kind, "session_id": "s", **fields}) + "\n"


def _said(words: str, call: tuple[str, Mapping[str, str]] | None, tokens: int) -> str:
    content: list[dict[str, Any]] = [{"type": "text", "text": words}]
    if call is not None:
        content.append({"type": "tool_use", "id": "t1", "name": call[0], "input": dict(call[1])})
    usage = {"input_tokens": tokens, "output_tokens": tokens // 20}
    message = {"id": "m1", "role": "assistant", "model": MODEL, "content": content, "usage": usage}
    init = _frame("system", subtype="init", model=MODEL, tools=[], mcp_servers=[], claude_code_version="2.1.330")
    return init + _frame("assistant", message=message)


def _result(answer: str, cost: float, **fields: Any) -> str:
    return _frame(
        "result",
        **{
            "subtype": "success",
            "is_error": False,
            "result": answer,
            "num_turns": 1,
            "total_cost_usd": cost,
            "usage": {"input_tokens": int(cost * 100_000), "output_tokens": int(cost * 5000)},
            "permission_denials": [],
            "terminal_reason": "completed",
            **fields,
        },
    )


_PLAYED: Sequence[tuple[str, str, tuple[str, Mapping[str, str]] | None, int]] = (
    (ROOT, "I divide the review by directory.", None, 8000),
    (AUTH, "One job for each file of auth/.", None, 6000),
    (API, "I read them.", None, 0),
    (BROKEN, "I read it.", None, 0),
    (TOKENS, "I read it.", None, 0),
    (PASSWORD, "I read it.", None, 0),
    (
        OAUTH,
        "The state is checked. I look where the redirect target is built.",
        ("Grep", {"pattern": "redirect_uri"}),
        31_000,
    ),
    (SESSION, "I look at how it came to be.", ("Bash", {"command": ASKED}), 12_000),
    (UPLOAD, "I read the upload handler.", ("Read", {"file_path": "web/upload.py"}), 22_000),
    (TEMPLATES, "I read them.", None, 0),
    (SUMMARY, "I sum up.", None, 0),
)
"""Task, words, call of a tool, and tokens so far."""

_OVER: Mapping[str, str] = {
    API: _result("4 findings in 2 files", 0.66),
    BROKEN: _result("Prompt is too long", 0.31, is_error=True),
    TOKENS: _result("2 findings: a token in a log, no expiry", 0.19),
    PASSWORD: _result("no findings", 0.11),
}


@contextmanager
def review_scene(**environ: str) -> Iterator[Scene]:
    """Play the scene: six jobs are live in all ways there are, and the others are over."""
    settings = {
        "CLAUDE_JOBS_MAX_RUNNING": "3",
        "CLAUDE_JOBS_MAX_CONCURRENT": '{"0": 10}',
        "CLAUDE_JOBS_PERMISSION_REQUESTS": "person",
        "CLAUDE_JOBS_PERMISSION_SECONDS": "600",
        **environ,
    }
    with house(**settings) as made, ExitStack() as stack:
        script = _write_script(made)
        person = stack.enter_context(made.pump({"CLAUDE_JOBS_CLI": str(script)}))
        ids: dict[str, str] = {ROOT: person.json("claude_run_async", task=ROOT, maxBudgetUsd=5)["jobId"]}
        scene = Scene(made=made, person=person, ids=ids, directory=script.parent)
        # Ended before the pumps are: these jobs wait for nothing then.
        stack.callback(scene.end_all)
        root = scene.pump_of(stack, ROOT)
        scene.spawn(root, [AUTH, API, BROKEN])
        scene.until({API: "completed", BROKEN: "failed"})
        auth = scene.pump_of(stack, AUTH)
        scene.spawn(auth, [TOKENS, PASSWORD, OAUTH, SESSION])
        scene.until({TOKENS: "completed", PASSWORD: "completed", OAUTH: "running"})
        auth.send("tools/call", name="claude_wait", arguments={"subtreeOf": ids[AUTH]})
        session = scene.pump_of(stack, SESSION)
        asked = {"tool_name": "Bash", "input": {"command": ASKED}}
        session.send("tools/call", name="claude_permit", arguments=asked)
        scene.spawn(root, [UPLOAD, TEMPLATES, {"task": SUMMARY, "dependsOn": [0, 1]}])
        root.send("tools/call", name="claude_wait", arguments={"subtreeOf": ids[ROOT]})
        until_now(scene.is_set, SECONDS, "the scene")
        yield scene


def _write_script(made: House) -> Path:
    directory = made.base / "played"
    directory.mkdir()
    for number, (task, words, call, tokens) in enumerate(_PLAYED):
        (directory / f"{number}.said").write_text(_said(words, call, tokens))
        if task in _OVER:
            (directory / f"{number}.over").write_text(_OVER[task])
    cases = [f"*'{task}'*) played={directory}/{number} ;;" for number, (task, *_) in enumerate(_PLAYED)]
    script = directory / "claude"
    script.write_text(_SCRIPT.format(cases="\n".join(cases)))
    script.chmod(0o755)
    return script

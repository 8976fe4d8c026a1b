"""Decomposition of jobs into subtasks: their instructions, the schema of the answer, and the message with results."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from jobs.model import Job, JobStatus

SCHEMA: Final = json.dumps(
    {
        "type": "object",
        "properties": {
            "answer": {"type": "string", "description": "The whole answer, where no subtasks are needed."},
            "subtasks": {
                "type": "array",
                "items": {"type": "string"},
                "description": "Self-contained tasks for parallel workers that see nothing but their own task.",
            },
        },
    },
    separators=(",", ":"),
)
"""JSON Schema of the answer of a job that may ask for subtasks."""

INSTRUCTIONS: Final = (
    "Either do the task and give `answer`, or divide it and give `subtasks`: independent, self-contained tasks whose "
    "results you will receive, so that you can answer then. Divide only what is too much for one worker."
)
"""What such a job is told before its task."""

_RESULT_CHARS: Final = 8_000
"""Characters of each subtask's answer in the message to the job. Chosen, not measured: the job can read
the whole answer with claude_result."""


@dataclass(frozen=True, slots=True)
class SubtaskRequest:
    """A request of a job for subtasks, to be done before it answers.

    Args:
        tasks: At least one text.
    """

    tasks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of a job.

    Args:
        text: The answer.
    """

    text: str


def read(frame: Mapping[str, Any] | None, result: str | None) -> SubtaskRequest | Answer:
    """Return what the answer of such a job means; one of an unexpected shape is taken as its answer."""
    structured = (frame or {}).get("structured_output")
    if not isinstance(structured, Mapping):
        return Answer(result or "")
    wanted = structured.get("subtasks")
    tasks = tuple(task for task in wanted if isinstance(task, str) and task.strip()) if isinstance(wanted, list) else ()
    if tasks:
        return SubtaskRequest(tasks)
    answer = structured.get("answer")
    return Answer(answer if isinstance(answer, str) else result or "")


def results_message(results: Sequence[tuple[Job, str]]) -> str:
    """Return what the job's session is told once its subtasks are over.

    Args:
        results: Each subtask's job with its result, or with what went wrong; the text is data of another model.
    """
    parts = [_section(number, job, text) for number, (job, text) in enumerate(results, start=1)]
    return "\n\n".join(["[claude-jobs] Your subtasks are over. Use their results and give `answer`.", *parts])


def refusal_message(reason: str) -> str:
    """Return what the job's session is told where its subtasks were refused."""
    return f"[claude-jobs] Your subtasks were refused: {reason} Do the task yourself and give `answer`."


def _section(number: int, job: Job, text: str) -> str:
    state = "done" if job.status is JobStatus.COMPLETED else f"{job.status}: {job.reason}"
    shown = (
        text if len(text) <= _RESULT_CHARS else f"{text[:_RESULT_CHARS]}\n[{len(text) - _RESULT_CHARS} more characters]"
    )
    return f"## Subtask {number} ({state}, job {job.id})\n{job.spec.task}\n\n{shown}"

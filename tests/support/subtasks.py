"""What a stub says where a job may divide its task, as files that it replays."""

import json
from pathlib import Path
from typing import Any


def asking(*subtasks: str) -> str:
    """Return the output of a process that asks for subtasks; the session hears their texts again with the results."""
    return _output({"subtasks": subtasks})


def answering(text: str) -> str:
    """Return the output of a process that answers."""
    return _output({"answer": text})


def replaying(path: Path, output: str) -> str:
    """Write an output to a file, and return the task of a job that says it."""
    path.write_text(output, encoding="utf-8")
    return f"stub:replay={path}"


def _output(structured: dict[str, Any]) -> str:
    text = json.dumps(structured)
    frames: list[dict[str, Any]] = [
        {"type": "assistant", "message": {"role": "assistant", "content": [{"type": "text", "text": text}]}},
        {
            "type": "result",
            "subtype": "success",
            "is_error": False,
            "result": text,
            "structured_output": structured,
            "terminal_reason": "completed",
        },
    ]
    return "".join(json.dumps(frame) + "\n" for frame in frames)

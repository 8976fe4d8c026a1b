"""A `claude` that says what a test has it say, line by line, while the test looks on."""

import json
from collections.abc import Mapping
from typing import Any

from tests.support.engines import House

_SCRIPT = """\
#!/bin/sh
IFS= read -r initialize
IFS= read -r message
run=1
while ! mkdir "{directory}/run.$run" 2>/dev/null; do run=$((run + 1)); done
said={directory}/said.$run
: >>"$said"
turns=0
while [ "$turns" -lt 6000 ]; do
    [ -e "{directory}/over.$run" ] && over=1 || over=
    while IFS= read -r line; do printf '%s\\n' "$line"; done
    [ -n "$over" ] && break
    turns=$((turns + 1))
    sleep 0.02
done <"$said"
[ -e "{directory}/stderr.$run" ] && cat "{directory}/stderr.$run" >&2
exit "$(cat "{directory}/over.$run")"
"""

SESSION = "00000000-0000-4000-8000-000000000000"


class Spoken:
    """The script, and what each of its runs says.

    Args:
        made: Whose jobs it plays.
    """

    def __init__(self, made: House) -> None:
        self._directory = made.base / "spoken"
        self._directory.mkdir()
        self.cli = self._directory / "claude"
        self.cli.write_text(_SCRIPT.format(directory=self._directory))
        self.cli.chmod(0o755)

    def line(self, text: str, run: int = 1) -> None:
        """Have a run write a line as it is."""
        with (self._directory / f"said.{run}").open("a") as said:
            said.write(f"{text}\n")

    def frame(self, kind: str, run: int = 1, **fields: Any) -> None:
        """Have a run write a frame."""
        self.line(json.dumps({"type": kind, "session_id": SESSION, **fields}), run)

    def begin(self, run: int = 1, model: str = "claude-sonnet-5") -> None:
        """Have a run say that it has begun."""
        self.frame("system", run, subtype="init", model=model, tools=[], mcp_servers=[], claude_code_version="2.1.330")

    def says(self, words: str, run: int = 1, **fields: Any) -> None:
        """Have the model say something."""
        self.message([{"type": "text", "text": words}], run, **fields)

    def thinks(self, words: str, run: int = 1) -> None:
        """Have the model think something."""
        self.message([{"type": "thinking", "thinking": words}], run)

    def calls(self, call_id: str, tool: str, arguments: Mapping[str, Any], run: int = 1) -> None:
        """Have the model call a tool."""
        self.message([{"type": "tool_use", "id": call_id, "name": tool, "input": dict(arguments)}], run)

    def message(self, content: list[dict[str, Any]], run: int = 1, **fields: Any) -> None:
        """Have the model write a message of these parts."""
        message = {"id": "m1", "role": "assistant", "model": "claude-sonnet-5", "content": content}
        self.frame("assistant", run, message=message, **fields)

    def returns(self, call_id: str, said: str, run: int = 1, **fields: Any) -> None:
        """Have a tool return something."""
        content = [{"type": "tool_result", "tool_use_id": call_id, "content": said, **fields}]
        self.frame("user", run, message={"role": "user", "content": content})

    def ends(self, answer: str, run: int = 1, *, cost: float = 0.1, stderr: str = "", **fields: Any) -> None:
        """Have a run give its result, and end."""
        self.frame(
            "result",
            run,
            **{
                "subtype": "success",
                "is_error": False,
                "result": answer,
                "num_turns": 1,
                "total_cost_usd": cost,
                "usage": {"input_tokens": 10_000, "output_tokens": 500},
                "permission_denials": [],
                "terminal_reason": "completed",
                **fields,
            },
        )
        (self._directory / f"stderr.{run}").write_text(stderr)
        over = self._directory / f"over.{run}"
        over.with_suffix(".new").write_text("0")
        over.with_suffix(".new").rename(over)

"""The demo's story: three jobs plan a picnic, each with two children; a fourth one waits for them and invites."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from server.demo.script import Story, ToolCall, Turn, Usage

_TOOL = "mcp__claude-jobs__"


@dataclass(frozen=True, slots=True, kw_only=True)
class Helper:
    """A child job.

    Args:
        role: Its name in the story.
        question: Its task.
        answer: Its answer; short enough that an excerpt holds all of it.
        look: The tool that it calls before it answers.
        delay: Seconds before its answer, so that changes of the tree are seen.
    """

    role: str
    question: str
    answer: str
    look: ToolCall
    delay: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """A job of the root batch.

    Args:
        role: Its name in the story.
        question: Its task.
        heading: The first line of its answer.
        helpers: The children it spawns, in one batch.
    """

    role: str
    question: str
    heading: str
    helpers: tuple[Helper, ...]


def _read(file: str) -> ToolCall:
    return ToolCall(name="Read", input={"file_path": file})


def _grep(pattern: str, file: str) -> ToolCall:
    return ToolCall(name="Grep", input={"pattern": pattern, "path": file, "output_mode": "content"})


def _bash(command: str) -> ToolCall:
    return ToolCall(name="Bash", input={"command": command, "description": "Ask somebody who knows"})


_FILES: Final[Mapping[str, str]] = {
    "map.md": "The orchard by the river: a walnut tree, shade until four.\n",
    "timetable.txt": "bus 12: every twenty minutes, along the water\n",
    "recipes.md": "Plum cake: needs no plates. Ice cream: melts.\n",
    "games.md": "Boules: a meadow, six balls.\n",
    "taste.sh": '#!/bin/sh\nsleep {seconds:g}\necho "as good cold as warm: $1"\n',
    "forecast.sh": '#!/bin/sh\nsleep {seconds:g}\necho "rain on $1: perhaps"\n',
}

ALLOWED_TOOLS: Final = ("Bash(./taste.sh:*)", "Bash(./forecast.sh:*)")
"""What the jobs need permission for; reading needs none."""

ASKED_TOOLS: Final = ("Bash(./forecast.sh:*)",)
"""Those of them for which a person is asked where somebody watches who can answer."""

_INVITATION: Final = "Write the invitation."
_INVITES: Final = "Come to the old orchard by the river on Sunday, and be hungry."

_TOPICS = (
    Topic(
        role="place",
        question="Where do we hold the picnic?",
        heading="We sit in the old orchard by the river:",
        helpers=(
            Helper(
                role="shade",
                question="Where is there shade at noon?",
                answer="The walnut tree in the orchard keeps its shade until four.",
                look=_read("map.md"),
                delay=0.6,
            ),
            Helper(
                role="way",
                question="How do we all get there?",
                answer="Bus 12 stops ten minutes' walk away, along the water.",
                look=_grep("bus", "timetable.txt"),
                delay=1.1,
            ),
        ),
    ),
    Topic(
        role="food",
        question="What goes into the basket?",
        heading="The basket holds something salty and something sweet:",
        helpers=(
            Helper(
                role="savoury",
                question="Which savoury dish travels well?",
                answer="A potato omelette is as good cold as it is warm.",
                look=_bash("./taste.sh omelette"),
                delay=1.4,
            ),
            Helper(
                role="sweet",
                question="Which dessert does not melt?",
                answer="Plum cake stands the heat and needs no plates.",
                look=_read("recipes.md"),
                delay=0.4,
            ),
        ),
    ),
    Topic(
        role="games",
        question="What do we do after lunch?",
        heading="Nobody has to fall asleep after lunch:",
        helpers=(
            Helper(
                role="outdoors",
                question="Which game suits a meadow?",
                answer="Boules needs six balls and no referee.",
                look=_grep("meadow", "games.md"),
                delay=0.8,
            ),
            Helper(
                role="rain",
                question="What if it rains?",
                answer="Under the tarpaulin we read one story in turns.",
                look=_bash("./forecast.sh sunday"),
                delay=1.3,
            ),
        ),
    ),
)


def root_tasks() -> list[str]:
    """Return the tasks of the demo's root batch that have children."""
    return [topic.question for topic in _TOPICS]


def invitation() -> dict[str, Any]:
    """Return the last task of the root batch: it waits for the others."""
    return {"task": _INVITATION, "dependsOn": list(range(len(_TOPICS)))}


def write_files(directory: Path, seconds: float = 0.5) -> None:
    """Write the files that the jobs look at.

    Args:
        directory: Where the jobs work.
        seconds: How long each of the commands among them takes.
    """
    for name, content in _FILES.items():
        file = directory / name
        file.write_text(content.format(seconds=seconds), encoding="utf-8")
        if name.endswith(".sh"):
            file.chmod(0o755)


def story() -> Story:
    """Return the demo's story, for the root batch's jobs and their children."""
    roles = {topic.role: _topic_turns(topic) for topic in _TOPICS}
    helpers = [helper for topic in _TOPICS for helper in topic.helpers]
    roles.update({helper.role: _helper_turns(helper) for helper in helpers})
    roles["host"] = (Turn(text=_INVITES, delay=0.5),)
    roles["passer-by"] = (Turn(text="This task is none of the picnic's, so there is nothing to say."),)
    tasks = {_INVITATION: "host"} | {topic.question: topic.role for topic in _TOPICS}
    tasks |= {helper.question: helper.role for helper in helpers}
    return Story(roles=roles, default="passer-by", tasks=tasks)


def expected_answer(role: str) -> str:
    """Return the answer of the job that plays this role when all goes well.

    Raises:
        KeyError: The picnic has no such role.
    """
    answers = {helper.role: helper.answer for topic in _TOPICS for helper in topic.helpers} | {"host": _INVITES}
    for topic in _TOPICS:
        answers[topic.role] = "\n".join([topic.heading, *(f"- {helper.answer}" for helper in topic.helpers)])
    return answers[role]


def _helper_turns(helper: Helper) -> tuple[Turn, ...]:
    return (
        Turn(tool_calls=(helper.look,), delay=helper.delay / 2, usage=Usage(input_tokens=900, output_tokens=40)),
        Turn(text=helper.answer, delay=helper.delay / 2, usage=Usage(input_tokens=1000, output_tokens=25)),
    )


def _topic_turns(topic: Topic) -> tuple[Turn, ...]:
    return (
        Turn(
            text="I ask two helpers.",
            tool_calls=(
                ToolCall(
                    name=f"{_TOOL}claude_run_batch_async",
                    input={"tasks": [one.question for one in topic.helpers], "outputFormat": "text"},
                ),
            ),
            delay=0.4,
            usage=Usage(input_tokens=1200, output_tokens=80),
        ),
        Turn(
            tool_calls=(
                ToolCall(
                    name=f"{_TOOL}claude_wait",
                    input={"batchId": "{{latest.batchId}}", "mode": "all", "cursor": "{{latest.cursor?}}"},
                ),
            ),
            # A wait that was interrupted, by a new engine for example, is repeated.
            retries=3,
            repeat_while="latest.pending",
            usage=Usage(input_tokens=1400, output_tokens=40),
        ),
        Turn(text=f"{topic.heading}\n{{{{answers}}}}", delay=0.3, usage=Usage(input_tokens=1600, output_tokens=60)),
    )

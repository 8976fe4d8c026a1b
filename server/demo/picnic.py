"""The demo's story: three jobs plan a picnic; each spawns two children and answers with their answers."""

from dataclasses import dataclass

from server.demo.script import Story, ToolCall, Turn, Usage

_TOOL = "mcp__claude-jobs__"


@dataclass(frozen=True, slots=True, kw_only=True)
class Helper:
    """A child job.

    Args:
        role: Its name in the story.
        question: Its task.
        answer: Its answer; short enough that an excerpt holds all of it.
        delay: Seconds before its answer, so that changes of the tree are seen.
    """

    role: str
    question: str
    answer: str
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
                delay=0.6,
            ),
            Helper(
                role="way",
                question="How do we all get there?",
                answer="Bus 12 stops ten minutes' walk away, along the water.",
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
                delay=1.4,
            ),
            Helper(
                role="sweet",
                question="Which dessert does not melt?",
                answer="Plum cake stands the heat and needs no plates.",
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
                delay=0.8,
            ),
            Helper(
                role="rain",
                question="What if it rains?",
                answer="Under the tarpaulin we read one story in turns.",
                delay=1.3,
            ),
        ),
    ),
)


def root_tasks() -> list[str]:
    """Return the tasks of the demo's root batch."""
    return [_task(topic) for topic in _TOPICS]


def story() -> Story:
    """Return the demo's story, for the root batch's jobs and their children."""
    roles = {topic.role: _topic_turns(topic) for topic in _TOPICS}
    roles.update({helper.role: (_helper_turn(helper),) for topic in _TOPICS for helper in topic.helpers})
    roles["passer-by"] = (Turn(text="This task names no role of the picnic, so there is nothing to say."),)
    return Story(roles=roles, default="passer-by")


def expected_answer(role: str) -> str:
    """Return the answer of the job that plays this role when all goes well.

    Raises:
        KeyError: The picnic has no such role.
    """
    answers = {helper.role: helper.answer for topic in _TOPICS for helper in topic.helpers}
    for topic in _TOPICS:
        answers[topic.role] = "\n".join([topic.heading, *(f"- {helper.answer}" for helper in topic.helpers)])
    return answers[role]


def _task(player: Topic | Helper) -> str:
    return f"[role: {player.role}] {player.question}"


def _helper_turn(helper: Helper) -> Turn:
    return Turn(text=helper.answer, delay=helper.delay, usage=Usage(input_tokens=900, output_tokens=25))


def _topic_turns(topic: Topic) -> tuple[Turn, ...]:
    return (
        Turn(
            text="I ask two helpers.",
            tool_calls=(
                ToolCall(
                    name=f"{_TOOL}claude_run_batch_async",
                    input={"tasks": [_task(one) for one in topic.helpers], "outputFormat": "text"},
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

"""Which turn a conversation has come to."""

from collections.abc import Sequence

import pytest

from server.demo.conversation import read
from server.demo.next_turn import find_next_turn
from server.demo.script import Story
from server.demo.template import StoryError
from tests.unit.demo.dialogue import messages, tool_result

STORY = Story.model_validate(
    {
        "roles": {
            "default": [
                {"text": "spawn"},
                {
                    "tool_calls": [{"name": "wait", "input": {"batchId": "{{latest.batchId}}"}}],
                    "repeat_while": "result[-1].pending",
                    "retries": 1,
                },
                {"text": "{{answers}}"},
            ]
        }
    }
)
SPAWNED = {"batchId": "b1"}
PENDING = {"pending": 1, "done": []}
OVER = {"pending": 0, "done": [{"jobId": "j1", "status": "completed", "excerpt": "one"}]}
BROKEN = tool_result(1, "connection closed", is_error=True)


@pytest.mark.parametrize(
    ("exchanges", "position"),
    [
        ([], 0),
        ([[SPAWNED]], 1),
        ([[SPAWNED], [PENDING]], 1),
        ([[SPAWNED], [PENDING], [PENDING]], 1),
        ([[SPAWNED], [PENDING], [OVER]], 2),
        ([[SPAWNED], [BROKEN]], 1),
        ([[SPAWNED], [BROKEN], [OVER]], 2),
        ([[SPAWNED], [OVER], []], 2),
        ([[SPAWNED], [OVER], [], [], []], 2),
    ],
)
def test_the_turn_follows_from_the_messages_alone(exchanges: Sequence[Sequence[object]], position: int):
    cue = find_next_turn(STORY, read(messages("Go.", *exchanges)))
    assert (cue.position, cue.step) == (position, len(exchanges))


def test_a_repeated_turn_sees_the_newest_results():
    cue = find_next_turn(STORY, read(messages("Go.", [SPAWNED], [PENDING])))
    assert cue.tool_calls() == (("wait", {"batchId": "b1"}),)


def test_the_last_turn_speaks_of_every_result():
    assert find_next_turn(STORY, read(messages("Go.", [SPAWNED], [PENDING], [OVER]))).text() == "- one"


def test_a_condition_without_a_value_stops_the_story_once_the_retries_are_used_up():
    with pytest.raises(StoryError, match="connection closed"):
        find_next_turn(STORY, read(messages("Go.", [SPAWNED], [BROKEN], [BROKEN])))

"""The story format: what loads, what is refused, and which role a task names."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from server.demo.script import Story, load_story
from server.demo.template import StoryError

STORY = {
    "default": "poet",
    "tasks": {"Say that it is good.": "critic"},
    "roles": {
        "poet": [
            {
                "text": "A line.",
                "tool_calls": [{"name": "add", "input": {"numbers": [1, "{{result[0]}}"]}}],
                "delay": 0.5,
                "error": {"status": 429, "message": "Slow down.", "times": 2, "headers": {"retry-after": "1"}},
                "headers": {"x-limit": "5"},
                "stop_reason": "max_tokens",
                "usage": {"input_tokens": 5, "output_tokens": 6},
                "repeat_while": "latest.pending",
                "retries": 1,
            }
        ],
        "critic": [{"text": "Fine."}],
    },
}


def test_a_story_loads_from_a_file_with_every_field(tmp_path: Path):
    path = tmp_path / "story.json"
    path.write_text(json.dumps(STORY), encoding="utf-8")
    story = load_story(path)
    assert story == Story.model_validate(STORY)
    assert story.model_dump(mode="json", exclude_unset=True) == STORY


@pytest.mark.parametrize(
    ("story", "problem"),
    [
        ({"roles": {"default": []}}, "roles without a turn: default"),
        ({"roles": {"poet": [{}]}}, "default role 'default' is not among the roles: poet"),
        ({"roles": {"default": [{"txt": "x"}]}}, "Extra inputs"),
        ({"roles": {"default": [{"delay": -1}]}}, "greater than or equal to 0"),
        ({"roles": {"default": [{"delay": float("inf")}]}}, "finite"),
        ({"roles": {"default": [{"error": {"status": 200}}]}}, "greater than or equal to 400"),
        ({"roles": {"default": [{"text": "{{resutl[0]}}"}]}}, "is no expression"),
        ({"roles": {"default": [{"tool_calls": [{"name": "a", "input": {"x": ["{{y}}"]}}]}]}}, "is no expression"),
        ({"roles": {"default": [{"repeat_while": "pending"}]}}, "is no expression"),
    ],
)
def test_a_story_that_could_not_be_told_is_refused_when_it_is_loaded(story: dict, problem: str):
    with pytest.raises(ValidationError, match=problem):
        Story.model_validate(story)


def test_a_story_cannot_be_changed_once_it_is_loaded():
    story = Story.model_validate(STORY)
    with pytest.raises(ValidationError, match="frozen"):
        story.default = "critic"  # type: ignore[misc]  # what mypy forbids is what is tried here


@pytest.mark.parametrize(
    ("opening", "role"),
    [
        ("Write.", "poet"),
        ("[role: critic] Judge.", "critic"),
        ("You are job j1.\n\n[role:critic] Judge.", "critic"),
        ("[role: critic] Ask somebody: [role: poet] Write.", "critic"),
    ],
)
def test_the_first_role_that_a_task_names_is_played_else_the_default(opening: str, role: str):
    assert Story.model_validate(STORY).role_of(opening) == role


def test_an_unknown_role_is_an_error_that_names_the_known_ones():
    with pytest.raises(StoryError, match=r"no role 'ghost'.*poet, critic"):
        Story.model_validate(STORY).role_of("[role: ghost] Boo.")

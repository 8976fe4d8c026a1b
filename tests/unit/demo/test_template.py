"""The template language: what an expression finds among tool results, and how it is written."""

import json

import pytest

from server.demo.conversation import ToolResult
from server.demo.template import StoryError, answer_lines, evaluate, expressions, fill, parse, render


def results(*values: object) -> list[ToolResult]:
    return [ToolResult(text=value if isinstance(value, str) else json.dumps(value)) for value in values]


SPAWNED = {"jobIds": ["j1", "j2"], "batchId": "b7"}
WAITED = {"done": [], "pending": 2, "cursor": "c1"}


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("result[0].batchId", "b7"),
        ("result[0].jobIds", ["j1", "j2"]),
        ("result[0].jobIds[1]", "j2"),
        ("result[0].jobIds[-1]", "j2"),
        ("result[-1].pending", 2),
        ("result[-2].batchId", "b7"),
        ("result[1]", WAITED),
        ("latest.batchId", "b7"),
        ("latest.jobIds[0]", "j1"),
        ("latest.cursor", "c1"),
        ("latest.nothing?", None),
        ("result[9].batchId?", None),
    ],
)
def test_an_expression_finds_its_value_among_the_results(expression: str, value: object):
    assert evaluate(parse(expression), results(SPAWNED, WAITED)) == value


def test_latest_takes_the_newest_result_that_has_the_name():
    assert evaluate(parse("latest.cursor"), results({"cursor": "old"}, {"cursor": "new"}, SPAWNED)) == "new"


def test_a_result_that_is_no_json_is_its_text():
    assert evaluate(parse("result[0]"), results("plain words")) == "plain words"


@pytest.mark.parametrize(
    "expression", ["result[0].nothing", "result[3]", "result[0].batchId[0]", "result[0].jobIds.name", "latest.nothing"]
)
def test_a_missing_value_is_an_error_that_shows_the_last_result(expression: str):
    with pytest.raises(StoryError, match=r"after 1 tool results, the last of which is: .*b7"):
        evaluate(parse(expression), results(SPAWNED))


@pytest.mark.parametrize("text", ["", "results[0]", "result", "result[x]", "latest", "latest[0]", "answers.x", "a + b"])
def test_what_is_no_expression_is_refused(text: str):
    with pytest.raises(ValueError, match="is no expression"):
        parse(text)


def test_a_string_that_is_one_placeholder_takes_the_value_with_its_type():
    assert fill({"ids": "{{result[0].jobIds}}"}, results(SPAWNED)) == {"ids": ["j1", "j2"]}


def test_placeholders_in_a_longer_string_are_written_as_text():
    assert fill("{{ result[0].batchId }}/{{result[0].jobIds}}", results(SPAWNED)) == 'b7/["j1", "j2"]'


def test_two_placeholders_side_by_side_are_two():
    assert fill("{{latest.batchId}}{{latest.batchId}}", results(SPAWNED)) == "b7b7"


def test_an_entry_whose_optional_value_is_missing_is_left_out_and_a_null_of_the_story_stays():
    filled = fill({"cursor": "{{latest.cursor?}}", "null": None, "deep": [{"x": "{{latest.x?}}"}]}, [])
    assert filled == {"null": None, "deep": [{}]}


def test_a_missing_optional_value_in_a_text_writes_nothing():
    assert render("<{{latest.cursor?}}>", []) == "<>"


def test_a_text_is_text_whatever_value_its_placeholder_has():
    assert render("{{result[0].jobIds}}", results(SPAWNED)) == '["j1", "j2"]'


def test_expressions_are_found_at_any_depth():
    found = expressions({"a": ["{{answers}}", {"b": "x {{latest.y?}}"}], "c": 3})
    assert [one.text for one in found] == ["answers", "latest.y?"]


def test_answers_stand_in_the_order_of_the_spawn_and_not_of_the_ending():
    second = {"done": [{"jobId": "j2", "status": "completed", "excerpt": "two"}], "pending": 1}
    first = {"done": [{"jobId": "j1", "status": "completed", "excerpt": "one"}], "pending": 0}
    assert answer_lines(results(SPAWNED, second, first)) == "- one\n- two"


def test_a_job_that_several_waits_report_is_one_line():
    done = {"done": [{"jobId": "j1", "status": "completed", "excerpt": "one"}]}
    assert answer_lines(results(done, done)) == "- one"


def test_a_job_that_failed_is_said_to_have_failed():
    done = {"done": [{"jobId": "j1", "status": "failed", "excerpt": None}]}
    assert answer_lines(results(SPAWNED, done)) == "- j1 failed: no answer"


def test_results_that_report_nothing_give_no_lines():
    assert answer_lines(results("words", 3, [1], SPAWNED, WAITED)) == ""

"""What is read out of a request's messages."""

from typing import Any

from server.demo.conversation import ToolResult, read
from tests.unit.demo.dialogue import messages, tool_result


def test_the_opening_is_the_task_without_the_reminders_of_the_cli():
    content = [
        {"type": "text", "text": "<system-reminder>\n[role: wrong]\n</system-reminder>\n"},
        {"type": "text", "text": "[role: right] Go."},
    ]
    said: list[dict[str, Any]] = [{"role": "user", "content": content}, {"role": "system", "content": "[role: wrong]"}]
    assert read(said).opening == "[role: right] Go."


def test_a_content_that_is_a_string_is_read_as_text():
    assert read([{"role": "user", "content": "Go."}]).opening == "Go."


def test_every_answer_of_the_model_is_one_exchange_with_its_results():
    conversation = read(messages("Go.", ["one", "two"], []))
    assert conversation.exchanges == ((ToolResult(text="one"), ToolResult(text="two")), ())


def test_an_answer_that_was_stored_in_pieces_is_one_exchange():
    said = messages("Go.", ["one"])
    said.insert(1, {"role": "assistant", "content": [{"type": "text", "text": "first piece"}]})
    assert read(said).exchanges == ((ToolResult(text="one"),),)


def test_system_messages_between_answer_and_result_change_nothing():
    said = messages("Go.", ["one"])
    said.insert(2, {"role": "system", "content": "A note."})
    assert read(said).exchanges == ((ToolResult(text="one"),),)


def test_a_system_message_between_two_pieces_does_not_make_two_answers_of_them():
    said = messages("Go.", ["one"])
    said[1:1] = [{"role": "assistant", "content": "first piece"}, {"role": "system", "content": "A note."}]
    assert read(said).exchanges == ((ToolResult(text="one"),),)


def test_a_session_resumed_after_a_cut_has_no_answer_where_the_cli_put_a_stand_in():
    cut = tool_result(1, "[Tool call interrupted: its outcome is unknown.]", is_error=True)
    said = [
        *messages("Go.", [cut]),
        {"role": "assistant", "content": [{"type": "text", "text": "No response requested."}]},
        {"role": "user", "content": [{"type": "text", "text": "Go on after the restart."}]},
    ]
    assert [len(exchange) for exchange in read(said).exchanges] == [1]


def test_an_error_result_is_known_as_one():
    conversation = read(messages("Go.", [tool_result(1, "no such batch", is_error=True)]))
    assert conversation.exchanges == ((ToolResult(text="no such batch", is_error=True),),)


def test_odd_contents_are_read_as_nothing():
    assert read([{"role": "user", "content": None}, {"role": "user", "content": ["x", 3]}, {}]).opening == ""

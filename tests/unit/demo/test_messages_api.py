"""The scripted API over plain HTTP: what it answers, what it remembers, and how it ends."""

import http.client
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from server.demo import messages_api as api_module
from server.demo.messages_api import ScriptedApi
from server.demo.script import Story
from tests.unit.demo.dialogue import Client, messages, send


def story(*turns: dict[str, Any], **roles: list[dict[str, Any]]) -> Story:
    return Story.model_validate({"roles": {"default": list(turns) or [{"text": "Hello."}], **roles}})


def test_a_streamed_turn_is_the_sequence_of_events_that_the_messages_api_sends():
    calls = [{"name": "add", "input": {"numbers": [1, 2]}}]
    turn = {"text": "I add.", "tool_calls": calls, "usage": {"input_tokens": 7, "output_tokens": 9}}
    with ScriptedApi(story(turn)) as api:
        answer = Client(url=api.url, fields={"stream": True}).ask()

    assert answer.headers["content-type"] == "text/event-stream"
    start, *blocks, delta, stop = answer.events
    assert start["type"] == "message_start"
    assert start["message"]["model"] == "claude-test"
    assert start["message"]["usage"]["input_tokens"] == 7
    assert [(event["type"], event["index"]) for event in blocks] == [
        (f"content_block_{part}", index) for index in (0, 1) for part in ("start", "delta", "stop")
    ]
    assert blocks[1]["delta"] == {"type": "text_delta", "text": "I add."}
    assert blocks[3]["content_block"]["input"] == {}
    assert blocks[3]["content_block"]["name"] == "add"
    assert json.loads(blocks[4]["delta"]["partial_json"]) == {"numbers": [1, 2]}
    assert delta["delta"]["stop_reason"] == "tool_use"
    assert delta["usage"] == {"output_tokens": 9}
    assert stop == {"type": "message_stop"}


def test_a_turn_that_is_not_streamed_is_one_message():
    with ScriptedApi(story({"text": "Whole.", "stop_reason": "max_tokens"})) as api:
        message = Client(url=api.url).ask().json
    assert message["content"] == [{"type": "text", "text": "Whole."}]
    assert message["stop_reason"] == "max_tokens"
    assert message["usage"]["output_tokens"] == 20


def test_a_turn_without_text_and_tools_has_one_empty_text_block():
    with ScriptedApi(story({"stop_reason": "refusal"})) as api:
        message = Client(url=api.url).ask().json
    assert (message["content"], message["stop_reason"]) == ([{"type": "text", "text": ""}], "refusal")


def test_the_same_request_gets_the_same_message_again_and_the_next_one_gets_new_ids():
    with ScriptedApi(story({"tool_calls": [{"name": "a"}, {"name": "a"}]})) as api:
        client = Client(url=api.url)
        first, again = client.ask().json, client.ask().json
        later = client.ask(messages("Hello.", ["done"])).json
        other = Client(url=api.url, session_id="session-2").ask().json
    assert first == again
    ids = [block["id"] for message in (first, later, other) for block in message["content"]]
    assert len(set(ids)) == 6


def test_the_role_that_the_task_names_answers():
    with ScriptedApi(story(bass=[{"text": "Low."}])) as api:
        answers = [Client(url=api.url).ask(messages(task)).json for task in ("[role: bass] Sing.", "Sing.")]
    assert [answer["content"][0]["text"] for answer in answers] == ["Low.", "Hello."]


def test_a_turn_fails_as_often_as_the_story_says_in_each_session():
    error = {"status": 529, "message": "Overloaded", "times": 2}
    with ScriptedApi(story({"text": "ok", "error": error})) as api:
        one, two = Client(url=api.url), Client(url=api.url, session_id="session-2")
        statuses = [client.ask().status for client in (one, two, one, two, one, two, one)]
    assert statuses == [529, 529, 529, 529, 200, 200, 200]


def test_each_turn_of_a_session_counts_its_own_failures():
    error = {"status": 500, "times": 1}
    with ScriptedApi(story({"text": "a", "error": error}, {"text": "b", "error": error})) as api:
        client = Client(url=api.url)
        later = messages("Hello.", ["done"])
        assert [client.ask(said).status for said in (None, None, later, later)] == [500, 200, 500, 200]


def test_an_error_without_a_number_of_times_never_ends():
    with ScriptedApi(story({"error": {"status": 401, "message": "Who are you?"}})) as api:
        answers = [Client(url=api.url).ask() for _ in range(4)]
    assert {answer.status for answer in answers} == {401}
    assert answers[-1].json == {
        "type": "error",
        "error": {"type": "authentication_error", "message": "Who are you?"},
    }


def test_an_error_and_the_answer_after_it_carry_headers_of_their_own():
    error = {"status": 429, "times": 1, "headers": {"retry-after": "3"}}
    with ScriptedApi(story({"text": "ok", "error": error, "headers": {"x-limit": "allowed"}})) as api:
        refused, answered = Client(url=api.url).ask(), Client(url=api.url, fields={"stream": True}).ask()
    assert refused.headers["retry-after"] == "3"
    assert "x-limit" not in refused.headers
    assert answered.headers["x-limit"] == "allowed"
    assert "retry-after" not in answered.headers


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (messages("[role: ghost] Boo."), "no role 'ghost'"),
        (messages("Hello.", ["Too many children for one parent."]), "Too many children for one parent."),
    ],
)
def test_a_story_that_cannot_go_on_answers_400_with_the_reason(said: list[dict[str, Any]], problem: str):
    with ScriptedApi(story({"text": "a"}, {"text": "{{result[0].batchId}}"})) as api:
        answer = Client(url=api.url).ask(said)
    assert answer.status == 400
    assert answer.json["error"]["type"] == "invalid_request_error"
    assert problem in answer.json["error"]["message"]


@pytest.mark.parametrize("body", [b"", b"not json", b"[1]", b"\xff"])
def test_a_body_that_is_no_object_answers_400(body: bytes):
    with ScriptedApi(story()) as api:
        assert send(f"{api.url}/v1/messages", method="POST", body=body).status == 400
        assert Client(url=api.url).ask().status == 200


def test_a_body_above_the_bound_is_refused_unread(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(api_module, "MAX_BODY", 10)
    with ScriptedApi(story()) as api:
        assert send(f"{api.url}/v1/messages", method="POST", body=b"x" * 11).status == 413
        assert api.traffic == ()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("HEAD", "/", 200), ("GET", "/v1/models", 404), ("POST", "/v1/messages/count_tokens?beta=true", 404)],
)
def test_what_is_no_request_for_a_message_is_answered_and_kept_apart(method: str, path: str, status: int):
    with ScriptedApi(story()) as api:
        answer = send(f"{api.url}{path}", method=method, body=b"{}" if method == "POST" else None)
        assert answer.status == status
        assert api.requests == ()
        assert [(request.method, request.path) for request in api.traffic] == [(method, path)]


def test_a_request_is_recorded_with_its_session_tools_system_and_messages():
    fields = {"tools": [{"name": "Bash"}], "system": "Be brief."}
    with ScriptedApi(story()) as api:
        Client(url=api.url, session_id="session-9", fields=fields).ask(messages("Sing."))
        [request] = api.requests
    assert request.session_id == "session-9"
    assert request.tool_names == ("Bash",)
    assert request.body["system"] == "Be brief."
    assert request.messages == messages("Sing.")
    assert request.conversation.opening == "Sing."


def test_the_record_is_bounded_and_keeps_the_newest():
    with ScriptedApi(story(), keep=2) as api:
        for number in range(4):
            Client(url=api.url, session_id=str(number)).ask()
        assert [request.session_id for request in api.requests] == ["2", "3"]


def test_a_wait_for_requests_that_do_not_come_is_bounded():
    with ScriptedApi(story()) as api, pytest.raises(TimeoutError, match="0 of 1 requests"):
        api.wait_for(lambda request: request.session_id == "nobody", timeout=0.01)


def test_a_slow_turn_holds_up_no_other_session_and_ends_with_the_api():
    slow = [{"text": "never", "delay": 3600}]
    with ThreadPoolExecutor(31) as pool:
        with ScriptedApi(story(slow=slow)) as api:
            waiting = pool.submit(Client(url=api.url, session_id="slow").ask, messages("[role: slow] Wait."))
            api.wait_for(lambda request: request.session_id == "slow")
            others = pool.map(lambda number: Client(url=api.url, session_id=str(number)).ask().status, range(30))
            assert list(others) == [200] * 30
            assert not waiting.done()
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            waiting.result(timeout=5)


def test_a_client_that_keeps_its_connection_is_served_again_on_it_and_does_not_outlive_the_api():
    with ScriptedApi(story()) as api:
        connection = http.client.HTTPConnection("127.0.0.1", int(api.url.rpartition(":")[2]), timeout=5)
        try:
            for _ in range(2):
                connection.request("POST", "/v1/messages", body=json.dumps({"messages": [], "stream": True}))
                assert b"message_stop" in connection.getresponse().read()
            assert len([one for one in threading.enumerate() if "process_request" in one.name]) == 1
        finally:
            api.__exit__(None, None, None)
            connection.close()
    assert not [one for one in threading.enumerate() if "process_request" in one.name or one.name == "scripted-api"]


def test_a_client_that_hangs_up_early_disturbs_nobody(caplog: pytest.LogCaptureFixture):
    with ScriptedApi(story({"text": "x" * 5_000_000})) as api:
        connection = http.client.HTTPConnection("127.0.0.1", int(api.url.rpartition(":")[2]), timeout=5)
        connection.request("POST", "/v1/messages", body=json.dumps({"messages": [], "stream": True}))
        api.wait_for(lambda request: True)
        connection.close()
        assert Client(url=api.url).ask().status == 200
    assert [one for one in caplog.records if one.levelname == "ERROR"] == []


def test_the_url_is_there_only_while_the_api_is_served():
    api = ScriptedApi(story())
    with pytest.raises(RuntimeError, match="Enter it first"):
        _ = api.url
    with api:
        assert api.url.startswith("http://127.0.0.1:")

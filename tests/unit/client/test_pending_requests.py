"""What the pump remembers of a conversation, and what it tells the next engine and the client."""

import json
from contextlib import suppress
from typing import Any

import pytest

from server.client import pending_requests as module
from server.client.jsonrpc import INVALID_REQUEST, BadMessageError
from server.client.pending_requests import CALL_ID, GONE, TOOL_USE_ID, PendingRequests
from server.mcp.tools import DEFINITIONS


def line(**message: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n"


def call(key: int | str, name: str = "claude_wait", **meta: Any) -> bytes:
    params = {"name": name, "arguments": {}, "_meta": {TOOL_USE_ID: f"toolu_{key}", **meta}}
    return line(id=key, method="tools/call", params=params)


INITIALIZE = line(id=0, method="initialize", params={"protocolVersion": "2025-11-25"})
INITIALIZED = line(method="notifications/initialized")


def shaken() -> PendingRequests:
    """A conversation of the era with a handshake, past it."""
    talk = PendingRequests()
    talk.sent(INITIALIZE)
    talk.received(line(id=0, result={}))
    talk.sent(INITIALIZED)
    return talk


def test_open_requests_are_asked_again_in_the_clients_order():
    talk = PendingRequests()
    calls = [call(key) for key in (3, "b", 1)]
    for each in calls:
        talk.sent(each)
    assert talk.received(line(id="b", result={}))
    talk.lost()
    assert (talk.initialize_line(), talk.replay()) == (b"", calls[0] + calls[2])


def test_the_handshake_is_repeated_and_its_second_answer_is_known():
    talk = shaken()
    talk.sent(call(1))
    talk.lost()
    assert talk.initialize_line() == INITIALIZE
    assert talk.is_initialize_reply(line(id=0, result={}))
    assert not talk.is_initialize_reply(line(id=0, method="ping"))
    assert talk.replay() == INITIALIZED + call(1)


def test_a_handshake_that_was_never_answered_is_an_open_request_like_others():
    talk = PendingRequests()
    talk.sent(INITIALIZE)
    talk.lost()
    assert (talk.initialize_line(), talk.replay()) == (b"", INITIALIZE)


def test_a_handshake_that_was_refused_is_not_repeated():
    # Claude Code shakes hands too where the answer to its `server/discover` is late; that connection needs none.
    talk = PendingRequests()
    talk.sent(line(id="probe", method="server/discover", params={}))
    talk.sent(INITIALIZE)
    talk.received(line(id="probe", result={}))
    talk.received(line(id=0, error={"code": -32022, "message": "the initialize handshake is not accepted"}))
    talk.sent(call(1))
    talk.lost()
    assert (talk.initialize_line(), talk.replay()) == (b"", call(1))


def test_a_cancelled_request_is_not_asked_again():
    talk = PendingRequests()
    talk.sent(call(1))
    talk.sent(line(method="notifications/cancelled", params={"requestId": 1}))
    assert (talk.replay(), talk.urgent) == (b"", False)


def test_a_standing_subscription_is_asked_again_but_starts_no_engine_and_gets_no_error():
    talk = PendingRequests()
    listen = line(id=9, method="subscriptions/listen", params={})
    talk.sent(listen)
    assert not talk.urgent
    assert talk.give_up("none") == []
    assert talk.replay() == listen


def subscribe(key: int, uri: str, method: str = "resources/subscribe") -> bytes:
    return line(id=key, method=method, params={"uri": uri})


def subscriptions(lines: bytes) -> list[dict[str, Any]]:
    """What the next engine is told behind the handshake."""
    first, *others = lines.splitlines(keepends=True)
    assert first == INITIALIZED
    return [json.loads(each) for each in others]


def test_what_an_older_client_has_subscribed_to_is_subscribed_to_again_and_starts_no_engine():
    talk = shaken()
    for key, uri in enumerate(("job://a", "tree://b", "job://c", "job://d"), 1):
        talk.sent(subscribe(key, uri))
    for key in (1, 2, 3):
        assert talk.received(line(id=key, result={}))
    assert talk.received(line(id=4, error={"code": -32602, "message": "no"}))
    talk.sent(subscribe(5, "tree://b", "resources/unsubscribe"))
    talk.received(line(id=5, result={}))
    for _ in range(2):
        talk.lost()
        assert not talk.urgent
        assert talk.give_up("none") == []
        again = subscriptions(talk.replay())
        assert [(each["method"], each["params"]) for each in again] == [
            ("resources/subscribe", {"uri": "job://a"}),
            ("resources/subscribe", {"uri": "job://c"}),
        ]
        # The client has had its answers, whatever the next engine says.
        assert not talk.received(line(id=again[0]["id"], result={}))
        assert not talk.received(line(id=again[1]["id"], error={"code": -32602, "message": "pruned meanwhile"}))


def test_a_client_is_told_that_what_it_watches_may_have_changed_while_there_was_no_engine():
    talk = shaken()
    assert talk.resource_updates() == []
    talk.sent(subscribe(1, "job://a"))
    talk.received(line(id=1, result={}))
    told = [json.loads(each) for each in talk.resource_updates()]
    assert [(each["method"], each["params"]) for each in told] == [
        ("notifications/resources/updated", {"uri": "job://a"})
    ]


@pytest.mark.parametrize(("then", "kept"), [((), 0), (("resources/subscribe",), 1)])
def test_a_subscription_that_was_withdrawn_before_it_was_answered_is_not_made_again(then: tuple[str, ...], kept: int):
    talk = shaken()
    for key, method in enumerate(("resources/subscribe", "resources/unsubscribe", *then)):
        talk.sent(subscribe(key, "job://a", method))
    for key in range(2 + len(then)):
        talk.received(line(id=key, result={}))
    assert len(subscriptions(talk.replay())) == kept


def test_giving_up_names_the_call_to_repeat_and_owes_nothing_any_more():
    talk = PendingRequests()
    talk.sent(call(4, "claude_wait"))
    [answer] = [json.loads(each) for each in talk.give_up("It is full.")]
    assert (answer["id"], answer["error"]["code"]) == (4, GONE)
    assert "Repeat claude_wait" in answer["error"]["message"]
    assert "It is full." in answer["error"]["message"]
    assert (talk.replay(), talk.urgent) == (b"", False)


@pytest.mark.parametrize(("tool", "spawns"), [(tool.name, tool.spawns) for tool in DEFINITIONS])
@pytest.mark.parametrize("key", [None, "mine"])
def test_a_call_of_a_tool_that_spawns_is_not_to_be_repeated_unless_it_has_a_key(
    tool: str, spawns: bool, key: str | None
):
    repeat = key is not None or not spawns
    talk = PendingRequests()
    arguments = {"task": "t"} | ({"idempotencyKey": key} if key else {})
    talk.sent(line(id=1, method="tools/call", params={"name": tool, "arguments": arguments}))
    [answer] = [json.loads(each) for each in talk.give_up("It is full.")]
    assert (f"Repeat {tool}" in answer["error"]["message"]) is repeat
    assert ("The jobs may have been started: call claude_list_jobs first" in answer["error"]["message"]) is not repeat


def test_the_progress_that_a_client_hears_of_always_grows():
    talk = PendingRequests()
    talk.sent(call(1, progressToken="p"))
    at = [line(method="notifications/progress", params={"progressToken": "p", "progress": n}) for n in (1, 3, 2, 3, 4)]
    heard = [json.loads(talk.received(each))["params"]["progress"] for each in at]
    assert heard == sorted(set(heard))
    assert heard == pytest.approx([1, 3, 3, 3, 4], abs=1e-3)
    other = line(method="notifications/progress", params={"progressToken": "other", "progress": 0})
    assert talk.received(other) == other


def test_a_call_without_an_id_of_the_clients_gets_one_that_its_repetition_shares():
    talk = PendingRequests()
    asked = line(id=1, method="tools/call", params={"name": "claude_run_async", "arguments": {"task": "\ud800"}})
    passed = talk.sent(asked)
    message = json.loads(passed)
    given = message["params"].pop("_meta")[CALL_ID]
    assert message == json.loads(asked)
    assert talk.replay() == passed
    other = json.loads(PendingRequests().sent(asked))["params"]["_meta"][CALL_ID]
    assert len({given, other}) == 2


@pytest.mark.parametrize("task", ["\u0434" * 10_000, "\U0001f333" * 10_000, "a" * 10_000])
def test_a_call_that_is_given_an_id_grows_by_no_more_than_that(task: str):
    params = {"name": "claude_run_async", "arguments": {"task": task}}
    asked = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}, ensure_ascii=False)
    passed = PendingRequests().sent(f"{asked}\n".encode())
    assert json.loads(passed)["params"]["arguments"]["task"] == task
    assert len(passed) <= len(asked.encode()) + 100


def test_a_refused_request_is_owed_nothing_any_more():
    talk = PendingRequests()
    asked = call(1)
    talk.sent(asked)
    [answer] = [json.loads(each) for each in talk.refuse(asked, 10)]
    assert (answer["id"], answer["error"]["code"]) == (1, INVALID_REQUEST)
    assert "10 bytes" in answer["error"]["message"]
    assert (talk.replay(), talk.urgent) == (b"", False)
    assert talk.refuse(line(method="notifications/x"), 10) == []


def test_an_answer_to_a_question_of_the_dead_engine_does_not_reach_the_next_one():
    talk = PendingRequests()
    talk.received(line(id=7, method="elicitation/create", params={}))
    [withdrawn] = [json.loads(each) for each in talk.lost()]
    assert (withdrawn["method"], withdrawn["params"]["requestId"]) == ("notifications/cancelled", 7)
    assert talk.sent(line(id=7, result={})) == b""
    talk.received(line(id=7, method="elicitation/create", params={}))
    assert talk.sent(line(id=7, result={}))


@pytest.mark.parametrize(
    "odd", [b"[]\n", b"no json\n", b'{"id":[1],"method":"x"}\n', b'{"method":["x"],"id":1}\n', b"[" * 99999]
)
def test_what_is_no_message_is_refused_to_the_client_and_passed_on_from_the_engine(odd: bytes):
    talk = PendingRequests()
    with pytest.raises(BadMessageError):
        talk.sent(odd)
    assert talk.received(odd) == odd
    assert talk.replay() == b""


def test_a_call_that_is_nested_to_the_limit_is_passed_on():
    for depth in range(900, 1000):
        arguments = b"[" * depth + b"]" * depth
        odd = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x","arguments":{"a":%b}}}\n' % arguments
        with suppress(BadMessageError):
            assert arguments in PendingRequests().sent(odd)


def test_what_is_kept_is_bounded_and_the_rest_is_answered_with_an_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MOST_HELD", 2 * len(call(1)))
    talk = PendingRequests()
    for key in (1, 2, 3):
        talk.sent(call(key))
    assert talk.replay() == call(1) + call(2)
    assert [json.loads(each)["id"] for each in talk.give_up("too much", all_of_them=False)] == [3]
    talk.received(line(id=1, result={}))
    talk.sent(call(4))
    assert talk.replay() == call(2) + call(4)

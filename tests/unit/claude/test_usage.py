"""What an attempt consumed, read off its frames: with a result and without one."""

import json
from typing import Any

import pytest

from jobs.claude.usage import DEAREST, MOST, PRICES, Tokens, UsageMeter, cost_of

SONNET = "claude-sonnet-5-5"


def begun(call: str, read: int, model: str = SONNET, **cache: Any) -> dict[str, Any]:
    usage = {"input_tokens": read, "output_tokens": 1, **cache}
    message = {"id": call, "model": model, "usage": usage, "content": []}
    return {"type": "stream_event", "event": {"type": "message_start", "message": message}}


def ended(written: int, thread: str | None = None) -> dict[str, Any]:
    event = {"type": "message_delta", "usage": {"output_tokens": written}}
    return {"type": "stream_event", "event": event, "parent_tool_use_id": thread}


def said(call: str, read: int) -> dict[str, Any]:
    usage = {"input_tokens": read, "output_tokens": 1}
    return {"type": "assistant", "message": {"id": call, "model": SONNET, "usage": usage, "content": []}}


def result(dollars: float, total: float) -> dict[str, Any]:
    since = {SONNET: {"costUSD": dollars, "inputTokens": 7, "outputTokens": 3}} if dollars else {}
    return {"type": "result", "total_cost_usd": total, "model_usage_since_last_result": since, "num_turns": 2}


def fed(*frames: dict[str, Any]) -> UsageMeter:
    meter = UsageMeter()
    for frame in frames:
        meter.feed(frame)
    return meter


def test_a_process_that_reports_nothing_is_billed_from_its_stream():
    meter = fed(begun("m1", 1000), said("m1", 1000), said("m1", 1000), ended(500), begun("m2", 2000), ended(300))
    assert meter.usage.cost_usd == pytest.approx(3000 * 2e-6 + 800 * 10e-6)
    assert (meter.usage.input_tokens, meter.usage.output_tokens, meter.usage.turns) == (3000, 800, 2)


def test_the_input_of_a_call_is_billed_when_it_begins():
    assert fed(begun("m1", 1_000_000)).usage.cost_usd == pytest.approx(2.0, abs=1e-4)


def test_a_result_stands_for_every_call_before_it():
    meter = fed(begun("m1", 1000), ended(500), result(0.25, 0.25))
    assert (meter.usage.cost_usd, meter.usage.input_tokens, meter.usage.turns) == (0.25, 7, 2)


def test_what_follows_a_result_is_added_to_it():
    meter = fed(begun("m1", 1), ended(5), result(0.25, 0.25), begun("m2", 1000), ended(500))
    assert meter.usage.cost_usd == pytest.approx(0.25 + 0.007)


def test_a_resumed_session_whose_first_call_fails_is_not_billed_for_its_past():
    assert fed(result(0.0, 0.8)).usage.cost_usd == 0.0


def test_an_older_cli_is_billed_by_its_running_total():
    first = {"type": "result", "total_cost_usd": 0.2, "usage": {"output_tokens": 1}}
    assert fed(first, first | {"total_cost_usd": 0.5}).usage.cost_usd == pytest.approx(0.5)


def test_calls_of_inner_agents_do_not_mix_with_those_of_the_job():
    inner = begun("m2", 10) | {"parent_tool_use_id": "tool"}
    meter = fed(begun("m1", 10), inner, ended(100, "tool"), ended(1000))
    assert meter.usage.output_tokens == 1100


def test_cached_input_has_its_own_prices():
    written: dict[str, Any] = {
        "cache_creation_input_tokens": 10**6,
        "cache_creation": {"ephemeral_1h_input_tokens": 10**6},
    }
    assert fed(begun("m", 0, cache_read_input_tokens=10**6)).usage.cost_usd == pytest.approx(0.2, abs=1e-4)
    assert fed(begun("m", 0, cache_creation_input_tokens=10**6)).usage.cost_usd == pytest.approx(2.5, abs=1e-4)
    assert fed(begun("m", 0, **written)).usage.cost_usd == pytest.approx(4.0, abs=1e-4)


@pytest.mark.parametrize(
    "frame",
    [
        {"type": "stream_event"},
        {"type": "stream_event", "event": {"type": "message_delta", "usage": None}},
        {"type": "stream_event", "event": {"type": "message_start", "message": {"id": 7, "usage": []}}},
        {"type": "assistant", "message": {"id": "m", "usage": {"input_tokens": "many", "output_tokens": -5}}},
        {"type": "result", "model_usage_since_last_result": {"x": 7}},
        json.loads('{"type": "assistant", "message": {"id": "m", "usage": {"input_tokens": 1e999}}}'),
    ],
)
def test_a_frame_of_any_shape_costs_nothing(frame: dict[str, Any]):
    assert fed(frame).usage.cost_usd == 0.0


def absurd(amount: float) -> list[dict[str, Any]]:
    """A frame of each kind that reports so much of everything."""
    names = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "output_tokens")
    usage = dict.fromkeys(names, amount)
    since = {name: {"inputTokens": amount, "outputTokens": amount, "costUSD": amount} for name in ("a", "b")}
    return [
        {"type": "assistant", "message": {"id": "m", "model": "x", "usage": usage}},
        {"type": "result", "num_turns": amount, "total_cost_usd": amount, "usage": usage},
        {"type": "result", "num_turns": amount, "model_usage_since_last_result": since},
        {"type": "assistant", "message": {"id": "n", "model": "x", "usage": usage}},
    ]


@pytest.mark.parametrize("amount", [1e308, 1e30, 2.0**62, -1e30])
def test_an_absurd_amount_is_one_that_a_database_takes(amount: float):
    meter = UsageMeter()
    for frame in absurd(amount):
        meter.feed(frame)
        usage = meter.usage
        assert all(0 <= count <= MOST for count in (usage.input_tokens, usage.output_tokens, usage.turns))
        assert 0 <= usage.cost_usd <= MOST


def test_a_model_of_unknown_price_counts_as_the_dearest_known():
    tokens = Tokens(read=1000, written=1000)
    assert cost_of("claude-unheard-of", tokens) == DEAREST.of(tokens) == max(p.of(tokens) for p in PRICES.values())


@pytest.mark.parametrize(
    ("model", "tokens", "dollars"),
    [
        # Each as the real CLI reported it for a call of this size.
        (SONNET, Tokens(read=1_000_000), 2.0),
        (SONNET, Tokens(written=1_000_000), 10.0),
        ("claude-opus-5-5", Tokens(read=1_000_000, written=100_000), 6.0),
        ("claude-opus-5-5", Tokens(kept_long=1_000_000), 8.0),
        ("claude-fable-5-2", Tokens(read=1_000_000, written=100_000), 12.0),
        ("claude-haiku-4-5-20251001", Tokens(read=1_000_000, written=100_000), 1.5),
        ("claude-haiku-5-5", Tokens(read=100_000), 0.01),
        ("claude-haiku-5-5", Tokens(read=1_000_000, written=100_000), 0.75),
        ("claude-haiku-5-5", Tokens(read=100, cached=150_000), 0.00755),
        ("claude-haiku-5-5", Tokens(written=300_000), 0.15),
    ],
)
def test_prices_are_those_that_the_cli_reports(model: str, tokens: Tokens, dollars: float):
    assert cost_of(model, tokens) == pytest.approx(dollars)

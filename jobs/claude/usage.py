"""Usage of an attempt: dollars, tokens and turns of its process alone, and the list prices of models."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from jobs.model import Usage
from jobs.util.json_values import mapping, number, text

MILLION = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """The tokens of one call of the model.

    Args:
        read: Input tokens that no cache served or took.
        cached: Input tokens that the prompt cache served.
        kept_short: Input tokens that the prompt cache took for five minutes.
        kept_long: Input tokens that the prompt cache took for an hour.
        written: Output tokens.
    """

    read: int = 0
    cached: int = 0
    kept_short: int = 0
    kept_long: int = 0
    written: int = 0

    @property
    def input(self) -> int:
        """Every token that the model read."""
        return self.read + self.cached + self.kept_short + self.kept_long


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What a model costs, in US dollars for a million tokens.

    Args:
        input: For input that no cache served.
        output: For output.
        long_from: Input tokens of one call from which both prices are multiplied, or None.
        long_factor: By how much.
    """

    input: float
    output: float
    long_from: int | None = None
    long_factor: float = 1.0

    def of(self, tokens: Tokens) -> float:
        """Return the US dollars that a call costs."""
        read = tokens.read + CACHED * tokens.cached + KEPT_SHORT * tokens.kept_short + KEPT_LONG * tokens.kept_long
        long = self.long_from is not None and tokens.input >= self.long_from
        return (read * self.input + tokens.written * self.output) / MILLION * (self.long_factor if long else 1.0)


CACHED = 0.1
KEPT_SHORT = 1.25
KEPT_LONG = 2.0
"""Cached tokens as parts of the input price, from the costs that Claude Code 2.1.330 reports (measured)."""

PRICES: Mapping[str, Price] = MappingProxyType(
    {
        "claude-fable-5-2": Price(input=8.0, output=40.0),
        "claude-opus-5-5": Price(input=4.0, output=20.0),
        "claude-sonnet-5-5": Price(input=2.0, output=10.0),
        "claude-haiku-5-5": Price(input=0.1, output=0.5, long_from=100_001, long_factor=5.0),
        "claude-sonnet-4": Price(input=3.0, output=15.0),
        "claude-haiku-4-5": Price(input=1.0, output=5.0),
        "claude-3-5-haiku": Price(input=0.8, output=4.0),
    }
)
"""Beginnings of model names and their prices: read off the costs that Claude Code 2.1.330 reports for calls of known
size, answered by a scripted model (measured). Where the process lives to report a result, that is billed instead."""

DEAREST = max(PRICES.values(), key=lambda price: price.output)


def cost_of(model: str, tokens: Tokens) -> float:
    """Return the US dollars that a call costs; a model of unknown price counts as the dearest one known.

    Args:
        model: Its name, as the API's answer gives it.
        tokens: What the call consumed.
    """
    known = [name for name in PRICES if model.startswith(name)]
    price = PRICES[max(known, key=len)] if known else DEAREST
    return price.of(tokens)


MOST = 10**12
"""Most of anything that one attempt is taken to have consumed: a job can write any number in place of its CLI's. The
database holds integers below 2^63, and adds up a million such attempts within them."""


class UsageMeter:
    """Adds up an attempt's frames: what its results report, and the calls of the model since the last of them.

    Without `--include-partial-messages` the frames of a call carry the output tokens of its beginning, which is 1; with
    it the `message_delta` tells them all (measured on 2.1.330). The input tokens are known from the call's beginning.
    """

    def __init__(self) -> None:
        self._reported = Usage()
        self._result: Mapping[str, Any] | None = None
        self._calls: dict[str, tuple[str, Tokens]] = {}
        self._under_way: dict[str, str] = {}

    @property
    def usage(self) -> Usage:
        """What this attempt has consumed so far."""
        calls = self._calls.values()
        return Usage(
            cost_usd=min(MOST, self._reported.cost_usd + sum(cost_of(model, tokens) for model, tokens in calls)),
            input_tokens=min(MOST, self._reported.input_tokens + sum(tokens.input for _, tokens in calls)),
            output_tokens=min(MOST, self._reported.output_tokens + sum(tokens.written for _, tokens in calls)),
            turns=min(MOST, self._reported.turns + len(calls)),
        )

    def feed(self, frame: Mapping[str, Any]) -> None:
        """Take the next frame, of any shape."""
        match frame.get("type"):
            case "result":
                reported = added(self._reported, frame, self._result)
                if _is_unpriced(frame):
                    reported = replace(reported, cost_usd=max(reported.cost_usd, self.usage.cost_usd))
                self._reported, self._result = reported, frame
                # It covers every call before it, those of other models that the stream does not show included.
                self._calls.clear()
            case "assistant":
                self._begin(mapping(frame.get("message")))
            case "stream_event":
                self._take_event(mapping(frame.get("event")), text(frame.get("parent_tool_use_id")))
            case _:
                pass

    def _take_event(self, event: Mapping[str, Any], thread: str) -> None:
        match event.get("type"):
            case "message_start":
                message = mapping(event.get("message"))
                self._under_way[thread] = text(message.get("id"))
                self._begin(message)
            case "message_delta" if (call := self._under_way.get(thread)) in self._calls:
                model, tokens = self._calls[call or ""]
                self._calls[call or ""] = model, _later(tokens, mapping(event.get("usage")))
            case _:
                pass

    def _begin(self, message: Mapping[str, Any]) -> None:
        # One frame for each block of a message: they share its id and repeat its usage.
        call = text(message.get("id"))
        if call and call not in self._calls and isinstance(message.get("usage"), dict):
            self._calls[call] = text(message.get("model")), _tokens(mapping(message["usage"]))


def added(sofar: Usage, frame: Mapping[str, Any], previous: Mapping[str, Any] | None) -> Usage:
    """Add what one result reports to what the attempt's earlier results reported.

    Args:
        sofar: The sum of the earlier results of the same process.
        frame: The result frame.
        previous: The result frame before it, or None.
    """
    cost, read, written = _since_last_result(frame) or _difference(frame, previous)
    return Usage(
        cost_usd=sofar.cost_usd + max(0.0, cost),
        input_tokens=sofar.input_tokens + read,
        output_tokens=sofar.output_tokens + written,
        turns=sofar.turns + int(_amount(frame, "num_turns")),
    )


def _since_last_result(frame: Mapping[str, Any]) -> tuple[float, int, int] | None:
    # The totals of a resumed session hold what its earlier processes consumed (measured on 2.1.330); these do not. They
    # are empty where the first call failed: to take the total then would bill the whole session again.
    since = frame.get("model_usage_since_last_result")
    if not isinstance(since, dict):
        return None
    models = [mapping(value) for value in since.values()]
    return (
        sum(_amount(model, "costUSD") for model in models),
        int(_total(models, ("inputTokens", "cacheReadInputTokens", "cacheCreationInputTokens"))),
        int(_total(models, ("outputTokens",))),
    )


def _difference(frame: Mapping[str, Any], previous: Mapping[str, Any] | None) -> tuple[float, int, int]:
    # An older CLI: the cost is a running total, the tokens are those of the last turn.
    usage = mapping(frame.get("usage"))
    cost = _amount(frame, "total_cost_usd") - _amount(previous or {}, "total_cost_usd")
    names = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    return cost, int(_total((usage,), names)), int(_amount(usage, "output_tokens"))


def _is_unpriced(frame: Mapping[str, Any]) -> bool:
    """Tell whether a result gives a cost that is no number: NaN, for example."""
    return "total_cost_usd" in frame and number(frame["total_cost_usd"]) is None


def _tokens(usage: Mapping[str, Any]) -> Tokens:
    creation = mapping(usage.get("cache_creation"))
    kept = int(_amount(usage, "cache_creation_input_tokens"))
    kept_long = min(kept, int(_amount(creation, "ephemeral_1h_input_tokens")))
    return Tokens(
        read=int(_amount(usage, "input_tokens")),
        cached=int(_amount(usage, "cache_read_input_tokens")),
        kept_short=kept - kept_long,
        kept_long=kept_long,
        written=int(_amount(usage, "output_tokens")),
    )


def _later(tokens: Tokens, usage: Mapping[str, Any]) -> Tokens:
    # Running totals of the call: a later report can only be larger.
    return replace(tokens, written=max(tokens.written, int(_amount(usage, "output_tokens"))))


def _total(values: Collection[Mapping[str, Any]], names: Collection[str]) -> float:
    return sum(_amount(value, name) for value in values for name in names)


def _amount(values: Mapping[str, Any], name: str) -> float:
    return min(MOST, max(0.0, number(values.get(name)) or 0.0))

"""What an attempt consumed, out of its result frames: dollars, tokens and turns of this process alone."""

from collections.abc import Mapping
from typing import Any

from jobs.claude.shapes import mapping, number
from jobs.model import Usage


def added(sofar: Usage, frame: Mapping[str, Any], previous: Mapping[str, Any] | None) -> Usage:
    """Add what one result reports to what the attempt's earlier results reported.

    Args:
        sofar: What the earlier results of the same process came to.
        frame: The result frame.
        previous: The result frame before it, or None.
    """
    cost, read, written = _since_last_result(frame) or _difference(frame, previous)
    return Usage(
        cost_usd=sofar.cost_usd + max(0.0, cost),
        input_tokens=sofar.input_tokens + read,
        output_tokens=sofar.output_tokens + written,
        turns=sofar.turns + int(number(frame.get("num_turns")) or 0),
    )


def _since_last_result(frame: Mapping[str, Any]) -> tuple[float, int, int] | None:
    # The totals of a resumed session hold what its earlier processes consumed (measured on 2.1.330); these do not.
    models = [mapping(value) for value in mapping(frame.get("model_usage_since_last_result")).values()]
    if not models:
        return None
    return (
        sum(_amount(model, "costUSD") for model in models),
        sum(
            int(_amount(model, name))
            for model in models
            for name in ("inputTokens", "cacheReadInputTokens", "cacheCreationInputTokens")
        ),
        sum(int(_amount(model, "outputTokens")) for model in models),
    )


def _difference(frame: Mapping[str, Any], previous: Mapping[str, Any] | None) -> tuple[float, int, int]:
    # An older CLI: the cost is a running total, the tokens are those of the last turn.
    usage = mapping(frame.get("usage"))
    cost = _amount(frame, "total_cost_usd") - _amount(previous or {}, "total_cost_usd")
    names = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    return cost, sum(int(_amount(usage, name)) for name in names), int(_amount(usage, "output_tokens"))


def _amount(values: Mapping[str, Any], name: str) -> float:
    return max(0.0, number(values.get(name)) or 0.0)

"""List prices of models, for what a process consumed and did not live to report itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

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
"""Parts of the input price, as the costs that Claude Code 2.1.330 reports for cached tokens come to (measured)."""

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

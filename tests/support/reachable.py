"""What an object holds on to, as the garbage collector sees it: for tests that nothing is left of what is over."""

import gc
from collections.abc import Iterator
from types import FunctionType, ModuleType

_NO_PART = (type, ModuleType, FunctionType)
"""Classes, modules and functions are shared: what they refer to is no part of an object."""


def parts_of(thing: object) -> Iterator[object]:
    """Yield every object that can be reached from an object, itself included."""
    seen: set[int] = set()
    left = [thing]
    while left:
        one = left.pop()
        if id(one) not in seen:
            seen.add(id(one))
            yield one
            if not isinstance(one, _NO_PART):
                left.extend(gc.get_referents(one))
            if isinstance(one, dict):
                # Texts as keys are no news to the collector.
                left.extend(one)


def names_in(thing: object) -> set[str]:
    """Return every text that an object holds on to."""
    return {part for part in parts_of(thing) if isinstance(part, str)}

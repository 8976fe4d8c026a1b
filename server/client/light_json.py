"""JSON as the package `json` reads and writes it, without that package: its import takes half as long as Python itself.

The package imports `re`, and with it `enum` and `functools`, for its fall-back in Python: 15 of the 28 ms that an
interpreter with `import json` takes from start to end (measured). The C functions below it need none of these. An
interpreter that lacks them gets the package.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class _Reading:
    """The default options of `json.loads`; the scanner reads each by its name."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    array_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float


def _refuse(value: Any) -> Any:
    raise TypeError(f"{type(value).__name__} is no JSON")


try:
    from _json import encode_basestring, encode_basestring_ascii, make_encoder, make_scanner

    _scan = make_scanner(_Reading)  # type: ignore[arg-type] # any object that has these names
    _write = {
        ascii_only: make_encoder(None, _refuse, spell, None, ":", ",", False, False, True)
        for ascii_only, spell in ((True, encode_basestring_ascii), (False, encode_basestring))
    }
except (ImportError, AttributeError, TypeError):
    # Another interpreter, or a later one whose functions ask for something else.
    import json

    def loads(line: bytes) -> Any:
        """Return the value that a UTF-8 text holds."""
        return json.loads(line)

    def dumps(value: Any, *, ascii_only: bool = True) -> str:
        """Return a value as compact JSON."""
        return json.dumps(value, separators=(",", ":"), ensure_ascii=ascii_only)

else:

    def loads(line: bytes) -> Any:
        """Return the value that a UTF-8 text holds.

        Raises:
            ValueError: It is not JSON.
            RecursionError: It is nested too deeply.
        """
        text = line.decode("utf-8", "surrogatepass").strip(" \t\n\r")
        try:
            value, end = _scan(text, 0)
        except StopIteration as error:
            raise ValueError(f"no value at character {error}") from None
        except SystemError:
            # How the scanner of 3.11 says what is wrong with a text or an object where the package is not there.
            raise ValueError("a text or an object in it is not written correctly") from None
        if end != len(text):
            raise ValueError(f"more than one value: the first ends at character {end}")
        return value

    def dumps(value: Any, *, ascii_only: bool = True) -> str:
        """Return a value as compact JSON.

        Args:
            value: Dictionaries, lists, texts, numbers, truth values and None.
            ascii_only: Spell every other character with an escape.

        Raises:
            TypeError: The value holds something else.
        """
        return "".join(_write[ascii_only](value, 0))

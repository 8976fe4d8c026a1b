"""What is wrong with the fields of a control request, in the words of the command that sends it."""

from collections.abc import Mapping
from typing import Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

_MOST = 5
"""Most fields that one error names."""

_SHOWN_OF_A_NAME = 80

_WORDS: Final[Mapping[str, str]] = {
    "int_": "give a whole number",
    "float_": "give a number",
    "finite_number": "give a finite number",
    "bool_": "give true or false",
    "string_": "give a text",
    "dataclass_": "give an object",
    "missing": "it is missing",
    "unexpected_keyword_argument": "there is no such field",
}
"""Beginning of pydantic's type of an error to what is wrong."""


def problems_of(error: ValidationError, whole: str, options: Mapping[str, str]) -> str:
    """Return what is wrong, field by field, as a sentence.

    Args:
        error: What pydantic found.
        whole: Name of the object in the request.
        options: The command's option for each field; a field without one has its own name.
    """
    details = error.errors(include_url=False, include_input=False)
    said = "; ".join(f"{_name(detail['loc'], whole, options)}: {_words(detail)}" for detail in details[:_MOST])
    more = f"; and {len(details) - _MOST} more" if len(details) > _MOST else ""
    return f"{said}{more}. Nothing was done; correct the request and repeat it."


def _name(location: tuple[int | str, ...], whole: str, options: Mapping[str, str]) -> str:
    name = ".".join(str(part)[:_SHOWN_OF_A_NAME] for part in location)
    return options.get(name, name) or whole


def _words(detail: ErrorDetails) -> str:
    kind = detail["type"]
    if kind == "enum":
        return f"give one of {detail['ctx']['expected']}"
    return next((words for start, words in _WORDS.items() if kind.startswith(start)), "it cannot be used")

"""Text that is shown in a terminal has no control over it."""

import pytest

from jobs.util.text import strip_terminal_codes


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\n\ttext", "plain\n\ttext"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bPq#0\x1b\\after", "after"),
        ("a\x9b2Jb", "ab"),
        ("over\rwrite\x08\x7f\x00", "overwrite"),
        ("\u202eevil\u2066", "evil"),
        ("half \ud800", "half "),
        ("\x1b", ""),
        ("\x1b\x1b[31m[0m", "[0m"),
        ("Zürich 東京 é", "Zürich 東京 é"),
    ],
)
def test_nothing_that_a_terminal_obeys_is_left(text: str, shown: str):
    assert strip_terminal_codes(text) == shown

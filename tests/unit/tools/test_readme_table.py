"""The README's table of tools is that of the live list."""

import re
from pathlib import Path

from server.catalogue import listing

README = Path(__file__).parents[3] / "README.md"


def test_the_readme_has_one_row_for_each_tool_in_any_order():
    rows = re.findall(r"^\| `(claude_[a-z_]+)` \|", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(rows) == sorted(tool.name for tool in listing(leaf=False))

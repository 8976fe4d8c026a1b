"""The table of settings in the README of jobs is that of the settings."""

import json
import re
from pathlib import Path

import pytest

from jobs.settings import Settings

README = Path(__file__).parents[3] / "jobs" / "README.md"
ROW = re.compile(r"^\| `([a-z_]+)` \| (.+?) \| ", re.MULTILINE)


def rows() -> dict[str, str]:
    section = README.read_text(encoding="utf-8").partition("## Settings")[2].partition("\n## ")[0]
    return dict(ROW.findall(section))


def test_every_setting_has_a_row_and_every_row_is_a_setting():
    assert sorted(rows()) == sorted(Settings.model_fields)


@pytest.mark.parametrize("name", [name for name, default in rows().items() if default.startswith("`")])
def test_a_default_in_the_table_is_the_default(name: str):
    settings = Settings(home=Path("/nowhere")).model_dump(mode="json")
    assert settings[name] == json.loads(rows()[name].strip("`"))

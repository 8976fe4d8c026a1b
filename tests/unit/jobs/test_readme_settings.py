"""The table of settings in the README of jobs is that of the settings."""

import json
import re
from pathlib import Path

import pytest

from jobs.settings import Settings, SettingScope, names

README = Path(__file__).parents[3] / "jobs" / "README.md"
ROW = re.compile(r"^\| `([a-z_]+)` \| (.+?) \| ", re.MULTILINE)


SECTION = README.read_text(encoding="utf-8").partition("## Settings")[2].partition("\n## ")[0]


def rows() -> dict[str, str]:
    return dict(ROW.findall(SECTION))


def test_every_setting_has_a_row_and_every_row_is_a_setting():
    assert sorted(rows()) == sorted(Settings.model_fields)


@pytest.mark.parametrize("name", [name for name, default in rows().items() if default.startswith("`")])
def test_a_default_in_the_table_is_the_default(name: str):
    settings = Settings(home=Path("/nowhere")).model_dump(mode="json")
    assert settings[name] == json.loads(rows()[name].strip("`"))


def test_the_settings_of_a_tree_are_those_that_the_readme_names():
    of_trees = SECTION.partition("**These settings belong to a tree**:")[2].partition(".")[0]
    assert sorted(re.findall(r"`(\w+)`", of_trees)) == sorted(names(SettingScope.TREE))

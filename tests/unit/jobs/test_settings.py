"""Where a setting comes from, which source wins, and what a person reads about a bad one."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from jobs.errors import BadInputError
from jobs.settings import Settings, older_settings

OLDER = {
    "CLAUDE_MAX_TOTAL_JOBS": ("max_jobs", "20", 20),
    "CLAUDE_TIMEOUT_MULTIPLIER": ("timeout_multiplier", "1.5", 1.5),
    "CLAUDE_ALLOW_BYPASS_PERMISSIONS": ("allow_bypass_permissions", "true", True),
    "CLAUDE_DEFAULT_PERMISSION_MODE": ("permission_mode", "plan", "plan"),
    "CLAUDE_LOG_LEVEL": ("log_level", "debug", "DEBUG"),
    "CLAUDE_MAX_RECURSION_DEPTH": ("max_depth", "3", 2),
    "CLAUDE_MAX_CONCURRENT_AT_DEPTH": ("max_concurrent", "7", {0: 7}),
}


class Sources:
    """The sources of one state directory."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home = home
        self._monkeypatch = monkeypatch

    def environment(self, **values: str) -> None:
        for name, value in values.items():
            self._monkeypatch.setenv(name, value)

    def file(self, text: str | bytes) -> None:
        (self.home / "config.toml").write_bytes(text.encode() if isinstance(text, str) else text)

    def settings(self, **given: Any) -> Settings:
        return Settings(**{"home": self.home, **given})


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sources:
    return Sources(tmp_path, monkeypatch)


def test_without_any_source_the_defaults_hold(sources: Sources):
    found = sources.settings()
    assert (found.max_depth, found.max_concurrent, found.max_children, found.max_jobs) == (
        5,
        {0: 1, 1: 10, 2: 50},
        100,
        1000,
    )
    assert found.max_running >= 2


def test_each_source_wins_over_the_one_below_it(sources: Sources):
    assert sources.settings().max_jobs == 1000
    sources.environment(CLAUDE_MAX_TOTAL_JOBS="1")
    assert sources.settings().max_jobs == 1
    sources.file("max_jobs = 2\n")
    assert sources.settings().max_jobs == 2
    sources.environment(CLAUDE_JOBS_MAX_JOBS="3")
    assert sources.settings().max_jobs == 3
    assert sources.settings(max_jobs=4).max_jobs == 4


def test_a_higher_source_replaces_the_slots_of_a_lower_one_and_does_not_mix_with_them(sources: Sources):
    sources.environment(CLAUDE_MAX_CONCURRENT_AT_DEPTH="3")
    assert sources.settings().max_concurrent == {0: 3}
    sources.file("[max_concurrent]\n1 = 4\n")
    assert sources.settings().max_concurrent == {1: 4}
    sources.environment(CLAUDE_JOBS_MAX_CONCURRENT='{"2": 5}')
    assert sources.settings().max_concurrent == {2: 5}
    assert sources.settings(max_concurrent={3: 6}).max_concurrent == {3: 6}


def test_the_file_lies_in_the_state_directory_that_the_environment_names(sources: Sources):
    sources.environment(CLAUDE_JOBS_HOME=str(sources.home))
    sources.file("max_children = 7\n")
    assert Settings().max_children == 7


def test_the_slots_are_a_json_object_from_depth_to_number(sources: Sources):
    sources.environment(CLAUDE_JOBS_MAX_CONCURRENT='{"0": 1, "1": 20}')
    limits = sources.settings().tree_limits
    assert [limits.slots_at(depth) for depth in (0, 1, 9)] == [1, 20, 20]


@pytest.mark.parametrize("older", OLDER)
def test_a_variable_of_the_older_server_is_translated(sources: Sources, older: str):
    name, text, value = OLDER[older]
    sources.environment(**{older: text})
    assert getattr(sources.settings(), name) == value


@pytest.mark.parametrize("older", OLDER)
def test_an_empty_variable_of_the_older_server_says_nothing(sources: Sources, older: str):
    sources.environment(**{older: ""})
    sources.settings()
    assert older_settings({older: ""}) == {}


def test_the_older_depth_counts_levels_so_one_level_is_a_root_without_children(sources: Sources):
    sources.environment(CLAUDE_MAX_RECURSION_DEPTH="1")
    assert sources.settings().max_depth == 0


@pytest.mark.parametrize("depth", ["0", "three", "-1", "1.5", "\u00b2"])
def test_an_older_depth_that_is_none_is_a_readable_error(sources: Sources, depth: str):
    sources.environment(CLAUDE_MAX_RECURSION_DEPTH=depth)
    with pytest.raises(ValidationError, match="max_depth"):
        sources.settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_jobs", "many"),
        ("max_jobs", "0"),
        ("max_running", "-1"),
        ("timeout_seconds", "0"),
        ("permission_mode", "god"),
        ("log_level", "LOUD"),
        ("max_concurrent", "{}"),
        ("max_concurrent", '{"-1": 2}'),
        ("max_concurrent", '{"0": 0}'),
        ("max_concurrent", '{"zero": 1}'),
        ("max_concurrent", "5"),
    ],
)
def test_a_bad_value_is_an_error_that_names_its_setting(sources: Sources, name: str, value: str):
    sources.environment(**{f"CLAUDE_JOBS_{name.upper()}": value})
    with pytest.raises(ValidationError, match=name):
        sources.settings()


def test_slots_that_are_no_json_are_an_error_that_shows_how_to_write_them(sources: Sources):
    sources.environment(CLAUDE_JOBS_MAX_CONCURRENT='{"1": 10')
    with pytest.raises(BadInputError, match=r'max_concurrent.*CLAUDE_JOBS_MAX_CONCURRENT=\'\{"0": 1, "1": 10\}\''):
        sources.settings()


@pytest.mark.parametrize("text", ["max_jobs = = 3", b"\xff\xfe", "[unclosed"])
def test_a_broken_file_is_an_error_that_names_it_and_what_to_do(sources: Sources, text: str | bytes):
    sources.file(text)
    with pytest.raises(BadInputError, match=r"config\.toml: it cannot be read as TOML.*Repair or remove the file"):
        sources.settings()


def test_an_unknown_name_in_the_file_is_an_error_that_names_it_and_the_one_meant(sources: Sources):
    sources.file("max_depht = 9\nmax_children = 7\n")
    with pytest.raises(BadInputError, match=r"config\.toml: there is no setting 'max_depht'.*Did you mean 'max_depth'"):
        sources.settings()
    sources.file("Zebra = 1\n[tables]\nx = 1\n")
    with pytest.raises(BadInputError, match=r"there is no setting 'Zebra', 'tables'"):
        sources.settings()


def test_an_unknown_variable_may_be_another_tools(sources: Sources):
    sources.environment(CLAUDE_JOBS_MAX_DEPHT="9")
    assert sources.settings().max_depth == 5


@pytest.mark.parametrize(
    "text",
    [
        "[mcp_servers.gh]\nenv = {GITHUB_TOKEN = 'ghp_secret'}",
        "[mcp_servers.gh]\ncommand = 'x'\nenv = {GITHUB_TOKEN = ['ghp_secret']}",
        "mcp_servers = 'ghp_secret'",
        "mcp_servers = {gh = 'ghp_secret'}",
        "[mcp_servers.gh]\ncommand = 'x'\nghp_secret = 'ghp_secret'",
    ],
)
def test_no_value_of_a_setting_stands_in_an_error(sources: Sources, text: str):
    sources.file(text)
    with pytest.raises(ValidationError, match="mcp_servers") as caught:
        sources.settings()
    assert "'ghp_secret" not in str(caught.value)


def test_a_file_that_is_a_directory_says_nothing(sources: Sources):
    (sources.home / "config.toml").mkdir()
    assert sources.settings().max_jobs == 1000


def test_settings_cannot_be_changed(sources: Sources):
    with pytest.raises(ValidationError, match="frozen"):
        sources.settings().max_depth = 9  # type: ignore[misc]  # that it cannot be assigned is what is tested


def test_a_time_out_grows_with_depth_only_by_the_older_servers_formula(sources: Sources):
    assert [sources.settings().timeout_at(depth) for depth in (0, 3)] == [1800, 1800]
    older = sources.settings(timeout_multiplier=1.5)
    assert [older.timeout_at(depth) for depth in (0, 1, 2, 10)] == [300, 450, 675, 1800]

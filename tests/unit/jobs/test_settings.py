"""Where a setting comes from, which source wins, and what a person reads about a bad one."""

import json
from dataclasses import asdict, fields
from pathlib import Path

import pytest
from pydantic import ValidationError

from jobs.errors import BadInputError
from jobs.settings import Settings, SettingScope, TreeSettings, names, restored_tree_settings, scope_of
from jobs.settings_sources import InvalidSettingsError, LoadedSettings, known_variables, load_here, variable_of
from jobs.validation import timeout_at

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

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environ: dict[str, str] = {}

    def environment(self, **values: str) -> None:
        self.environ |= values

    def file(self, text: str | bytes) -> None:
        (self.home / "config.toml").write_bytes(text.encode() if isinstance(text, str) else text)

    def loaded(self) -> LoadedSettings:
        return load_here(self.home, self.environ)

    def settings(self) -> Settings:
        return self.loaded().settings


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    return Sources(tmp_path)


def assert_in_our_words(words: str) -> None:
    assert "For example: " in words
    assert not any(theirs in words for theirs in ("Input should", "validation error", "pydantic", "type="))


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


def test_a_higher_source_replaces_the_slots_of_a_lower_one_and_does_not_mix_with_them(sources: Sources):
    sources.environment(CLAUDE_MAX_CONCURRENT_AT_DEPTH="3")
    assert sources.settings().max_concurrent == {0: 3}
    sources.file("[max_concurrent]\n1 = 4\n")
    assert sources.settings().max_concurrent == {1: 4}
    sources.environment(CLAUDE_JOBS_MAX_CONCURRENT='{"2": 5}')
    assert sources.settings().max_concurrent == {2: 5}


def test_the_slots_are_a_json_object_from_depth_to_number(sources: Sources):
    sources.environment(CLAUDE_JOBS_MAX_CONCURRENT='{"0": 1, "1": 20}')
    limits = sources.settings().tree_limits
    assert [limits.slots_at(depth) for depth in (0, 1, 9)] == [1, 20, 20]


@pytest.mark.parametrize("older", OLDER)
def test_a_variable_of_the_older_server_is_translated(sources: Sources, older: str):
    name, text, value = OLDER[older]
    sources.environment(**{older: text})
    assert getattr(sources.settings(), name) == value


@pytest.mark.parametrize("variable", known_variables())
def test_an_empty_variable_says_nothing(sources: Sources, variable: str):
    sources.environment(**{variable: ""})
    assert sources.settings() == Settings(home=sources.home)


def test_the_older_depth_counts_levels_so_one_level_is_a_root_without_children(sources: Sources):
    sources.environment(CLAUDE_MAX_RECURSION_DEPTH="1")
    assert sources.settings().max_depth == 0


@pytest.mark.parametrize("depth", ["0", "three", "-1", "1.5", "\u00b2"])
def test_an_older_depth_that_is_none_is_a_readable_error(sources: Sources, depth: str):
    sources.environment(CLAUDE_MAX_RECURSION_DEPTH=depth)
    with pytest.raises(InvalidSettingsError) as caught:
        sources.settings()
    words = str(caught.value)
    assert words.startswith("CLAUDE_MAX_RECURSION_DEPTH: it ")
    assert words.endswith("For example: CLAUDE_MAX_RECURSION_DEPTH=6")


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
def test_a_bad_value_is_an_error_that_names_its_variable_and_an_example(sources: Sources, name: str, value: str):
    sources.environment(**{variable_of(name): value})
    with pytest.raises(InvalidSettingsError) as caught:
        sources.settings()
    words = str(caught.value)
    assert words.startswith(f"{variable_of(name)}: it ")
    assert f"For example: {variable_of(name)}=" in words
    assert_in_our_words(words)


def test_slots_that_are_no_json_are_an_error_that_shows_how_to_write_them(sources: Sources):
    sources.environment(CLAUDE_JOBS_MAX_CONCURRENT='{"1": 10')
    with pytest.raises(InvalidSettingsError, match=r'not JSON.*CLAUDE_JOBS_MAX_CONCURRENT=\'\{"0": 1, "1": 10\}\''):
        sources.settings()


@pytest.mark.parametrize(
    "text",
    [
        "max_depth = 'deep'",
        "max_depth = 2.5",
        "timeout_seconds = 0",
        "timeout_seconds = inf",
        "permission_mode = 'god'",
        "allow_bypass_permissions = 'perhaps'",
        "[max_concurrent]\n0 = 'all'",
        "trusted_directories = '/x'",
        "enabled_tools = 'Task'",
        "cli = 5",
        "mcp_servers = 5",
    ],
)
def test_a_bad_value_in_the_file_is_an_error_that_names_file_key_and_an_example(sources: Sources, text: str):
    sources.file(text)
    with pytest.raises(InvalidSettingsError) as caught:
        sources.settings()
    words = str(caught.value)
    name = words.partition(", ")[2].partition(":")[0]
    assert words.startswith(f"{sources.home / 'config.toml'}, {name}: it ")
    assert_in_our_words(words)
    sources.file(words.partition("For example: ")[2])
    sources.settings()


def refusal(sources: Sources, variable: str) -> str | None:
    """Return the error about a value that a variable cannot take, or None where it takes any text."""
    for text in ("\x01", "{"):
        sources.environ = {variable: text}
        try:
            sources.settings()
        except InvalidSettingsError as error:
            return str(error)
    return None


@pytest.mark.parametrize(("variable", "name"), known_variables().items())
def test_every_example_that_an_error_gives_can_be_used(sources: Sources, variable: str, name: str):
    words = refusal(sources, variable)
    if words is None:
        assert Settings.model_fields[name].annotation in (str, str | None, Path, Path | None)
        return
    example = words.rpartition("For example: ")[2]
    assert example.startswith(f"{variable}=")
    sources.environ = {variable: example.partition("=")[2].strip("'")}
    sources.settings()


def test_two_bad_values_are_told_at_once_each_with_its_own_source(sources: Sources):
    sources.environment(CLAUDE_JOBS_MAX_JOBS="many")
    sources.file("max_children = 0\nmax_jobs = 0\n")
    with pytest.raises(InvalidSettingsError) as caught:
        sources.settings()
    sayings = sorted(str(one).partition(": it ")[0] for one in caught.value.problems)
    file = str(sources.home / "config.toml")
    assert sayings == sorted(["CLAUDE_JOBS_MAX_JOBS", f"{file}, max_children", f"{file}, max_jobs"])


def test_every_value_names_its_source(sources: Sources):
    sources.environment(CLAUDE_JOBS_MAX_DEPTH="2", CLAUDE_MAX_TOTAL_JOBS="4", CLAUDE_LOG_LEVEL="debug")
    sources.file("max_depth = 9\nlog_level = 'ERROR'\n")
    found = {name: str(source) for name, source in sources.loaded().sources.items() if str(source) != "default"}
    assert found == {
        "max_depth": "environment CLAUDE_JOBS_MAX_DEPTH",
        "max_jobs": "older variable CLAUDE_MAX_TOTAL_JOBS",
        "log_level": str(sources.home / "config.toml"),
    }
    assert sources.loaded().sources.keys() == Settings.model_fields.keys()


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_declares_for_whom_it_holds(name: str):
    assert isinstance(scope_of(name), SettingScope)


def test_the_state_directory_alone_is_a_location():
    assert names(SettingScope.LOCATION) == ("home",)


def test_a_tree_keeps_every_setting_that_belongs_to_trees(tmp_path: Path):
    assert {field.name for field in fields(TreeSettings)} == set(names(SettingScope.TREE))
    given = {"cli": "/x", "timeout_multiplier": 1.5, "pass_environment": ("A",)}
    kept = Settings(home=tmp_path, **given).for_trees
    assert {name: getattr(kept, name) for name in given} == given
    assert restored_tree_settings(json.loads(json.dumps(asdict(kept)))) == kept


def test_a_reload_changes_what_is_safe_to_change_and_nothing_else(sources: Sources):
    held = sources.settings()
    sources.file("max_depth = 9\nmax_task_chars = 7\npermission_mode = 'plan'\n[mcp_servers.gh]\ncommand = 'gh'\n")
    held.reload(sources.settings())
    assert (held.max_depth, held.permission_mode) == (5, "acceptEdits")
    assert (held.max_task_chars, list(held.mcp_servers)) == (7, ["gh"])


def test_a_trees_settings_of_another_version_are_read_as_far_as_they_are_known():
    found = restored_tree_settings({"cli": "/x", "colour": "red"})
    assert (found.cli, found.permission_mode, found.timeout_seconds) == ("/x", "acceptEdits", 1800.0)


def test_the_file_cannot_move_the_state_directory(sources: Sources):
    sources.file("home = '/elsewhere'\n")
    with pytest.raises(BadInputError, match="set CLAUDE_JOBS_HOME instead"):
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
    with pytest.raises(InvalidSettingsError, match="mcp_servers") as caught:
        sources.settings()
    assert "'ghp_secret" not in str(caught.value)


def test_a_file_that_is_a_directory_says_nothing(sources: Sources):
    (sources.home / "config.toml").mkdir()
    assert sources.settings().max_jobs == 1000


def test_settings_cannot_be_changed(sources: Sources):
    with pytest.raises(ValidationError, match="frozen"):
        sources.settings().max_depth = 9  # type: ignore[misc]  # that it cannot be assigned is what is tested


def test_a_time_out_grows_with_depth_only_by_the_older_servers_formula(sources: Sources):
    assert [timeout_at(depth, sources.settings().for_trees) for depth in (0, 3)] == [1800, 1800]
    sources.environment(CLAUDE_JOBS_TIMEOUT_MULTIPLIER="1.5")
    older = sources.settings()
    assert [timeout_at(depth, older.for_trees) for depth in (0, 1, 2, 10)] == [300, 450, 675, 1800]

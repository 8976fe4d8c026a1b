"""Which clients count as one account, and that nothing of their credentials is kept."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from jobs.claude.account import account_key
from tests.unit.claude.test_account import write


def key(home: Path, env: Mapping[str, str] | None = None) -> str:
    return account_key({"HOME": str(home), **(env or {})}, home / "managed")


def logged_in(home: Path, who: str, token: str = "t", **credentials: Any) -> None:
    write(home / ".claude.json", {"numStartups": len(token), "oauthAccount": {"accountUuid": who}})
    login = {"accessToken": token, "refreshToken": token, **credentials}
    write(home / ".claude" / ".credentials.json", {"claudeAiOauth": login})


@pytest.mark.parametrize(
    "env",
    [
        {"ANTHROPIC_API_KEY": "sk-two"},
        {"ANTHROPIC_AUTH_TOKEN": "two"},
        {"CLAUDE_CODE_OAUTH_TOKEN": "two"},
        {"CLAUDE_CODE_TOKEN": "two"},
        {"ANTHROPIC_BASE_URL": "https://gateway.example"},
        {"CLAUDE_CONFIG_DIR": "/nonexistent/other"},
        {"CLAUDE_CODE_USE_BEDROCK": "1"},
        {"CLAUDE_CODE_USE_VERTEX": "1"},
        {"CLAUDE_CODE_USE_FOUNDRY": "1"},
    ],
)
def test_another_key_endpoint_directory_or_provider_is_another_account(tmp_path: Path, env: Mapping[str, str]) -> None:
    assert key(tmp_path, {"ANTHROPIC_API_KEY": "sk-one", **env}) != key(tmp_path, {"ANTHROPIC_API_KEY": "sk-one"})


@pytest.mark.parametrize(
    ("switch", "name"),
    [
        ("BEDROCK", "AWS_PROFILE"),
        ("BEDROCK", "AWS_ACCESS_KEY_ID"),
        ("BEDROCK", "AWS_REGION"),
        ("MANTLE", "AWS_BEARER_TOKEN_BEDROCK"),
        ("VERTEX", "ANTHROPIC_VERTEX_PROJECT_ID"),
        ("VERTEX", "CLOUD_ML_REGION"),
        ("VERTEX", "GOOGLE_APPLICATION_CREDENTIALS"),
        ("FOUNDRY", "ANTHROPIC_FOUNDRY_RESOURCE"),
        ("FOUNDRY", "ANTHROPIC_FOUNDRY_API_KEY"),
        ("FOUNDRY", "AZURE_CLIENT_ID"),
    ],
)
def test_accounts_of_one_provider_are_told_apart(tmp_path: Path, switch: str, name: str) -> None:
    provider = {f"CLAUDE_CODE_USE_{switch}": "1"}
    one, other, off = (
        key(tmp_path, {**provider, name: "one"}),
        key(tmp_path, {**provider, name: "other"}),
        key(tmp_path, {name: "one"}),
    )
    assert len({one, other, off}) == 3


@pytest.mark.parametrize("name", ["PATH", "TERM", "ANTHROPIC_MODEL", "SSH_AUTH_SOCK", "AWS_PROFILE", "LANG"])
def test_what_pays_for_nothing_makes_no_other_account(tmp_path: Path, name: str) -> None:
    logged_in(tmp_path, "one")
    assert key(tmp_path, {name: "a"}) == key(tmp_path, {name: "b"}) == key(tmp_path)


def test_a_login_is_the_same_account_while_its_tokens_are_renewed(tmp_path: Path) -> None:
    logged_in(tmp_path, "one", "first")
    before = key(tmp_path)
    logged_in(tmp_path, "one", "renewed")
    assert key(tmp_path) == before
    logged_in(tmp_path, "two", "renewed")
    assert key(tmp_path) != before


@pytest.mark.parametrize("cut", [0, 30])
def test_a_login_is_the_same_account_while_its_files_are_being_written(tmp_path: Path, cut: int) -> None:
    logged_in(tmp_path, "me", subscriptionType="max")
    before = key(tmp_path)
    files = (tmp_path / ".claude.json", tmp_path / ".claude" / ".credentials.json")
    for file in files:
        file.write_text(file.read_text()[:cut])
    assert [key(tmp_path), key(tmp_path)] == [before] * 2
    for file in files:
        file.unlink()
    assert key(tmp_path) != before


def test_another_plan_of_the_same_person_is_another_account(tmp_path: Path) -> None:
    logged_in(tmp_path, "one", subscriptionType="pro")
    before = key(tmp_path)
    logged_in(tmp_path, "one", subscriptionType="max")
    assert key(tmp_path) != before


def test_a_login_that_does_not_say_whose_it_is_counts_by_its_token(tmp_path: Path) -> None:
    write(tmp_path / ".claude" / ".credentials.json", {"claudeAiOauth": {"accessToken": "one"}})
    before = key(tmp_path)
    write(tmp_path / ".claude" / ".credentials.json", {"claudeAiOauth": {"accessToken": "two"}})
    assert key(tmp_path) != before


def test_a_login_says_nothing_where_a_key_is_in_force(tmp_path: Path) -> None:
    env = {"ANTHROPIC_API_KEY": "sk-one"}
    before = key(tmp_path, env)
    logged_in(tmp_path, "one")
    assert key(tmp_path, env) == before


def test_settings_bring_keys_and_helpers(tmp_path: Path) -> None:
    found = {key(tmp_path)}
    write(tmp_path / ".claude" / "settings.json", {"apiKeyHelper": "/bin/key"})
    found.add(key(tmp_path))
    write(tmp_path / ".claude" / "settings.json", {"env": {"ANTHROPIC_API_KEY": "sk-one"}})
    found.add(key(tmp_path))
    write(tmp_path / "managed" / "managed-settings.json", {"env": {"ANTHROPIC_API_KEY": "sk-two"}})
    found.add(key(tmp_path))
    assert len(found) == 4


def test_two_names_of_one_directory_are_one_account(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    named = [key(tmp_path, {"CLAUDE_CONFIG_DIR": str(tmp_path / name)}) for name in ("real", "link")]
    assert named[0] == named[1]


@pytest.mark.parametrize(
    "text", ["", "[1]", "{", '{"oauthAccount": 7, "claudeAiOauth": [], "primaryApiKey": {}}', "\0"]
)
def test_files_of_any_shape_are_read(tmp_path: Path, text: str) -> None:
    for name in (".claude.json", ".claude/settings.json", ".claude/.credentials.json"):
        write(tmp_path / name, text)
    assert re.fullmatch(r"[0-9a-f]{16}", key(tmp_path))


def test_half_a_character_in_a_variable_is_no_error(tmp_path: Path) -> None:
    write(tmp_path / ".claude" / "settings.json", json.dumps({"env": {"ANTHROPIC_API_KEY": "\ud800"}}))
    assert key(tmp_path, {"ANTHROPIC_AUTH_TOKEN": "\udcff"})

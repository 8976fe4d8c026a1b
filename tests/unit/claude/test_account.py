"""Which signs of an account are seen, and that nothing secret is among them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from jobs.claude.account import accounts_of


def seen(home: Path, env: Mapping[str, str] | None = None) -> list[str]:
    return [str(account) for account in accounts_of({"HOME": str(home), **(env or {})}, home / "managed")]


def write(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def test_where_there_is_nothing_none_is_seen(tmp_path: Path) -> None:
    assert seen(tmp_path) == []


@pytest.mark.parametrize(
    "name", ["ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN", "CLAUDE_CODE_TOKEN"]
)
def test_a_key_is_named_and_not_shown(tmp_path: Path, name: str) -> None:
    assert seen(tmp_path, {name: "sekret"}) == [name]


def test_settings_bring_a_helper_and_variables(tmp_path: Path) -> None:
    user = write(
        tmp_path / ".claude" / "settings.json", {"apiKeyHelper": "/bin/key", "env": {"ANTHROPIC_API_KEY": "sekret"}}
    )
    assert seen(tmp_path) == [f"ANTHROPIC_API_KEY in {user}", f"apiKeyHelper in {user}"]


def test_managed_settings_count_also_those_in_pieces(tmp_path: Path) -> None:
    piece = write(
        tmp_path / "managed" / "managed-settings.d" / "10-bedrock.json", {"env": {"CLAUDE_CODE_USE_BEDROCK": 1}}
    )
    assert seen(tmp_path, {"AWS_PROFILE": "work"}) == [f"Amazon Bedrock in {piece} with AWS_PROFILE"]
    whole = write(tmp_path / "managed" / "managed-settings.json", {"apiKeyHelper": "/bin/key"})
    assert f"apiKeyHelper in {whole}" in seen(tmp_path)


def test_a_configuration_directory_of_its_own_counts(tmp_path: Path) -> None:
    write(tmp_path / ".claude" / "settings.json", {"apiKeyHelper": "/bin/key"})
    assert seen(tmp_path, {"CLAUDE_CONFIG_DIR": str(tmp_path / "other")}) == []


@pytest.mark.parametrize(("value", "on"), [("1", True), ("true", True), ("yes", True), ("0", False), ("false", False)])
def test_a_provider_is_switched_on_as_claude_reads_it(tmp_path: Path, value: str, on: bool) -> None:
    assert bool(seen(tmp_path, {"CLAUDE_CODE_USE_VERTEX": value})) is on


def test_a_provider_without_credentials_is_said_to_have_none(tmp_path: Path) -> None:
    switched = {"CLAUDE_CODE_USE_VERTEX": "1"}
    assert seen(tmp_path, switched) == ["Google Vertex AI, but no credentials for it were seen"]
    assert seen(tmp_path, {**switched, "CLAUDE_CODE_SKIP_VERTEX_AUTH": "1"}) == [
        "Google Vertex AI with CLAUDE_CODE_SKIP_VERTEX_AUTH"
    ]
    write(tmp_path / ".config/gcloud/application_default_credentials.json", {})
    assert seen(tmp_path, switched) == ["Google Vertex AI with ~/.config/gcloud/application_default_credentials.json"]


def test_a_login_counts_only_with_a_token_in_it(tmp_path: Path) -> None:
    login = tmp_path / ".claude" / ".credentials.json"
    write(login, {"claudeAiOauth": {}})
    assert seen(tmp_path) == []
    write(login, {"claudeAiOauth": {"accessToken": "sekret"}})
    assert seen(tmp_path) == [f"a login of Claude Code in {login}"]
    state = write(tmp_path / ".claude.json", {"primaryApiKey": "sekret"})
    assert seen(tmp_path)[1:] == [f"a key of Claude Code's login in {state}"]


@pytest.mark.parametrize("text", ["", "no json", "[]", '{"env": []}', "\\ud800", "[" * 100_000])
def test_a_settings_file_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    write(tmp_path / ".claude" / "settings.json", text)
    assert seen(tmp_path) == []

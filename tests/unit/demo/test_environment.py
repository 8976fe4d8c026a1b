"""The environment of the real `claude` in the demo and in tests."""

from pathlib import Path

import pytest

from server.demo.environment import isolated_environment


def test_nothing_of_this_process_reaches_the_environment(monkeypatch: pytest.MonkeyPatch):
    for name in ("ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_API_KEY", "CLAUDE_CONFIG_DIR", "HTTPS_PROXY", "HOME", "PATH"):
        monkeypatch.setenv(name, "inherited")
    environment = isolated_environment(Path("/empty"), "http://127.0.0.1:1", path="/bin")
    assert "inherited" not in environment.values()
    assert (environment["HOME"], environment["PATH"]) == ("/empty", "/bin")
    assert environment["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:1"
    assert environment["ANTHROPIC_API_KEY"] == "sk-fake-not-real"


def test_everything_that_would_leave_the_machine_is_off():
    environment = isolated_environment(Path("/empty"), "http://127.0.0.1:1", path="/bin")
    switches = {name for name in environment if "DISABLE" in name}
    assert switches == {
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC",
        "DISABLE_AUTOUPDATER",
        "DISABLE_ERROR_REPORTING",
        "DISABLE_TELEMETRY",
    }
    assert {environment[name] for name in switches} == {"1"}

"""Which variables a client hands to its jobs, and how it reads its own umask."""

import os
from pathlib import Path

import pytest

from jobs.claude.account import PROVIDERS, Provider
from server.client.client_env import client_environment, named_in, own_umask

ALLOWED = """
PATH HOME USER LOGNAME SHELL LANG LC_ALL LANGUAGE TERM COLORTERM TZ TMPDIR XDG_CONFIG_HOME SSL_CERT_FILE SSL_CERT_DIR
NODE_EXTRA_CA_CERTS HTTP_PROXY HTTPS_PROXY NO_PROXY ALL_PROXY http_proxy https_proxy no_proxy all_proxy
ANTHROPIC_API_KEY ANTHROPIC_BASE_URL CLAUDE_CONFIG_DIR CLAUDE_CODE_OAUTH_TOKEN CLAUDE_CODE_TOKEN
CLAUDE_CODE_USE_BEDROCK CLAUDE_CODE_USE_VERTEX CLAUDE_CODE_USE_FOUNDRY CLAUDE_CODE_SKIP_BEDROCK_AUTH
CLAUDE_CODE_SKIP_VERTEX_AUTH AWS_PROFILE AWS_SECRET_ACCESS_KEY GOOGLE_APPLICATION_CREDENTIALS CLOUD_ML_REGION
VERTEX_REGION_CLAUDE DISABLE_AUTOUPDATER DISABLE_TELEMETRY DISABLE_ERROR_REPORTING
CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC GIT_AUTHOR_NAME GIT_COMMITTER_EMAIL SSH_AUTH_SOCK VIRTUAL_ENV
REQUESTS_CA_BUNDLE CURL_CA_BUNDLE JAVA_HOME GOPATH CARGO_HOME RUSTUP_HOME NVM_DIR PYENV_ROOT CONDA_PREFIX PYTHONPATH
npm_config_registry NPM_CONFIG_CACHE ANDROID_HOME DOTNET_ROOT DOCKER_HOST DOCKER_CONFIG DOCKER_CONTEXT KUBECONFIG
GIT_SSH_COMMAND DISPLAY AZURE_CLIENT_ID AZURE_CLIENT_SECRET CLOUDSDK_CONFIG GOOGLE_CLOUD_PROJECT IS_SANDBOX TRACEPARENT
TRACESTATE CLAUDE_CODE_TMPDIR CLAUDE_CODE_CLIENT_CERT CLAUDE_CODE_CLIENT_KEY CLAUDE_CODE_CLIENT_KEY_PASSPHRASE
CLAUDE_CODE_MAX_OUTPUT_TOKENS CLAUDE_CODE_MAX_RETRIES CLAUDE_CODE_SUBAGENT_MODEL CLAUDE_CODE_EFFORT_LEVEL
CLAUDE_CODE_SESSIONEND_HOOKS_TIMEOUT_MS CLAUDE_CODE_OAUTH_REFRESH_TOKEN CLAUDE_CODE_PLUGIN_SEED_DIR API_TIMEOUT_MS
BASH_DEFAULT_TIMEOUT_MS MAX_THINKING_TOKENS MAX_MCP_OUTPUT_TOKENS ENABLE_TOOL_SEARCH DISABLE_PROMPT_CACHING_OPUS
"""

KEPT_OUT = """
CLAUDECODE CLAUDE_CODE_ENTRYPOINT CLAUDE_CODE_SESSION_ID CLAUDE_JOBS_TOKEN CLAUDE_JOBS_JOB CLAUDE_JOBS_HOME
CLAUDE_CODE_SSE_PORT CLAUDE_CODE_MESSAGING_TOKEN CLAUDE_CODE_RESUME_INTERRUPTED_TURN CLAUDE_CODE_SDK_HAS_OAUTH_REFRESH
CLAUDE_CODE_OAUTH_TOKEN_FILE_DESCRIPTOR CLAUDE_CODE_EVEN_MORE_DANGEROUSLY_SKIP_PERMISSIONS CLAUDE_CODE_TASK_LIST_ID
CLAUDE_CODE_SKIP_PROMPT_HISTORY CLAUDE_CODE_SAFE_MODE CLAUDE_PROJECT_DIR CLAUDE_PID AI_AGENT MCP_TOOL_TIMEOUT
OTEL_EXPORTER_OTLP_HEADERS CLAUDE_CODE_ENABLE_TELEMETRY CLAUDE_CODE_OTEL_FLUSH_TIMEOUT_MS MCP_CLIENT_SECRET
npm_config__authToken npm_config_//registry.example/:_authToken NPM_CONFIG__AUTH CARGO_REGISTRY_TOKEN UV_PUBLISH_TOKEN
UV_INDEX_INTERNAL_PASSWORD POETRY_HTTP_BASIC_X_USERNAME DOCKER_AUTH_CONFIG HOMEBREW_GITHUB_API_TOKEN
ANDROID_KEYSTORE_PASSWORD MAVEN_GPG_PASSPHRASE GIT_ASKPASS GIT_CONFIG_VALUE_0 SSH_ASKPASS GIT_EDITOR
CLAUDE_CODE_SKIP_ CLAUDE_CODE_SKIP_BEDROCK GITHUB_TOKEN GH_TOKEN OPENAI_API_KEY DATABASE_URL NPM_TOKEN LD_PRELOAD
NODE_OPTIONS GIT_DIR PATHX path SSH_AGENT_PID
"""


@pytest.mark.parametrize("name", ALLOWED.split())
def test_a_name_that_a_job_needs_goes_along(name: str):
    assert client_environment({name: "v"}) == {name: "v"}


@pytest.mark.parametrize("name", KEPT_OUT.split())
def test_a_name_that_no_job_needs_stays_behind(name: str):
    assert client_environment({name: "v"}) == {}


@pytest.mark.parametrize("provider", PROVIDERS, ids=lambda provider: provider.switch)
def test_what_turns_a_provider_on_and_brings_its_credentials_goes_along(provider: Provider):
    switches = (f"CLAUDE_CODE_USE_{provider.switch}", f"CLAUDE_CODE_SKIP_{provider.switch}_AUTH")
    given = dict.fromkeys((*switches, *provider.variables), "v")

    assert client_environment(given) == given


def test_what_the_setting_names_goes_along_too():
    given = dict.fromkeys(("GH_TOKEN", "GH_TOKEN_2", "OTEL_A", "OTEL_", "XOTEL_A"), "v")

    assert client_environment(given, ("GH_TOKEN", "OTEL_*")).keys() == {"GH_TOKEN", "OTEL_A", "OTEL_"}


@pytest.mark.parametrize(
    ("variable", "file", "named"),
    [
        (None, None, ()),
        (None, 'cli = "/bin/claude"', ()),
        (None, 'pass_environment = ["A", "B_*"]', ("A", "B_*")),
        ('["C"]', 'pass_environment = ["A"]', ("C",)),
        ("", 'pass_environment = ["A"]', ("A",)),
        ("[]", 'pass_environment = ["A"]', ()),
        # The engine says what is wrong with these.
        ("C", 'pass_environment = ["A"]', ()),
        ("{}", None, ()),
        ("\udcff", None, ()),
        (None, "pass_environment = [", ()),
        (None, "pass_environment = 'A'", ()),
        (None, 'pass_environment = ["A", 1]', ("A",)),
    ],
)
def test_the_setting_is_read_as_the_engine_reads_it(
    tmp_path: Path, variable: str | None, file: str | None, named: tuple[str, ...]
):
    if file is not None:
        (tmp_path / "config.toml").write_text(file)

    environ = {} if variable is None else {"CLAUDE_JOBS_PASS_ENVIRONMENT": variable}

    assert named_in(environ, str(tmp_path)) == named


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002, 0])
def test_the_own_umask_is_read_and_stays(mask: int):
    os.umask(mask)

    assert own_umask() == mask
    assert os.umask(mask) == mask

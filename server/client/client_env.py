"""What a client's jobs inherit from its process: variables of its environment, and its umask.

A name that is not known here is left out, unless the setting `pass_environment` names it. Names of Claude Code's own
variables are those of its documentation, "Environment variables", and of its binary (2.1.332). Standard library only,
and of that as little as can be: the pump imports this module.
"""

from __future__ import annotations

import os

from server.client.light_json import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_SETTING = "pass_environment"

_PERSON = """
    PATH HOME USER LOGNAME SHELL LANG LANGUAGE TZ TMPDIR TMP TEMP TERM COLORTERM NO_COLOR FORCE_COLOR CI EMAIL
    DISPLAY WAYLAND_DISPLAY XAUTHORITY DBUS_SESSION_BUS_ADDRESS EDITOR VISUAL PAGER BROWSER SSH_AUTH_SOCK GNUPGHOME
    TRACEPARENT TRACESTATE IS_SANDBOX
"""
_TRUST = """
    SSL_CERT_FILE SSL_CERT_DIR NODE_EXTRA_CA_CERTS NODE_USE_SYSTEM_CA NODE_USE_ENV_PROXY NODE_TLS_REJECT_UNAUTHORIZED
    REQUESTS_CA_BUNDLE CURL_CA_BUNDLE DENO_CERT
"""
_PROXIES = "HTTP_PROXY HTTPS_PROXY NO_PROXY ALL_PROXY"
_TOOLS = """
    JAVA_HOME JDK_HOME JAVA_OPTS JAVA_TOOL_OPTIONS M2_HOME KOTLIN_HOME SCALA_HOME SBT_OPTS
    GOPATH GOROOT GOBIN GOCACHE GOMODCACHE GOPROXY GOPRIVATE GONOPROXY GONOSUMDB GOSUMDB GOFLAGS GOTOOLCHAIN GOOS GOARCH
    RUSTFLAGS RUST_BACKTRACE RUST_LOG NODE_ENV NODE_PATH BUN_INSTALL PNPM_HOME VIRTUAL_ENV PYTHONPATH
    BUNDLE_PATH BUNDLE_GEMFILE RUBYLIB RUBYOPT PERL5LIB COMPOSER_HOME FLUTTER_ROOT FLUTTER_HOME
    CC CXX LD AR CFLAGS CXXFLAGS CPPFLAGS LDFLAGS MAKEFLAGS CPATH LIBRARY_PATH LD_LIBRARY_PATH CMAKE_PREFIX_PATH
    CUDA_HOME CUDA_PATH CUDA_VISIBLE_DEVICES
    KUBECONFIG KUBE_CONFIG_PATH CONTAINER_HOST CONTAINER_CONNECTION CONTAINERD_ADDRESS MINIKUBE_HOME
    GIT_SSH GIT_SSH_COMMAND GIT_SSH_VARIANT GIT_PROXY_COMMAND GIT_CONFIG_GLOBAL GIT_CONFIG_SYSTEM GIT_CONFIG_NOSYSTEM
    GIT_LFS_SKIP_SMUDGE GIT_TERMINAL_PROMPT GIT_CEILING_DIRECTORIES
"""
# CLAUDE_CODE_TOKEN is the older server's name for the OAuth token.
_ACCOUNT = """
    CLAUDE_CONFIG_DIR CLAUDE_SECURESTORAGE_CONFIG_DIR CLAUDE_CODE_OAUTH_TOKEN CLAUDE_CODE_TOKEN
    CLAUDE_CODE_OAUTH_REFRESH_TOKEN CLAUDE_CODE_OAUTH_SCOPES CLAUDE_CODE_OAUTH_CLIENT_ID
    CLAUDE_CODE_API_KEY_HELPER_TTL_MS CLAUDE_CODE_CERT_STORE CLAUDE_CODE_CLIENT_CERT CLAUDE_CODE_CLIENT_KEY
    CLAUDE_CODE_CLIENT_KEY_PASSPHRASE CLAUDE_CODE_PROVIDER_MANAGED_BY_HOST CLAUDE_CODE_CUSTOM_OAUTH_URL
    CLAUDE_CODE_SKIP_AWS_CRED_CACHE CLAUDE_CODE_AWS_CHAIN_RESOLVE_TIMEOUT_MS CLOUD_ML_REGION GCLOUD_PROJECT
    IDENTITY_ENDPOINT IDENTITY_HEADER MSI_ENDPOINT MSI_SECRET
"""
# Without MCP_TOOL_TIMEOUT: a parent's waits for its children would fail at it. Without what turns MCP servers or
# transcripts off: a job needs both.
_CLAUDE = """
    CLAUDE_CODE_ADDITIONAL_DIRECTORIES_CLAUDE_MD CLAUDE_CODE_ALWAYS_ENABLE_EFFORT CLAUDE_CODE_ATTRIBUTION_HEADER
    CLAUDE_CODE_AUTO_COMPACT_WINDOW CLAUDE_CODE_BUBBLEWRAP CLAUDE_CODE_EFFORT_LEVEL CLAUDE_CODE_EXIT_AFTER_STOP_DELAY
    CLAUDE_CODE_EXTRA_BODY CLAUDE_CODE_EXTRA_METADATA CLAUDE_CODE_MCP_ALLOWLIST_ENV
    CLAUDE_CODE_NONSTREAMING_TIMEOUT_RETRIES CLAUDE_CODE_PERFORCE_MODE CLAUDE_CODE_PRINT_BG_WAIT_CEILING_MS
    CLAUDE_CODE_PROCESS_WRAPPER CLAUDE_CODE_PROMPT_CACHE_TTL CLAUDE_CODE_PROPAGATE_TRACEPARENT CLAUDE_CODE_SCRIPT_CAPS
    CLAUDE_CODE_SESSIONEND_HOOKS_TIMEOUT_MS CLAUDE_CODE_SHELL CLAUDE_CODE_SHELL_PREFIX CLAUDE_CODE_SIMPLE_SYSTEM_PROMPT
    CLAUDE_CODE_SKIP_FAST_MODE_NETWORK_ERRORS CLAUDE_CODE_SKIP_FAST_MODE_ORG_CHECK CLAUDE_CODE_STOP_HOOK_BLOCK_CAP
    CLAUDE_CODE_SUBPROCESS_ENV_SCRUB CLAUDE_CODE_TMPDIR CLAUDE_CODE_TOOL_MEMORY_LIMIT
    CLAUDE_ASYNC_AGENT_STALL_TIMEOUT_MS CLAUDE_AUTOCOMPACT_PCT_OVERRIDE CLAUDE_BASH_MAINTAIN_PROJECT_WORKING_DIR
    CLAUDE_STREAM_FIRST_BYTE_TIMEOUT_MS CLAUDE_STREAM_IDLE_TIMEOUT_MS CLAUDE_BYTE_STREAM_IDLE_TIMEOUT_MS
    API_FORCE_IDLE_TIMEOUT API_TIMEOUT_MS BASH_DEFAULT_TIMEOUT_MS BASH_MAX_OUTPUT_LENGTH BASH_MAX_TIMEOUT_MS
    DO_NOT_TRACK ENABLE_CLAUDEAI_MCP_SERVERS ENABLE_TOOL_SEARCH FALLBACK_FOR_ALL_PRIMARY_MODELS
    FORCE_AUTOUPDATE_PLUGINS FORCE_PROMPT_CACHING_5M MAX_MCP_OUTPUT_TOKENS MAX_STRUCTURED_OUTPUT_RETRIES
    MAX_THINKING_TOKENS MCP_CONNECTION_NONBLOCKING MCP_CONNECT_TIMEOUT_MS MCP_REMOTE_SERVER_CONNECTION_BATCH_SIZE
    MCP_SERVER_CONNECTION_BATCH_SIZE MCP_TIMEOUT SLASH_COMMAND_TOOL_CHAR_BUDGET TASK_MAX_OUTPUT_LENGTH
    USE_BUILTIN_RIPGREP
"""
_NAMES = frozenset(f"{_PERSON} {_TRUST} {_PROXIES} {_PROXIES.lower()} {_TOOLS} {_ACCOUNT} {_CLAUDE}".split())

_FAMILIES = (
    *("LC_", "XDG_", "WSL", "GIT_AUTHOR_", "GIT_COMMITTER_", "GIT_SSL_"),
    *("ANTHROPIC_", "AWS_", "AZURE_", "CLOUDSDK_", "GOOGLE_", "VERTEX_", "CLAUDE_CODE_USE_"),
    *("CLAUDE_CODE_DISABLE_", "CLAUDE_CODE_ENABLE_", "CLAUDE_CODE_MAX_", "CLAUDE_CODE_FILE_READ_", "CLAUDE_CODE_GLOB_"),
    *("CLAUDE_CODE_DEBUG_", "CLAUDE_CODE_OVERLOADED_RETRY_", "CLAUDE_CODE_PLUGIN_", "CLAUDE_CODE_PROXY_"),
    *("CLAUDE_CODE_RETRY_WATCHDOG", "CLAUDE_CODE_SUBAGENT_", "CLAUDE_CODE_SYNC_", "CLAUDE_CODE_WEBFETCH_"),
    *("CLAUDE_ENABLE_", "DISABLE_", "ENABLE_PROMPT_CACHING_"),
)
"""Prefixes of names that are passed on as `_NAMES` are."""

_TELEMETRY = frozenset(("CLAUDE_CODE_ENABLE_TELEMETRY", "CLAUDE_CODE_ENABLE_FEEDBACK_SURVEY_FOR_OTEL"))
"""Exceptions from the families above: the address that they report to is not passed on, so neither are they."""

_TOOL_FAMILIES = (
    *("ANDROID_", "ASDF_", "CARGO_", "CGO_", "COMPOSE_", "CONDA_", "COREPACK_", "DENO_", "DOCKER_", "DOTNET_", "FNM_"),
    *("BUILDKIT_", "BUILDX_", "GEM_", "GRADLE_", "HELM_", "HOMEBREW_", "MAMBA_", "MAVEN_", "MISE_", "NIX_", "NUGET_"),
    *("NPM_CONFIG_", "npm_config_", "NVM_", "PIP_", "PIPX_", "PKG_CONFIG_", "POETRY_", "PYENV_", "RBENV_", "RUSTUP_"),
    *("SDKMAN_", "UV_", "VOLTA_", "YARN_"),
)
_CREDENTIALS = ("TOKEN", "SECRET", "PASS", "AUTH", "CREDENTIAL", "BASIC", "_KEY", "_OTP")
"""A toolchain's variable whose name holds one of these is a credential, to publish with or to log in with."""


def client_environment(environ: Mapping[str, str], named: Sequence[str] = ()) -> dict[str, str]:
    """Return the part of a client's environment in which its jobs run.

    Args:
        environ: The whole environment.
        named: What else is passed on, as `named_in` returns it.
    """
    return {name: value for name, value in environ.items() if is_passed_on(name, named)}


def is_passed_on(name: str, named: Sequence[str] = ()) -> bool:
    """Tell whether jobs get a variable by this name; arguments as for `client_environment`."""
    return _by_default(name) or any(_fits(name, one) for one in named)


def named_in(environ: Mapping[str, str], home: str) -> tuple[str, ...]:
    """Return what the setting `pass_environment` names: names, or prefixes of names followed by an asterisk.

    A value that cannot be used names nothing, and the engine says what is wrong with it. What belongs to the client's
    own session may be named here, and the engine leaves it out.

    Args:
        environ: The client's environment; its variable overrides the file.
        home: The state directory.
    """
    text = environ.get(f"CLAUDE_JOBS_{_SETTING.upper()}")
    try:
        given = loads(text.encode()) if text else _in_file(f"{home}/config.toml")
    except (OSError, ValueError, RecursionError):
        return ()
    return tuple(one for one in given if isinstance(one, str)) if isinstance(given, list) else ()


def own_umask() -> int:
    """Return this process's mask of the modes of new files."""
    try:
        with open("/proc/self/status", "rb") as file:
            return next(int(line.split()[1], 8) for line in file if line.startswith(b"Umask:"))
    except (OSError, StopIteration):
        # Only by setting it can it be read elsewhere. For a moment other threads make files for this user alone.
        mask = os.umask(0o077)
        os.umask(mask)
        return mask


def _by_default(name: str) -> bool:
    if name.startswith(_TOOL_FAMILIES):
        return not any(word in name.upper() for word in _CREDENTIALS)
    # CLAUDE_CODE_SKIP_<PROVIDER>_AUTH is the one family with a variable middle.
    skips_auth = name.startswith("CLAUDE_CODE_SKIP_") and name.endswith("_AUTH")
    return (name in _NAMES or name.startswith(_FAMILIES) or skips_auth) and name not in _TELEMETRY


def _fits(name: str, pattern: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def _in_file(path: str) -> object:
    with open(path, "rb") as file:
        text = file.read()
    if _SETTING.encode() not in text:
        return []
    # Imported here: it takes as long as the rest of a start, and few files name the setting.
    import tomllib

    return tomllib.loads(text.decode()).get(_SETTING)

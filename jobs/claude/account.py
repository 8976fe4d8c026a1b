"""Account or provider that the `claude` of an environment uses, and the key that identifies it."""

import hashlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from jobs.claude.json_files import derived
from jobs.util.json_values import mapping, text

MANAGED_SETTINGS: Final = Path(
    "/Library/Application Support/ClaudeCode" if sys.platform == "darwin" else "/etc/claude-code"
)
"""Directory of the settings that an administrator gives to all users (documentation of Claude Code, "Settings")."""

_TRUE = frozenset({"1", "true", "yes", "on"})
"""Values that switch a provider on; "0" and "false" do not (measured on 2.1.332)."""

_KEYS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN", "CLAUDE_CODE_TOKEN")


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """A provider of the model besides Anthropic's own API.

    Args:
        name: Its name.
        switch: The variable that turns it on, without `CLAUDE_CODE_USE_`; `CLAUDE_CODE_SKIP_` and this and `_AUTH` says
            that a gateway adds the credentials.
        variables: Each of them brings credentials.
        files: Files that hold credentials, below the home directory.
        helpers: Keys of settings.json that fetch credentials.
    """

    name: str
    switch: str
    variables: Sequence[str]
    files: Sequence[str]
    helpers: Sequence[str] = ()


_AWS: Mapping[str, Any] = {
    "variables": (
        "AWS_ACCESS_KEY_ID",
        "AWS_PROFILE",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_SHARED_CREDENTIALS_FILE",
    ),
    "files": (".aws/credentials", ".aws/config"),
    "helpers": ("awsAuthRefresh", "awsCredentialExport"),
}
_GOOGLE: Mapping[str, Any] = {
    "variables": ("GOOGLE_APPLICATION_CREDENTIALS",),
    "files": (".config/gcloud/application_default_credentials.json",),
    "helpers": ("gcpAuthRefresh",),
}

PROVIDERS: Final = (
    Provider(
        name="Amazon Bedrock",
        switch="BEDROCK",
        **{**_AWS, "variables": ("AWS_BEARER_TOKEN_BEDROCK", *_AWS["variables"])},
    ),
    Provider(name="Google Vertex AI", switch="VERTEX", **_GOOGLE),
    Provider(
        name="Microsoft Foundry",
        switch="FOUNDRY",
        variables=("ANTHROPIC_FOUNDRY_API_KEY", "ANTHROPIC_FOUNDRY_AUTH_TOKEN"),
        files=(".azure/azureProfile.json",),
    ),
    Provider(
        name="Amazon Bedrock (Mantle)",
        switch="MANTLE",
        **{**_AWS, "variables": ("AWS_BEARER_TOKEN_BEDROCK", *_AWS["variables"])},
    ),
    Provider(name="Claude on AWS", switch="ANTHROPIC_AWS", **_AWS),
    Provider(name="Claude on Google Cloud", switch="ANTHROPIC_GOOGLE_CLOUD", **_GOOGLE),
)
"""Each switch was tried with `claude auth status` (2.1.332), which then names the provider."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """An account, and where it was seen; it names variables and files, never their contents.

    Args:
        name: What pays, and where that was seen.
        credentials: Whether credentials were seen too. A cloud machine's own role shows nowhere, so they may exist all
            the same.
    """

    name: str
    credentials: bool = True

    def __str__(self) -> str:
        """Return the name, and whether credentials are missing."""
        return self.name if self.credentials else f"{self.name}, but no credentials for it were seen"


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectiveClaudeEnv:
    """Settings and variables in force for a `claude`: its environment merged with its settings files.

    Args:
        settings: The contents of each settings file, by its path.
        variables: The environment, with the variables of the settings in place of its own.
        where: By variable, " in FILE" where a settings file brings it, else an empty text.
    """

    settings: Mapping[str, Mapping[str, Any]]
    variables: Mapping[str, str]
    where: Mapping[str, str]

    def uses(self, provider: Provider) -> bool:
        """Tell whether a provider is switched on."""
        return self.variables.get(f"CLAUDE_CODE_USE_{provider.switch}", "").lower() in _TRUE


def accounts_of(env: Mapping[str, str], managed: Path = MANAGED_SETTINGS) -> list[Account]:
    """Return every sign of an account that a `claude` in this environment finds; the first one counts. Reads files.

    Not seen are the macOS keychain, a cloud machine's role, and what a project's own settings bring.

    Args:
        env: The environment that `claude` gets.
        managed: Directory of the managed settings.
    """
    home = _home(env)
    effective = effective_claude_env(env, managed)
    found = [_provider(one, effective, home) for one in PROVIDERS if effective.uses(one)]
    found += [Account(name=f"{name}{effective.where[name]}") for name in _KEYS if effective.variables.get(name)]
    if effective.variables.get("ANTHROPIC_FEDERATION_RULE_ID"):
        found.append(Account(name="workload identity (ANTHROPIC_FEDERATION_RULE_ID)"))
    found += [
        Account(name=f"apiKeyHelper in {path}")
        for path, values in effective.settings.items()
        if values.get("apiKeyHelper")
    ]
    return found + _logins(env)


def effective_claude_env(env: Mapping[str, str], managed: Path = MANAGED_SETTINGS) -> EffectiveClaudeEnv:
    """Return the settings and variables that count for a `claude` in this environment. Reads files.

    Args:
        env: The environment that `claude` gets.
        managed: Directory of the managed settings.
    """
    more = sorted((managed / "managed-settings.d").glob("*.json"))
    files = (config_directory(env) / "settings.json", managed / "managed-settings.json", *more)
    settings = {str(path): derived(path, dict) for path in files}
    # The settings' variables replace those of the process.
    where = dict.fromkeys(env, "")
    merged = dict(env)
    for path, values in settings.items():
        given = values.get("env")
        for name, value in (given if isinstance(given, dict) else {}).items():
            merged[name], where[name] = str(value), f" in {path}"
    return EffectiveClaudeEnv(settings=settings, variables=merged, where=where)


def config_directory(env: Mapping[str, str]) -> Path:
    """Return where a `claude` in this environment keeps its configuration."""
    return Path(env.get("CLAUDE_CONFIG_DIR") or _home(env) / ".claude")


def state_file(env: Mapping[str, str]) -> Path:
    """Return the file in which a `claude` in this environment notes its login, among much else."""
    return (Path(env["CLAUDE_CONFIG_DIR"]) if env.get("CLAUDE_CONFIG_DIR") else _home(env)) / ".claude.json"


def credentials_file(env: Mapping[str, str]) -> Path:
    """Return the file with the tokens of that login, where no keychain holds them."""
    return config_directory(env) / ".credentials.json"


def _home(env: Mapping[str, str]) -> Path:
    return Path(env.get("HOME") or "/nonexistent")


def _provider(provider: Provider, effective: EffectiveClaudeEnv, home: Path) -> Account:
    env, settings = effective.variables, effective.settings
    seen = (
        *(name for name in (*provider.variables, f"CLAUDE_CODE_SKIP_{provider.switch}_AUTH") if env.get(name)),
        *(key for key in provider.helpers if any(values.get(key) for values in settings.values())),
        *(f"~/{file}" for file in provider.files if (home / file).is_file()),
    )
    name = f"{provider.name}{effective.where[f'CLAUDE_CODE_USE_{provider.switch}']}"
    return Account(name=f"{name} with {seen[0]}") if seen else Account(name=name, credentials=False)


def _logins(env: Mapping[str, str]) -> list[Account]:
    found: list[Account] = []
    login = derived(credentials_file(env), dict).get("claudeAiOauth")
    if isinstance(login, dict) and login.get("accessToken"):
        found.append(Account(name=f"a login of Claude Code in {credentials_file(env)}"))
    state = state_file(env)
    if derived(state, _has_key):
        found.append(Account(name=f"a key of Claude Code's login in {state}"))
    return found


def _has_key(state: Mapping[str, Any]) -> bool:
    return bool(state.get("primaryApiKey"))


_CREDENTIALS: Final = (
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "CLAUDE_CODE_OAUTH_TOKEN",
    "CLAUDE_CODE_TOKEN",
    "ANTHROPIC_FEDERATION_RULE_ID",
    "ANTHROPIC_SERVICE_ACCOUNT_ID",
    "ANTHROPIC_PROFILE",
)
_ENDPOINT: Final = (
    "ANTHROPIC_BASE_URL",
    "ANTHROPIC_CUSTOM_HEADERS",
    "ANTHROPIC_UNIX_SOCKET",
    "ANTHROPIC_ORGANIZATION_ID",
    "ANTHROPIC_WORKSPACE_ID",
)
_AWS_NAMES: Final = ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ROLE_ARN", "AWS_CONFIG_FILE")
_GOOGLE_NAMES: Final = ("CLOUD_ML_REGION", "CLOUDSDK_CONFIG", "GOOGLE_CLOUD_PROJECT")
_OF_PROVIDERS: Final[Mapping[str, tuple[str, ...]]] = {
    "BEDROCK": (*_AWS_NAMES, "ANTHROPIC_BEDROCK_BASE_URL"),
    "MANTLE": (*_AWS_NAMES, "ANTHROPIC_BEDROCK_MANTLE_BASE_URL"),
    "ANTHROPIC_AWS": (*_AWS_NAMES, "ANTHROPIC_AWS_API_KEY", "ANTHROPIC_AWS_BASE_URL", "ANTHROPIC_AWS_WORKSPACE_ID"),
    "VERTEX": (*_GOOGLE_NAMES, "ANTHROPIC_VERTEX_PROJECT_ID", "ANTHROPIC_VERTEX_BASE_URL"),
    "ANTHROPIC_GOOGLE_CLOUD": (
        *_GOOGLE_NAMES,
        "ANTHROPIC_GOOGLE_CLOUD_PROJECT",
        "ANTHROPIC_GOOGLE_CLOUD_BASE_URL",
        "ANTHROPIC_GOOGLE_CLOUD_WORKSPACE_ID",
    ),
    "FOUNDRY": (
        "ANTHROPIC_FOUNDRY_RESOURCE",
        "ANTHROPIC_FOUNDRY_BASE_URL",
        "AZURE_CLIENT_ID",
        "AZURE_CONFIG_DIR",
        "AZURE_TENANT_ID",
    ),
}
"""Variables besides the credentials that tell accounts of a provider apart; the binary reads them (2.1.332)."""

_KEY_CHARS: Final = 16


def account_key(env: Mapping[str, str], managed: Path = MANAGED_SETTINGS) -> str:
    """Return a digest of the account that an environment's `claude` uses. Reads files, so it blocks.

    Equal digests are one account: the same configuration directory, the same token or key, the same provider. A login
    on disk counts by whose it is, not by its tokens, which are renewed every few hours.

    Args:
        env: The environment that `claude` gets.
        managed: Directory of the managed settings.

    Returns:
        16 hexadecimal digits. Nothing of the credentials can be read from them.
    """
    signs = "\0".join(f"{name}={value}" for name, value in _signs(env, managed))
    return hashlib.sha256(signs.encode("utf-8", "surrogatepass")).hexdigest()[:_KEY_CHARS]


def _signs(env: Mapping[str, str], managed: Path) -> Iterator[tuple[str, str]]:
    effective = effective_claude_env(env, managed)
    yield "directory", os.path.realpath(config_directory(env))
    if providers := [provider for provider in PROVIDERS if effective.uses(provider)]:
        for provider in providers:
            yield "provider", provider.switch
            yield from _given(effective, (*provider.variables, *_OF_PROVIDERS.get(provider.switch, ())))
        return
    yield from _given(effective, _ENDPOINT)
    commands = (text(values.get("apiKeyHelper")) for values in effective.settings.values())
    helpers = [("apiKeyHelper", command) for command in commands if command]
    yield from [*_given(effective, _CREDENTIALS), *helpers] or _login(env)


def _given(effective: EffectiveClaudeEnv, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    return ((name, effective.variables[name]) for name in names if effective.variables.get(name))


def _login(env: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    whose = derived(state_file(env), _of_state, last=True)
    credentials = derived(credentials_file(env), _of_credentials, last=True)
    yield from whose.items()
    # The tokens of an account that is known are renewed every few hours.
    yield from ((name, value) for name, value in credentials.items() if name != "token" or not whose["account"])


def _of_state(state: Mapping[str, Any]) -> Mapping[str, str]:
    login = mapping(state.get("oauthAccount"))
    return {
        "account": text(login.get("accountUuid")),
        "organization": text(login.get("organizationUuid")),
        # What is derived from a file is kept in memory.
        "key": _digest(text(state.get("primaryApiKey"))),
    }


def _of_credentials(credentials: Mapping[str, Any]) -> Mapping[str, str]:
    login = mapping(credentials.get("claudeAiOauth"))
    # Another plan of the same person has other limits.
    return {
        "plan": text(login.get("subscriptionType")),
        "tier": text(login.get("rateLimitTier")),
        "token": _digest(text(login.get("refreshToken")) or text(login.get("accessToken"))),
    }


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest() if secret else ""

"""Names the account that the `claude` of an environment uses, so that a limit of one account stops no other."""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from jobs.claude.account import (
    MANAGED_SETTINGS,
    PROVIDERS,
    InForce,
    config_directory,
    credentials_file,
    in_force,
    state_file,
)
from jobs.claude.json_files import derived
from jobs.claude.shapes import mapping, text

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
_AWS: Final = ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ROLE_ARN", "AWS_CONFIG_FILE")
_GOOGLE: Final = ("CLOUD_ML_REGION", "CLOUDSDK_CONFIG", "GOOGLE_CLOUD_PROJECT")
_OF_PROVIDERS: Final[Mapping[str, tuple[str, ...]]] = {
    "BEDROCK": (*_AWS, "ANTHROPIC_BEDROCK_BASE_URL"),
    "MANTLE": (*_AWS, "ANTHROPIC_BEDROCK_MANTLE_BASE_URL"),
    "ANTHROPIC_AWS": (*_AWS, "ANTHROPIC_AWS_API_KEY", "ANTHROPIC_AWS_BASE_URL", "ANTHROPIC_AWS_WORKSPACE_ID"),
    "VERTEX": (*_GOOGLE, "ANTHROPIC_VERTEX_PROJECT_ID", "ANTHROPIC_VERTEX_BASE_URL"),
    "ANTHROPIC_GOOGLE_CLOUD": (
        *_GOOGLE,
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
"""What tells accounts of a provider apart besides its credentials; names that the binary reads (2.1.332)."""

_KEY_CHARS: Final = 16


def account_key(env: Mapping[str, str], managed: Path = MANAGED_SETTINGS) -> str:
    """Return a digest of what an environment's `claude` pays with. Reads files, so it blocks.

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
    here = in_force(env, managed)
    yield "directory", os.path.realpath(config_directory(env))
    if providers := [provider for provider in PROVIDERS if here.uses(provider)]:
        for provider in providers:
            yield "provider", provider.switch
            yield from _given(here, (*provider.variables, *_OF_PROVIDERS.get(provider.switch, ())))
        return
    yield from _given(here, _ENDPOINT)
    yield from (*_given(here, _CREDENTIALS), *_helpers(here)) or _login(env)


def _given(here: InForce, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    return ((name, here.variables[name]) for name in names if here.variables.get(name))


def _helpers(here: InForce) -> Iterator[tuple[str, str]]:
    commands = (text(values.get("apiKeyHelper")) for values in here.settings.values())
    return (("apiKeyHelper", command) for command in commands if command)


def _login(env: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    whose = derived(state_file(env), _of_state, last=True)
    credentials = derived(credentials_file(env), _of_credentials, last=True)
    yield from whose.items()
    yield from credentials.items()
    if whose["account"]:
        # Its tokens are renewed every few hours.
        return
    yield "token", derived(credentials_file(env), _token_of, last=True)


def _of_state(state: Mapping[str, Any]) -> Mapping[str, str]:
    login = mapping(state.get("oauthAccount"))
    return {
        "account": text(login.get("accountUuid")),
        "organization": text(login.get("organizationUuid")),
        # What is made of a file is kept in memory.
        "key": _digest(text(state.get("primaryApiKey"))),
    }


def _of_credentials(credentials: Mapping[str, Any]) -> Mapping[str, str]:
    login = mapping(credentials.get("claudeAiOauth"))
    # Another plan of the same person has other limits.
    return {"plan": text(login.get("subscriptionType")), "tier": text(login.get("rateLimitTier"))}


def _token_of(credentials: Mapping[str, Any]) -> str:
    login = mapping(credentials.get("claudeAiOauth"))
    return _digest(text(login.get("refreshToken")) or text(login.get("accessToken")))


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest() if secret else ""

"""The environment in which the real `claude` connects to the scripted API and to nothing else."""

from pathlib import Path

DUMMY_KEY = "sk-fake-not-real"


def isolated_environment(home: Path, api_url: str, *, path: str) -> dict[str, str]:
    """Return a new environment: no variable of this process is in it.

    Args:
        home: An empty directory; the CLI keeps its sessions and settings there.
        api_url: Where the scripted API listens, "http://127.0.0.1:PORT".
        path: The value of PATH.
    """
    return {
        "HOME": str(home),
        "PATH": path,
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "ANTHROPIC_BASE_URL": api_url,
        "ANTHROPIC_API_KEY": DUMMY_KEY,
        "DISABLE_AUTOUPDATER": "1",
        "DISABLE_ERROR_REPORTING": "1",
        "DISABLE_TELEMETRY": "1",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    }

"""Node's test suites for MCP, installed once into pytest's cache directory."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

PACKAGES = (
    "node@22.23.3",
    "conformance-0.1@npm:@modelcontextprotocol/conformance@0.1.16",
    "@modelcontextprotocol/conformance@0.2.0-alpha.12",
    "@modelcontextprotocol/inspector@2.12.0",
)
"""Node itself too: the suites need version 22, and a machine may have an older one."""

INSTALL_SECONDS = 300.0


class Suites:
    """The installed packages.

    Args:
        root: Holds `node_modules`.
    """

    def __init__(self, root: Path) -> None:
        self._modules = root / "node_modules"

    def run(self, script: str, *arguments: str, seconds: float) -> subprocess.CompletedProcess[str]:
        """Run a script of a package to its end, in an environment built from nothing."""
        return subprocess.run(
            [str(self._modules / ".bin" / "node"), str(self._modules / script), *arguments],
            env={"PATH": os.defpath, "HOME": str(self._modules.parent), "NO_COLOR": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )


def install(cache: pytest.Cache) -> Suites | None:
    """Return the suites, installed where they were not, or None without npm."""
    root = Path(cache.mkdir("node"))
    done = root / "installed"
    wanted = "\n".join(PACKAGES)
    if not done.exists() or done.read_text() != wanted:
        npm = shutil.which("npm")
        if npm is None:
            return None
        # npm does not repair what an installation that was interrupted left.
        shutil.rmtree(root / "node_modules", ignore_errors=True)
        subprocess.run(
            [npm, "install", "--prefix", str(root), "--no-audit", "--no-fund", "--no-save", *PACKAGES],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=INSTALL_SECONDS,
            check=True,
        )
        done.write_text(wanted)
    return Suites(root)

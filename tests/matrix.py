"""Runs the fast tests on each supported Python that is installed: `poe matrix`.

Each Python gets a virtual environment of its own, outside the repository, which is removed afterwards.
"""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
VERSIONS = ("3.11", "3.12", "3.13", "3.14")


def interpreter(version: str) -> Path | None:
    """Return a Python of this version that runs, or None where neither pyenv nor the PATH has one.

    Args:
        version: Major and minor, "3.11" for example.
    """
    name = f"python{version}"
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
    on_path = shutil.which(name)
    candidates = [*sorted(pyenv.glob(f"versions/{version}.*/bin/{name}")), *([Path(on_path)] if on_path else [])]
    # A shim of pyenv is on the PATH also where its version is not chosen, and then does not run. Some distributions
    # leave out what makes a virtual environment.
    return next((each for each in candidates if _can_make_environments(each)), None)


def _can_make_environments(python: Path) -> bool:
    return subprocess.run([python, "-c", "import ensurepip, venv"], capture_output=True, check=False).returncode == 0


def passes(python: Path) -> bool:
    """Run the tests of `poe test` in a new virtual environment of this Python and tell whether they passed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    test = shlex.split(project["tool"]["poe"]["tasks"]["test"]["cmd"])
    with tempfile.TemporaryDirectory(prefix="claude-jobs-matrix-") as directory:
        own = f"{directory}/bin/python"
        commands = (
            [str(python), "-m", "venv", directory],
            [own, "-m", "pip", "install", "-q", "-e", f"{ROOT}[dev]"],
            [own, "-m", *test, "-p", "no:cacheprovider"],
        )
        # poe runs this in the project's own environment, whose programs must not be found.
        environ = {name: value for name, value in os.environ.items() if name not in {"VIRTUAL_ENV", "PYTHONPATH"}}
        environ["PATH"] = f"{directory}/bin{os.pathsep}{environ.get('PATH', os.defpath)}"
        return all(subprocess.run(each, cwd=ROOT, env=environ, check=False).returncode == 0 for each in commands)


def main() -> int:
    """Run the tests on one Python after the other, then say how each went; return 1 where one failed or none ran."""
    passed: dict[str, bool] = {}
    lines = []
    for version in VERSIONS:
        python = interpreter(version)
        if python is None:
            lines.append(f"Python {version}: not run, there is no python{version} on the PATH or under pyenv")
            continue

        print(f"Python {version}: {python}", flush=True)
        start = time.monotonic()
        passed[version] = passes(python)
        lines.append(f"Python {version}: {'passed' if passed[version] else 'FAILED'}, {time.monotonic() - start:.0f} s")
    print(*lines, sep="\n")
    return 0 if passed and all(passed.values()) else 1


if __name__ == "__main__":
    sys.exit(main())

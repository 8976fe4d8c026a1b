"""Finds the `claude` binary that runs a job, and tells how that version is started."""

import errno
import importlib.util
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import anyio

from jobs.errors import BadInputError, ClaudeNotFoundError, ClaudeTooOldError
from jobs.util.keyed import SingleFlight

OLDEST_VERSION: Final = "2.1.197"
"""Oldest Claude Code that runs jobs: what npm installs under Node 20. Measured with 2.1.197, 240, 260, 261, 325 and 326
of npm and the bundled 2.1.332 (`tests/e2e/test_claude_cli.py` with `CLAUDE_JOBS_CLI`)."""

_AWAITS_SINCE: Final = "2.1.261"
_TAKES_SERVERS_SINCE: Final = "2.1.326"
_NUMBERS: Final = re.compile(r"\d{1,9}\.\d{1,9}\.\d{1,9}\b", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class CliFeatures:
    """Features of a version that decide how it is started.

    Args:
        awaits: It has `--await-initialize`. From then on it also reads its stdin from a file to the end (2.1.197 ends
            at once without an answer) and has `client_composed` (2.1.240 takes a task that begins with "/" for a
            command).
        takes_servers: It takes MCP servers from the `initialize` request.
    """

    awaits: bool = True
    takes_servers: bool = True


NEWEST: Final = CliFeatures()


def features_of(version: str | None) -> CliFeatures:
    """Return the features of a version; one that is not known counts as new."""
    known = _NUMBERS.match(version or "")
    if known is None:
        return NEWEST
    numbers = numbers_of(known.group())
    return CliFeatures(
        awaits=numbers >= numbers_of(_AWAITS_SINCE), takes_servers=numbers >= numbers_of(_TAKES_SERVERS_SINCE)
    )


def was_taken_for_newer(version: str | None, taken_for: str | None) -> bool:
    """Tell whether a `claude` lacks what it was started with; from `--await-initialize` on it does not say so itself.

    Args:
        version: What its first frame said, or None where there was none.
        taken_for: The version that it was started as.
    """
    real, assumed = features_of(version), features_of(taken_for)
    return real.awaits < assumed.awaits or real.takes_servers < assumed.takes_servers


def is_too_old(version: str | None) -> bool:
    """Tell whether a version runs no jobs; one that is not known may: a wrapper may not pass the option on."""
    return version is not None and numbers_of(version) < numbers_of(OLDEST_VERSION)


def numbers_of(version: str) -> tuple[int, ...]:
    """Return the numbers of a version such as "2.1.332"."""
    return tuple(map(int, version.split(".")))


VERSION_SECONDS: Final = 10.0
"""How long `claude --version` may take; it took 0.2 s (measured on 2.1.332)."""

UPDATE_SECONDS: Final = 30.0
"""How long a binary that was there before, or that a link on PATH leads to, may be missing: an update removes it for
some seconds. Until then no other binary is used: it may be of another version."""

_UPDATE_PAUSE = 0.5
_RECHECK_SECONDS = 15.0
"""How long an answer that is too old counts: a wrapper script does not change when the program behind it is updated.
For as long, a `claude` that was found is taken to be there when a job is submitted."""

_NAME = "claude"
_SHELL = re.compile(rb"#!\s*\S*?(?:/env(?:\s+-S)?\s+)?\S*?\b(?:ba|da|k|z)?sh\b")
_Where = tuple[str | None, str | None]
_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)\b", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claude:
    """A `claude` that can run jobs.

    Args:
        path: Absolute path.
        version: What it says its version is, or None where it says none; it is used all the same.
        passed_over: Those that come before it on PATH and are too old, as "PATH (VERSION)".
        missing: Links to nothing that come before it on PATH.
    """

    path: Path
    version: str | None
    passed_over: Sequence[str] = ()
    missing: Sequence[Path] = ()


class ClaudeFinder:
    """Finds the `claude` of a client, and asks each binary for its version once.

    A version is kept for as long as the file's modification time and size stay the same.

    Args:
        waits: Let a `claude` that an update may bring back keep its place for `UPDATE_SECONDS`.
        ask_wrappers: Ask a shell script that `CLAUDE_JOBS_CLI` names, too. For a launch it is used as it is: a
            person chose it, and what it does besides starting `claude` (a container, a log) would be done once more.
    """

    def __init__(self, *, ask_wrappers: bool = False, waits: bool = True) -> None:
        self._waits = waits
        self._ask_wrappers = ask_wrappers
        self._versions: dict[tuple[str, int, int], tuple[str | None, float]] = {}
        self._doubted: dict[str, str | None] = {}
        self._found: dict[_Where, tuple[float, Path]] = {}
        self._missing: dict[_Where | Path, float] = {}
        # One thread: requests that come while a version is asked for do not each block one of the shared pool.
        self._looks = SingleFlight[Claude](anyio.CapacityLimiter(1))

    @property
    def versions(self) -> Mapping[str, str | None]:
        """Path to version of each binary that was asked so far; None for one that did not say."""
        return {path: version for (path, _, _), (version, _) in list(self._versions.items())}

    def find(self, explicit: str | None, path: str | None) -> Claude:
        """Return the `claude` to run. Blocks for up to `VERSION_SECONDS`; meant for a worker thread.

        Args:
            explicit: `CLAUDE_JOBS_CLI`: an absolute path, or a name to be looked up on PATH. Where it is given, nothing
                else is tried. None or empty looks at PATH for `claude`, then at the bundled one.
            path: The client's PATH, or None where it has none.

        Raises:
            BadInputError: `explicit` is a relative path.
            ClaudeNotFoundError: Naming every place that was looked at.
            ClaudeTooOldError: What was found is older than `OLDEST_VERSION`.
        """
        where = explicit, path
        try:
            found = self._explicit(explicit, path) if explicit else self._search(explicit, path)
        except ClaudeNotFoundError as error:
            if where in self._found and not self._may_return(where):
                del self._found[where]
            transient = error.transient or where in self._found
            raise ClaudeNotFoundError(error.looked, transient=transient, is_chosen=error.is_chosen) from error
        except ClaudeTooOldError:
            # The next job is refused as it is submitted.
            self._found.pop(where, None)
            raise
        self._missing.pop(where, None)
        self._found[where] = time.monotonic(), found.path
        return found

    async def find_in_thread(self, explicit: str | None, path: str | None) -> Claude:
        """Do what `find` does without blocking the event loop."""
        return await self._looks.call((explicit, path), partial(self.find, explicit, path))

    async def check(self, explicit: str | None, path: str | None) -> None:
        """Make sure that there is a `claude`, or that one was there before and may be back soon.

        One that was there a moment ago is not looked for again: the launch does so.

        Raises:
            BadInputError, ClaudeNotFoundError, ClaudeTooOldError: As `find`.
        """
        found = self._found.get((explicit, path))
        if found is not None and time.monotonic() - found[0] < _RECHECK_SECONDS:
            return
        try:
            await self.find_in_thread(explicit, path)
        except ClaudeNotFoundError as error:
            if not error.transient:
                raise

    async def wait_for_update(self, explicit: str | None, path: str | None) -> Claude:
        """Wait for a `claude` that is missing for now, and return it; at most `UPDATE_SECONDS` from when it was missed.

        One that does not come back counts as never found, so that the next job fails at once.

        Raises:
            BadInputError, ClaudeNotFoundError, ClaudeTooOldError: As `find`.
        """
        while True:
            try:
                return await self.find_in_thread(explicit, path)
            except ClaudeNotFoundError as error:
                if not error.transient:
                    raise
            await anyio.sleep(_UPDATE_PAUSE)

    def doubt_version(self, binary: str, told: str | None) -> None:
        """Take a binary from now on for the version that it told in a job; where that is None ask it, wrappers too.

        Args:
            binary: Absolute path.
            told: As in the CLI's first frame.
        """
        self._doubted[binary] = told

    def _may_return(self, what: "_Where | Path") -> bool:
        """Tell whether something has been missing for less than `UPDATE_SECONDS`; the first question begins them."""
        now = time.monotonic()
        return self._waits and now - self._missing.setdefault(what, now) < UPDATE_SECONDS

    def _explicit(self, explicit: str, path: str | None) -> Claude:
        if os.sep not in explicit:
            candidates = _on_path(path or "", explicit)
            chosen = next(self._there(candidates, (explicit, path)), None)
            if chosen is None:
                raise ClaudeNotFoundError((f"{explicit} on PATH ({path or 'empty'})",), is_chosen=True)
        else:
            chosen = Path(explicit).expanduser()
            # The engine's directory is "/", and a client's may be a repository that holds a program of that name.
            if not chosen.is_absolute():
                raise BadInputError(
                    "CLAUDE_JOBS_CLI",
                    f"{explicit!r} is a relative path",
                    "Give an absolute path, or a name on PATH, there or as `cli` in config.toml.",
                )
            if not _executable(chosen):
                transient = _leads_nowhere(chosen) and self._may_return(chosen)
                raise ClaudeNotFoundError((f"{chosen} (not an executable file)",), transient=transient, is_chosen=True)
        asks = self._ask_wrappers or str(chosen) in self._doubted or not _is_shell_script(chosen)
        version = self._version(chosen, path, ask=asks)
        if is_too_old(version):
            raise ClaudeTooOldError((f"{chosen} ({version})",), OLDEST_VERSION)
        return Claude(path=chosen, version=version)

    def _search(self, explicit: str | None, path: str | None) -> Claude:
        candidates = [*_on_path(path or "", _NAME), *_bundled()]
        old: list[str] = []
        for candidate in self._there(candidates, (explicit, path)):
            version = self._version(candidate, path, ask=True)
            if not is_too_old(version):
                earlier = candidates[: candidates.index(candidate)]
                missing = tuple(filter(_leads_nowhere, earlier))
                return Claude(path=candidate, version=version, passed_over=tuple(old), missing=missing)
            old.append(f"{candidate} ({version})")
        if old:
            raise ClaudeTooOldError(tuple(old), OLDEST_VERSION)
        raise ClaudeNotFoundError(_looked(path, candidates))

    def _there(self, candidates: Iterable[Path], where: "_Where") -> Iterator[Path]:
        """Yield what can be executed; raise where an update may have taken away what should be there."""
        _, last = self._found.get(where, (0.0, None))
        for candidate in candidates:
            if _executable(candidate):
                self._missing.pop(candidate, None)
                yield candidate
            elif (candidate == last or _leads_nowhere(candidate)) and self._may_return(candidate):
                raise ClaudeNotFoundError((f"{candidate} (missing)",), transient=True)

    def _version(self, binary: Path, path: str | None, *, ask: bool) -> str | None:
        try:
            status = binary.stat()
        except OSError:
            raise ClaudeNotFoundError((f"{binary} (it has just been removed)",), transient=True) from None
        told = self._doubted.get(str(binary))
        if told or not ask:
            return told
        key = (str(binary), status.st_mtime_ns, status.st_size)
        version, asked_at = self._versions.get(key, (None, -_RECHECK_SECONDS))
        known = key in self._versions
        if not known or (is_too_old(version) and time.monotonic() - asked_at >= _RECHECK_SECONDS):
            try:
                version = ask_version(binary, path)
            except OSError:
                # A full disk is no reason to fail a job. The next launch asks again.
                return None
            self._versions[key] = (version, time.monotonic())
        return version


def ask_version(binary: Path, path: str | None) -> str | None:
    """Run `claude --version` and return the version, as in "2.1.332"; None where it says none. Blocks.

    Args:
        binary: Absolute path.
        path: The client's PATH: the binary may be a script whose interpreter is there.

    Raises:
        ClaudeNotFoundError: The file is being written: an update is in progress.
        OSError: No directory for it can be made.
    """
    done = _run_version(binary, path)
    # At the beginning only: what a wrapper prints may hold numbers elsewhere.
    said = _VERSION.match(done.stdout[:200].decode(errors="replace").lstrip()) if done else None
    return said.group() if said and done and done.returncode == 0 else None


def starts(binary: Path, path: str | None) -> bool:
    """Tell whether `claude --version` succeeds, even if it prints nothing, as a wrapper may. Blocks.

    Args:
        binary: Absolute path.
        path: The client's PATH.

    Raises:
        ClaudeNotFoundError, OSError: As `ask_version`.
    """
    done = _run_version(binary, path)
    return done is not None and done.returncode == 0


def _run_version(binary: Path, path: str | None) -> subprocess.CompletedProcess[bytes] | None:
    # An empty home: asking for a version must not touch the person's configuration.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        try:
            return subprocess.run(
                [str(binary), "--version"],
                cwd=home,
                env={"HOME": home, "PATH": path or os.defpath, "DISABLE_AUTOUPDATER": "1"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=VERSION_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return None
        except OSError as error:
            if error.errno == errno.ETXTBSY:
                raise ClaudeNotFoundError((f"{binary} (it is being written)",), transient=True) from error
            return None


def _is_shell_script(binary: Path) -> bool:
    try:
        with binary.open("rb") as file:
            return _SHELL.match(file.readline(200)) is not None
    except OSError:
        return False


def _on_path(path: str, name: str) -> list[Path]:
    # An empty or relative entry means the working directory, where a repository could put its own `claude`.
    return [Path(entry) / name for entry in path.split(os.pathsep) if entry.startswith(os.sep)]


def _bundled() -> list[Path]:
    # find_spec does not import the package, which would cost more than starting a job.
    spec = importlib.util.find_spec("claude_agent_sdk")
    return [Path(place) / "_bundled" / _NAME for place in (spec.submodule_search_locations or ())] if spec else []


def _executable(candidate: Path) -> bool:
    return candidate.is_file() and os.access(candidate, os.X_OK)


def _leads_nowhere(candidate: Path) -> bool:
    return candidate.is_symlink() and not candidate.exists()


def _looked(path: str | None, candidates: Sequence[Path]) -> tuple[str, ...]:
    bundled = [str(candidate) for candidate in candidates if candidate.parent.name == "_bundled"]
    return (f"PATH ({path or 'empty'})", *(bundled or ["the package claude-agent-sdk (not installed)"]))

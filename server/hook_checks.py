"""The checks of `claude-jobs doctor` on hooks: whether their commands and programs exist, and a message to try them."""

import os
import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from functools import partial

import anyio

from jobs.effective_settings import public_hook
from jobs.notice import Notice, NoticeEvent, NoticeKind
from jobs.notices.hooks import Hooks, desktop_program, directory_of
from jobs.ports import Clock
from jobs.settings import Settings, is_url
from server.checks import Finding
from server.client.client_env import own_umask

LOOK_SECONDS = 5.0
"""Seconds that a shell may take to find a program."""

_NONE_SET = "Set one in `config.toml` in the state directory; `claude-jobs settings` lists them."

_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=", re.ASCII)

_UNKNOWN = frozenset("$`();<>|&")


def check_hooks(settings: Settings, environ: Mapping[str, str], *, tried: bool) -> Iterator[Finding]:
    """Yield a finding for each hook that is set, and for the desktop where notices are shown there.

    Args:
        settings: The settings.
        environ: The environment of the person.
        tried: Send a message to each, and say what came of it; a problem is an error then.
    """
    if tried and not (settings.on_end or settings.on_attention or settings.desktop_notices):
        said = "none of on_end, on_attention and desktop_notices is set: no test message was sent"
        yield Finding(name="Hooks", good=False, detail=said, remedy=_NONE_SET, needed=False)
    hooks = Hooks(environ, own_umask())
    for kind, hook in ((NoticeKind.END, settings.on_end), (NoticeKind.ATTENTION, settings.on_attention)):
        if hook is not None:
            problem = _problem(hook, environ)
            if tried and problem is None:
                problem = anyio.run(hooks.deliver, hook, _test(kind))
            yield _finding(f"on_{kind}", public_hook(hook), problem, tried=tried)
    if settings.desktop_notices:
        program = desktop_program(environ.get("PATH"))
        problem = "no program shows notices on this desktop" if program is None else None
        if tried and program is not None:
            problem = anyio.run(partial(hooks.show, _test(NoticeKind.END)))
        yield _finding("desktop_notices", program or "notify-send or osascript", problem, tried=tried)


def _test(kind: NoticeKind) -> dict[str, object]:
    body = {
        "event": NoticeEvent.TEST.value,
        "id": "",
        "task": f"A test of on_{kind} by `claude-jobs doctor --hooks`.",
        "status": "",
        "costUsd": 0.0,
        "next": "claude-jobs doctor",
    }
    return Notice(kind=kind, body=body, at=Clock().now()).message


def _finding(name: str, shown: str, problem: str | None, *, tried: bool) -> Finding:
    detail = f"{shown}: {problem}" if problem else f"{shown}{', a test message was taken' if tried else ''}"
    remedy = f"Correct {name} where `claude-jobs settings` says it is set; `claude-jobs doctor --hooks` tries it again."
    if name == "desktop_notices":
        remedy = "Install notify-send (libnotify), or turn the setting off."
    return Finding(name=name, good=problem is None, detail=detail, remedy=remedy, needed=False, asked=tried)


def _problem(hook: str, environ: Mapping[str, str]) -> str | None:
    """Return what keeps a command from being run, as far as that can be told without running it."""
    if is_url(hook):
        return None
    lexer = shlex.shlex(hook, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError:
        return "the shell cannot read this command"
    program = next((word for word in words if not _ASSIGNMENT.match(word)), "")
    # What the shell has to expand is known only when it runs; a group or a redirection is not looked into.
    if not program or not _UNKNOWN.isdisjoint(program):
        return None
    look = ["/bin/sh", "-c", 'command -v "$1"', "sh", os.path.expanduser(program)]  # noqa: PTH111 - not a path always
    try:
        done = subprocess.run(
            look, env=dict(environ), capture_output=True, timeout=LOOK_SECONDS, check=False, cwd=directory_of(environ)
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"the shell does not run: {error}"
    return f"there is no program {program}" if done.returncode else None

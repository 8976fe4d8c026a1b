"""The check of a running engine: whether it answers, its version, and which `claude` its jobs run."""

from collections.abc import Mapping
from typing import Any

from server import __version__
from server.checks.finding import Finding
from server.client.connect import control
from server.client.engine_socket import EngineEndpoint
from server.client.state_dir import StatePaths
from server.client.wire import FrontDoorError, Hello

ANSWER_SECONDS = 5.0
"""Seconds that an engine may take to answer; chosen, not measured. A person waits that long where the engine hangs."""


def check_engine(places: StatePaths, environ: Mapping[str, str]) -> Finding:
    """Ask a running engine for its status; none is started."""
    endpoint = EngineEndpoint(places=places, environ=environ, patience=ANSWER_SECONDS)
    try:
        answer = control(endpoint, {"do": "status"}, Hello(cwd="/", client="doctor"))
    except (FrontDoorError, OSError) as error:
        return Finding(name="Engine", good=False, detail="does not answer", remedy=str(error))
    if answer is None:
        return Finding(name="Engine", good=True, detail="not running; the next call starts it")
    if not answer["ok"]:
        return Finding(name="Engine", good=False, detail="runs and cannot do its work", remedy=answer["error"])
    paused = answer.get("paused")
    detail = f"version {answer['version']}, pid {answer['pid']}{_in_use(answer)}{f'; {paused}' if paused else ''}"
    if answer["version"] == __version__:
        remedy = "Jobs go on by themselves then. `claude-jobs engine stop` ends this: the next engine tries at once."
        return Finding(name="Engine", good=not paused, detail=detail, remedy=remedy, needed=False)
    remedy = (
        f"This is version {__version__}. Run `claude-jobs engine stop`: jobs go on, and the next command starts an "
        "engine of this version."
    )
    return Finding(name="Engine", good=False, detail=detail, remedy=remedy, needed=False)


def _in_use(answer: Mapping[str, Any]) -> str:
    # An engine of an older version does not report it.
    used = (*(f"{path} ({version or 'version unknown'})" for path, version in answer.get("claudes", {}).items()),)
    accounts = answer.get("accounts", ())
    return "".join(f"; its jobs use {', '.join(some)}" for some in (used, accounts) if some)

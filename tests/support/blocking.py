"""What our code may not call on the event loop, since every client and job of the engine would wait for it."""

import inspect
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from blockbuster import BlockBuster, BlockBusterFunction

ROOT = Path(__file__).parents[2]
PACKAGES = ["server", "jobs", "orchestration"]
OWN_SERVER_RULE = tuple(f"{ROOT / package}/" for package in PACKAGES)
TESTS = f"{ROOT / 'tests'}/"

WATCHED = (
    "time.sleep",
    *(f"sqlite3.{each}" for each in ("Connection.execute", "Cursor.execute", "Connection.executescript")),
    *("builtins.open", "io.open", "fcntl.flock", "shutil.rmtree", "subprocess.Popen.__init__"),
    *(
        f"os.{each}"
        for each in (
            *(
                "open",
                "stat",
                "lstat",
                "access",
                "readlink",
                "listdir",
                "scandir",
                "mkdir",
                "rmdir",
                "unlink",
                "remove",
            ),
            *("rename", "replace", "link", "symlink", "chmod", "utime", "truncate", "fsync", "fdatasync", "statvfs"),
        )
    ),
)
"""What pathlib and shutil do comes to these as well."""

SMALL = "One small file, on the disk that the database is on: some microseconds, and a thread switch takes more."
IN_MEMORY = "A file of /proc or /sys, which no disk is behind."
AT_START = "The engine serves nobody yet, or nobody any more."
ONCE = "Once in the life of an engine or of a tree."

ALLOWED: Mapping[str, Mapping[str, str]] = {
    "jobs/processes/attempt_dir.py": {
        "create": SMALL,
        "add_line": SMALL,
        "write_note": SMALL,
        "read_note": SMALL,
        "remove_stdin": SMALL,
        "error_tail": SMALL,
        "output_size": SMALL,
        "lock_held": "Asks without waiting for the lock.",
        "_head": SMALL,
        "read_output": SMALL,
        "open_written": SMALL,
    },
    "jobs/processes/process_table.py": {"_read": IN_MEMORY, "identify": IN_MEMORY, "entries": IN_MEMORY},
    "jobs/processes/cgroup.py": {"own_group": IN_MEMORY},
    "jobs/processes/out_of_memory.py": {"_counter": IN_MEMORY},
    "jobs/processes/spawning.py": {"_launch": ONCE},
    "jobs/claude/cli_messages.py": {"reset_in": "The file of a time zone, once for each."},
    "jobs/limits/throttle.py": {"_memory_suffices": IN_MEMORY},
    "jobs/limits/pause_file.py": {"_remove": "Nobody who is told that the engine leaves may find the file."},
    "jobs/store/corruption.py": {"note_damage": "Once for a damage."},
    "jobs/maintenance/db_recovery.py": {"open_with_recovery": AT_START},
    "jobs/client_context.py": {"_read": ONCE, "forget": ONCE, "discard": ONCE},
    "jobs/settings.py": {"default_max_running": IN_MEMORY},
    "jobs/effective_settings.py": {"_signature": SMALL},
    "server/engine/app.py": {"assemble": AT_START, "serve": AT_START, "_resident": IN_MEMORY},
    "server/engine/state_binding.py": {"bind": AT_START},
    "server/engine/state_watch.py": {"_file_at": SMALL, "keep": SMALL, "bind": ONCE, "close": ONCE},
}
"""File, and function in it, to the reason why it may. Extend it, with a reason, rather than leave a call unwatched."""


@contextmanager
def watch_the_event_loop() -> Iterator[None]:
    """Raise `BlockingError` where a function of the three packages makes one of the calls on the event loop."""
    known = BlockBuster(PACKAGES).functions
    watched = [known.get(name) or BlockBusterFunction(None, name, scanned_modules=PACKAGES) for name in WATCHED]
    for function in watched:
        for file, functions in ALLOWED.items():
            function.can_block_in(f"/{file}", functions)
        # What an import reads, or what is read to count lines, is not ours.
        function.can_block_in("<frozen importlib._bootstrap>", "_find_and_load")
        function.can_block_in("coverage/control.py", "_should_trace")
        function.can_block_predicate = _is_called_by_a_test
        function.activate()
    try:
        yield
    finally:
        for function in watched:
            function.deactivate()


def _is_called_by_a_test(*_: object, **__: object) -> bool:
    """Tell whether a test makes the call, or calls a function of ours that makes it, and no coroutine of ours does."""
    frame = sys._getframe(2)  # noqa: SLF001 - has no other name
    ours = []
    while frame is not None and frame.f_back is not None:
        name = frame.f_code.co_filename
        if name.startswith(OWN_SERVER_RULE):
            ours.append(frame)
        elif name.startswith(TESTS) and not ours:
            return True
        frame = frame.f_back
    if not ours or ours[-1].f_code.co_flags & (inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR):
        return False
    return ours[-1].f_back is not None and ours[-1].f_back.f_code.co_filename.startswith(TESTS)

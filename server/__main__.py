"""The `claude-jobs` command: `mcp` and the detached engine import little; all else runs the command-line program."""

import os
import sys

if not __package__:
    # Run as a script, as the engine and a job's pump are. Appended: site-packages and the standard library come first.
    # Without `-I`, Python puts the script's own directory first, whose `mcp` would hide the library of that name.
    _own = os.path.dirname(os.path.realpath(__file__))
    sys.path[:] = [path for path in sys.path if path != _own]
    sys.path.append(os.path.dirname(_own))


def main() -> int:
    """Run the command line in `sys.argv` and return its exit status."""
    try:
        return _main()
    except KeyboardInterrupt:
        # While modules were being imported: there is nothing to say yet.
        return 130


def _main() -> int:
    if sys.argv[1:2] == ["mcp"]:
        # Imported here, like the other: neither path pays for the other's imports.
        from server.pump import main as pump

        return pump(sys.argv[2:])
    if sys.argv[1:] == ["engine", "--detached"]:
        return _engine()
    from server.cli.app import main as command_line

    command_line()
    return 0


def _engine() -> int:
    from jobs.util.text import redact, strip_terminal_codes
    from server.engine.main import run

    problem = run(_words)
    if problem is not None:
        sys.stderr.write(f"{redact(strip_terminal_codes(problem))}\n")
    return 0 if problem is None else 1


def _words(said: str) -> str:
    # Imported here: it imports all commands, and few engines have somebody act in the page.
    from server.cli.wording import in_words

    return in_words(said)


if __name__ == "__main__":
    sys.exit(main())

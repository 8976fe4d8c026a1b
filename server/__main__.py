"""The `claude-jobs` command: `mcp` and the detached engine take light paths, all else the command-line program."""

import sys
from pathlib import Path

if not __package__:
    # Run as a script, as the engine is. Appended: site-packages are there already and the standard library comes first.
    sys.path.append(str(Path(__file__).resolve().parents[1]))


def main() -> int:
    """Run the command line in `sys.argv` and return its exit status."""
    if sys.argv[1:2] == ["mcp"]:
        # Imported here, like the other: neither path pays for the other's imports.
        from server.pump import main as pump

        return pump(sys.argv[2:])
    if sys.argv[1:] == ["engine", "--detached"]:
        return _engine()
    from server.cli import app

    app()
    return 0


def _engine() -> int:
    from jobs.redaction import redact
    from jobs.safe_text import safe
    from server.engine_process import run

    problem = run()
    if problem is not None:
        sys.stderr.write(f"{safe(redact(problem))}\n")
    return 0 if problem is None else 1


if __name__ == "__main__":
    sys.exit(main())

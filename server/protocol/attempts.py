"""What a reply says of how an attempt ran."""

from jobs.model import Attempt


def how_it_ran(attempt: Attempt) -> dict[str, str]:
    """Return whose settings an attempt loaded, and the binary, its version and the model, as far as they are known."""
    known = {
        "settingSources": attempt.setting_sources,
        "cli": attempt.cli,
        "cliVersion": attempt.cli_version,
        "model": attempt.model,
    }
    return {name: value for name, value in known.items() if value}

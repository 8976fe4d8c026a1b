"""Options of the command line, from outside: they reach the `claude` of the job."""

from pathlib import Path

from tests.support.engines import SHELL_STUB, house


def test_options_reach_the_process_of_the_job(tmp_path: Path):
    said = tmp_path / "said"
    stub = tmp_path / "claude"
    stub.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >>{said}\nexec {SHELL_STUB} "$@"\n')
    stub.chmod(0o755)
    more = tmp_path / "more"
    more.mkdir()
    options = ["--model", "haiku", "--effort", "low", "--permission-mode", "plan", "--max-budget-usd", "1.5"]
    options += ["--allowed-tools", "Read, Bash(git log:*)", "--disallowed-tools", "WebFetch", "--directory", str(more)]
    options += ["--append-system-prompt", "Be brief.", "--timeout", "50", "--subtree-timeout", "60", "--max-jobs", "3"]
    with house(CLAUDE_JOBS_CLI=str(stub)) as one:
        for command in (("run", *options, "--strategy", "direct"), ("batch", *options, "--max-concurrent", "1")):
            said.unlink(missing_ok=True)
            done = one.run(*command, "stub:say=x")
            assert done.returncode == 0, done
            words = said.read_text()
            for expected in ("haiku", "low", "plan", "1.5", "Read", "Bash(git log:*)", "WebFetch", more, "Be brief."):
                assert str(expected) in words

"""What a job does to the world and finds in it: the modes of its files, and the variables of its environment."""

import json
import os
import re
import shlex
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from jobs.client_context import ClientContext
from jobs.settings import Settings
from server.client.state_dir import prepare
from server.client.tool_client import connected
from server.client.wire import Hello
from server.demo.environment import isolated_environment
from server.demo.messages_api import ScriptedApi
from server.demo.script import Story
from server.engine.app import assemble
from tests.support.engines import SHELL_STUB, SYSTEM_PATH, House, Pump, house
from tests.support.tokens import attempt_directory, pump_of_job, running
from tests.support.waiting import until_now

HOLD = "stub:wait=/nonexistent"
MODES = {0o022: (0o644, 0o755), 0o002: (0o664, 0o775), 0o077: (0o600, 0o700)}

ARRIVE = {
    "JAVA_HOME": "/opt/java",
    "KUBECONFIG": "/etc/kube",
    "DOCKER_HOST": "unix:///run/docker.sock",
    "REQUESTS_CA_BUNDLE": "/etc/ca.pem",
    "CLAUDE_CODE_TMPDIR": "/var/tmp",
    "CLAUDE_CODE_CLIENT_CERT": "/etc/client.pem",
    "CLAUDE_CODE_MAX_OUTPUT_TOKENS": "9000",
    "CLAUDE_CODE_MAX_RETRIES": "7",
    "AZURE_TENANT_ID": "tenant",
    "CLOUDSDK_CONFIG": "/etc/gcloud",
    "TRACEPARENT": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "IS_SANDBOX": "1",
}
STAY = {"GH_TOKEN": "gh-canary", "NPM_TOKEN": "npm-canary", "DATABASE_URL": "db-canary", "OTEL_SERVICE_NAME": "otel"}
SESSION = {
    "CLAUDECODE": "1",
    "CLAUDE_CODE_SSE_PORT": "4711",
    "CLAUDE_CODE_ENTRYPOINT": "cli",
    "CLAUDE_CODE_SESSION_ID": "not-yours",
    "CLAUDE_CODE_MESSAGING_TOKEN": "not-yours",
}


@contextmanager
def witness(**environ: str) -> Iterator[House]:
    """Make a house whose `claude` writes a file, makes a directory, and notes its environment."""
    with house(**environ) as made:
        stub = made.base / "claude"
        stub.write_text(
            "#!/bin/sh\n"
            "job=${CLAUDE_JOBS_JOB#*:}\njob=${job%:*}\n"
            f'cd {made.work} && echo x >"$job.file" && mkdir "$job.directory"\n'
            f'env >{made.base}/"$job.new" && mv {made.base}/"$job.new" {made.base}/"$job.env"\n'
            f'exec {SHELL_STUB} "$@"\n'
        )
        stub.chmod(0o755)
        yield House(base=made.base, environ={**made.environ, "CLAUDE_JOBS_CLI": str(stub)}, pids=made.pids)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def made_by(made: House, job_id: str) -> tuple[int, int]:
    """Return the modes of the file and the directory that a job has made."""
    until_now((made.base / f"{job_id}.env").exists, 60.0, f"the work of {job_id}")
    return mode(made.work / f"{job_id}.file"), mode(made.work / f"{job_id}.directory")


def environment_of(made: House, job_id: str) -> dict[str, str]:
    """Return the environment that the `claude` of a job has noted."""
    note = made.base / f"{job_id}.env"
    until_now(note.exists, 60.0, f"the environment of {job_id}")
    return dict(line.partition("=")[::2] for line in note.read_text().splitlines())


def ran(made: House, environ: Mapping[str, str] | None = None) -> str:
    """Run one job of a client with these variables besides the house's, and return its id."""
    with made.pump(environ) as pump:
        return str(pump.settled(pump.json("claude_run_async", task="x")["jobId"])["jobId"])


def child_of(made: House, job: dict[str, Any]) -> str:
    """Spawn a child through the pump of a running job and return its id once it is over."""
    with pump_of_job(made, attempt_directory(made, job)) as inside:
        return str(inside.settled(inside.json("claude_run_async", task="x")["jobId"])["jobId"])


def open_to_others(home: Path) -> list[str]:
    """Return what below the state directory somebody else may read or write."""
    paths = [home, *home.rglob("*")]
    return [f"{path} {mode(path):04o}" for path in paths if mode(path) & 0o077 and not path.is_symlink()]


def hold(pump: Pump) -> dict[str, Any]:
    """Start a job that runs until the test is over, and return its status."""
    return running(pump, pump.json("claude_run_async", task=HOLD)["jobId"])


def test_what_a_job_and_its_children_make_has_the_modes_of_the_client_and_what_we_make_is_private():
    with witness() as made:
        for mask, modes in MODES.items():
            os.umask(mask)
            with made.pump() as pump:
                job = hold(pump)
                # The tree's counts, not that of the process that spawns.
                os.umask(0)
                child = child_of(made, job)
                assert (made_by(made, job["jobId"]), made_by(made, child)) == (modes, modes)
                assert open_to_others(made.paths.home) == []


def test_a_tree_keeps_the_modes_and_variables_of_its_client_when_the_engine_is_killed():
    with witness() as made:
        os.umask(0o022)
        named = {**STAY, "CLAUDE_JOBS_PASS_ENVIRONMENT": '["GH_TOKEN"]'}
        with made.pump(named) as pump:
            job = hold(pump)
        made.kill_engine()
        made.wait_for_the_engine_to_go()
        os.umask(0o077)
        child = child_of(made, job)
        assert made_by(made, child) == MODES[0o022]
        env = environment_of(made, child)
        assert (env["GH_TOKEN"], "NPM_TOKEN" in env) == (STAY["GH_TOKEN"], False)
        assert open_to_others(made.paths.home) == []


def test_a_client_that_does_not_say_its_umask_gets_that_of_the_engines_starter():
    with witness() as made:
        os.umask(0o027)
        made.start_engine()
        os.umask(0o077)
        with connected(
            made.endpoint, Hello(cwd=str(made.work), env={"PATH": SYSTEM_PATH}, settings=made.environ)
        ) as old:
            job_id = old.call_json("claude_run_async", {"task": "x"})["jobId"]
        assert made_by(made, job_id) == (0o640, 0o750)


@pytest.mark.anyio
async def test_a_library_caller_gets_the_umask_of_its_process():
    with witness() as made:
        os.umask(0o027)
        settings = Settings(home=made.paths.home, cli=Path(made.environ["CLAUDE_JOBS_CLI"]))
        async with anyio.create_task_group() as group, assemble(settings, prepare(settings.home), group) as services:
            client_context = ClientContext(cwd=str(made.work), env={"PATH": SYSTEM_PATH})
            (job_id,) = await services.manager.execute_batch_async(["x"], client_context=client_context)
            seen = await anyio.to_thread.run_sync(made_by, made, job_id)
            group.cancel_scope.cancel()
        assert (seen, open_to_others(made.paths.home)) == ((0o640, 0o750), [])


def test_a_job_gets_toolchains_provider_and_limits_of_its_client_and_no_secrets_of_others():
    with witness() as made:
        env = environment_of(made, ran(made, ARRIVE | STAY | SESSION))
        assert {name: env.get(name) for name in ARRIVE} == ARRIVE
        assert not (STAY | SESSION).keys() & env.keys()


def test_pass_environment_names_what_else_a_job_gets_and_never_what_belongs_to_the_session():
    with witness() as made:
        made.start_engine()
        given = STAY | SESSION | {"OTEL_LOGS": "x", "d": "1", "p": "2", "left": "3"}
        made.paths.config.write_text('pass_environment = ["GH_TOKEN", "OTEL_*", "CLAUDE*", "d", "p", "left"]\n')
        env = environment_of(made, ran(made, given))
        assert {name for name in given if env.get(name) == given[name]} == {
            *("GH_TOKEN", "OTEL_SERVICE_NAME", "OTEL_LOGS"),
            *("d", "p", "left"),
        }
        assert not SESSION.keys() & env.keys()
        # A variable wins over the file.
        env = environment_of(made, ran(made, {**given, "CLAUDE_JOBS_PASS_ENVIRONMENT": '["NPM_TOKEN"]'}))
        assert STAY.keys() & env.keys() == {"NPM_TOKEN"}


def test_a_name_that_cannot_be_one_is_refused_with_an_example():
    with house(CLAUDE_JOBS_PASS_ENVIRONMENT='["GH_*_TOKEN"]') as made:
        said = made.run("run", "x")
    assert said.returncode == 1
    assert re.search(r"CLAUDE_JOBS_PASS_ENVIRONMENT: .*'GH_\*_TOKEN'", said.stderr)
    assert """For example: CLAUDE_JOBS_PASS_ENVIRONMENT='["GH_TOKEN", "OTEL_*"]'""" in said.stderr


def test_doctor_lists_the_names_that_jobs_do_not_get_and_no_value():
    with house() as made:
        told = made.run("doctor", "--json", **ARRIVE, **STAY, **SESSION)
        found = {one["name"]: one for one in json.loads(told.stdout)["findings"]}["Environment"]
        for name in STAY:
            assert name in found["detail"]
        assert "pass_environment" in found["detail"]
        assert not [name for name in (*ARRIVE, *SESSION, "PATH") if name in found["detail"]]
        assert not [value for value in STAY.values() if value in told.stdout]
        all_named = json.dumps(["GH_TOKEN", "NPM_TOKEN", "DATABASE_URL", "OTEL_*"])
        told = made.run("doctor", "--json", **STAY, CLAUDE_JOBS_PASS_ENVIRONMENT=all_named)
        found = {one["name"]: one for one in json.loads(told.stdout)["findings"]}["Environment"]
        assert not [name for name in STAY if name in found["detail"]]


def test_a_key_helper_of_the_real_claude_reads_the_variable_that_the_settings_name(claude_cli: Path):
    story = Story.model_validate({"roles": {"default": [{"text": "Here."}]}})
    with ScriptedApi(story) as api, house(CLAUDE_JOBS_CLI=str(claude_cli)) as made:
        user = made.base / "home" / ".claude"
        user.mkdir()
        (user / "settings.json").write_text(json.dumps({"apiKeyHelper": f"echo {shlex.quote('sk-')}$VAULT_KEY"}))
        client = isolated_environment(made.base / "home", api.url, path=SYSTEM_PATH)
        del client["ANTHROPIC_API_KEY"]
        done = made.run("run", "x", **client, VAULT_KEY="of-a-vault", CLAUDE_JOBS_PASS_ENVIRONMENT='["VAULT_*"]')
        assert (done.returncode, done.stdout.strip()) == (0, "Here."), done.stderr
        assert {request.headers.get("x-api-key") for request in api.requests if request.headers.get("x-api-key")} == {
            "sk-of-a-vault"
        }


def test_an_environment_that_is_too_long_is_named_as_such():
    with house(CLAUDE_JOBS_PASS_ENVIRONMENT='["LARGE_*"]') as made:
        said = made.run("run", "stub:say=right", **{f"LARGE_{number}": "x" * 120_000 for number in range(9)})
        assert (said.returncode, said.stdout) == (1, "")
        assert "The variables that jobs get are too long" in said.stderr
        assert "pass_environment" in said.stderr

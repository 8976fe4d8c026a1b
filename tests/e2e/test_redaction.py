"""What is read of a job that spoke of keys: words as they were, and no key but in the answer itself."""

import json
from pathlib import Path

import pytest

from server.client.connect import control
from server.client.wire import Hello
from server.demo.environment import isolated_environment
from server.demo.messages_api import ScriptedApi
from server.demo.script import Story
from tests.e2e.support import SYSTEM_PATH
from tests.support.engines import house
from tests.support.waiting import until_now

WORDS = "a basic understanding of sk-learn-extension, for the bearer of news"
KEY = "sk-ant-api03-" + "aB3_" * 20
OWN = "the-companys-gateway-key"
"""A key whose form nobody knows. It is redacted because it is a value of the job's environment."""

SAID = f"{WORDS}: {KEY}, {OWN}"
SHOWN = f"{WORDS}: [redacted], [redacted]"


def stub(base: Path, *, result: bool) -> Path:
    """Make a `claude` that says it, waits for the file "go" and ends, with or without a result."""
    block = {"type": "text", "text": SAID}
    said = {"type": "assistant", "message": {"id": "m1", "role": "assistant", "content": [block]}}
    ended = {"type": "result", "subtype": "success", "is_error": False, "result": SAID, "num_turns": 1}
    (base / "said").write_text(f"{json.dumps(said)}\n")
    (base / "ended").write_text(f"{json.dumps(ended)}\n" if result else "")
    path = base / "claude"
    wait = f"until [ -e {base}/go ]; do sleep 0.05; done"
    path.write_text(f"#!/bin/sh\ncat {base}/said\n{wait}\ncat {base}/ended\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("result", [True, False])
def test_transcripts_and_errors_keep_words_and_lose_keys_and_an_answer_is_as_it_was(tmp_path: Path, *, result: bool):
    cli = str(stub(tmp_path, result=result))
    with house(CLAUDE_JOBS_CLI=cli) as made, made.pump({"ANTHROPIC_API_KEY": OWN}) as pump:
        job_id = pump.json("claude_run_async", task="x")["jobId"]
        until_now(lambda: SHOWN in made.run("transcript", job_id).stdout, 60.0, "the words")
        (tmp_path / "go").touch()
        status = pump.settled(job_id)
        # With the tree its environment is forgotten: now the reader's own counts.
        transcript = made.run("transcript", job_id, ANTHROPIC_API_KEY=OWN).stdout
        assert (SHOWN in transcript, KEY in transcript, OWN in transcript) == (True, False, False)
        if result:
            assert json.loads(pump.text("claude_result", jobId=job_id))["result"] == SAID
        else:
            for told in (
                status["error"],
                pump.refusal("claude_result", jobId=job_id),
                made.run("result", job_id).stderr,
            ):
                assert (SHOWN in told, KEY in told, OWN in told) == (True, False, False), told
        assert WORDS in made.run("status", WORDS).stderr
        log = made.paths.log.read_text()
        assert (KEY in log, OWN in log) == (False, False)


def test_a_question_for_a_permission_keeps_words_and_loses_keys(claude_cli: Path):
    command = f": {KEY} {OWN} && install -m 600 /dev/null made-it # {WORDS}\n# {KEY}\n# {OWN}"
    call = {"tool_calls": [{"name": "Bash", "input": {"command": command, "description": WORDS}}]}
    story = Story.model_validate({"default": "worker", "roles": {"worker": [call, {"text": "It is over."}]}})
    settings = {"CLAUDE_JOBS_CLI": str(claude_cli), "CLAUDE_JOBS_PERMISSION_REQUESTS": "person"}
    with ScriptedApi(story) as api, house(**settings) as made:
        client = isolated_environment(made.base / "home", api.url, path=SYSTEM_PATH) | {"ANTHROPIC_API_KEY": OWN}
        made.paths.home.mkdir(mode=0o700, exist_ok=True)
        made.paths.config.write_text(f'on_attention = "cat >> {made.base}/told"\n')
        with made.pump(client) as pump:
            rule = f"Bash(echo {KEY}:*)"
            job_id = pump.json("claude_run_async", task="Go on.", allowedTools=[rule])["jobId"]
            until_now(lambda: made.run("approve").stdout.strip() != "", 60.0, "the question")
            [asked] = json.loads(made.run("approve", "--json").stdout)["requests"]
            waits = pump.json("claude_status", jobId=job_id)
            told = made.base / "told"
            until_now(lambda: told.exists() and told.read_text().endswith("\n"), 60.0, "the hook")
            feed = control(made.endpoint, {"do": "feed"}, Hello(cwd="/", client="test"))
            details = control(made.endpoint, {"do": "job", "job": job_id}, Hello(cwd="/", client="test"))
            commands = (["approve"], ["tree"], ["list"], ["status", job_id], ["transcript", job_id])
            seen = [made.run(*words).stdout for words in commands]
            seen += [told.read_text(), json.dumps([waits, feed, details])]
            assert made.run("approve", asked["requestId"]).returncode == 0
            pump.settled(job_id)
            assert (made.work / "made-it").exists()
    assert waits["waitingBecause"].startswith("Bash: : [redacted] [redacted] && install")
    assert all("[redacted]" in one for one in seen), seen
    assert not any(part in one for one in seen for part in ("sk-ant", "aB3_", OWN[:12])), seen
    hidden = command.replace(KEY, "[redacted]").replace(OWN, "[redacted]")
    assert json.loads(asked["input"]) == {"command": hidden, "description": WORDS}

"""One idempotency key over two programs, other settings, and the engine's death: one request, or an error."""

import pytest

from tests.support.engines import house

pytestmark = pytest.mark.timeout(300)


def test_a_key_names_one_request_also_between_programs_and_after_the_engines_death():
    with house() as made:
        made.start_engine()
        with made.pump() as one, made.pump() as other:
            first = one.json("claude_run_async", task="a", idempotencyKey="k")["jobId"]
            assert other.json("claude_run_async", task="a", idempotencyKey="k")["jobId"] == first
            assert first in other.refusal("claude_run_async", task="b", idempotencyKey="k")
            one.settled(first)
        made.kill_engine()
        made.wait_for_the_engine_to_go()
        # A default that changes is not a part of the request.
        made.paths.config.write_text('permission_mode = "plan"\n')
        made.start_engine()
        with made.pump() as later:
            assert later.json("claude_run_async", task="a", idempotencyKey="k")["jobId"] == first
            assert first in later.refusal("claude_run_async", task="b", idempotencyKey="k")
            assert [job["jobId"] for job in later.json("claude_list_jobs")] == [first]

"""What a page with a timeline reads of a whole engine: waits and pauses that are over outlive it, and costs add up."""

from typing import Any

from tests.support.engines import House, Pump, house
from tests.support.page_client import PageClient, signed_in
from tests.support.review_scene import API, AUTH, OAUTH, ROOT, SESSION, review_scene
from tests.support.tokens import attempt_directory, pump_of_job, running
from tests.support.waiting import until_now

SECONDS = 60.0


def detailed(client: PageClient, root_id: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the rows of the jobs of a tree and its own, as a page that opens it is sent them."""
    jobs: dict[str, Any] = {}
    with client.stream(f"?tree={root_id}") as events:
        more = True
        while more:
            page = events.page()
            jobs |= {row["jobId"]: row for row in page["jobs"]}
            more = page["more"]
        return jobs, page["trees"][0]


def said(made: House, *command: str) -> None:
    done = made.run(*command)
    assert done.returncode == 0, done.stderr


def waits_for_its_child(made: House, pump: Pump) -> tuple[str, str]:
    """Start a parent and a child for which it waits in a call, and end both; return their ids."""
    gates = {name: made.base / name for name in ("parent", "child")}
    parent = pump.json("claude_run_async", task=f"stub:wait={gates['parent']} stub:cost=0.5")["jobId"]
    with pump_of_job(made, attempt_directory(made, running(pump, parent))) as own:
        child = own.json("claude_run_async", task=f"stub:wait={gates['child']} stub:cost=0.25")["jobId"]
        running(pump, child)
        call = own.send("tools/call", name="claude_wait", arguments={"jobIds": [child]})
        until_now(lambda: pump.json("claude_status", jobId=parent).get("waitingFor") == "children", SECONDS, "the wait")
        client = signed_in(made)
        jobs, _ = detailed(client, parent)
        [attempt] = jobs[parent]["attempts"]
        assert "to" not in attempt
        [[what, since]] = attempt["waits"]
        assert (what, since >= attempt["from"]) == ("children", True)
        gates["child"].touch()
        own.answer(call)
    gates["parent"].touch()
    for job_id in (child, parent):
        assert pump.settled(job_id)["status"] == "completed"
    return parent, child


def test_a_wait_for_children_and_a_pause_that_are_over_are_still_seen_after_the_engine_was_killed():
    with house() as made, made.pump() as pump:
        blocker = made.base / "go"
        batch = pump.json("claude_run_batch_async", tasks=[f"stub:wait={blocker}", "x"], maxConcurrent=1)["batchId"]
        said(made, "pause", batch)
        said(made, "resume", batch)
        parent, child = waits_for_its_child(made, pump)
        made.kill_engine()
        made.wait_for_the_engine_to_go()
        made.start_engine()

        client = signed_in(made)
        jobs, tree = detailed(client, parent)
        [attempt] = jobs[parent]["attempts"]
        assert (attempt["status"], attempt["number"]) == ("completed", 1)
        [[what, since, until]] = attempt["waits"]
        assert what == "children"
        assert attempt["from"] <= since < until <= attempt["to"]
        assert "waits" not in jobs[child]["attempts"][0]
        assert jobs[parent]["below"]["counts"] == {"completed": 1}
        assert jobs[parent]["below"]["costUsd"] == jobs[child]["costUsd"]
        assert (tree["jobs"], tree["endedAt"]) == (2, attempt["to"])
        [[since, until, path]] = detailed(client, batch)[1]["pauses"]
        assert (path, since < until) == (batch, True)
        assert [one["waits"] for one in client.get(f"/api/jobs/{parent}").json["attempts"]] == [attempt["waits"]]

        costs = client.get("/api/costs").json
        of_tree = client.get(f"/api/trees/{parent}/costs").json
        assert costs["trees"][0]["rootId"] == parent
        assert of_tree["costUsd"] == costs["trees"][0]["costUsd"] == tree["costUsd"]
        assert [row["jobs"] for row in of_tree["depths"]] == [1, 1]
        assert sum(row.get("costUsd", 0.0) for row in of_tree["models"]) == tree["costUsd"]
        assert client.get("/api/trees/nobody/costs").status == 404
        blocker.touch()


def test_a_tree_says_who_waits_since_when_who_asks_and_what_all_below_costs_so_far():
    with review_scene() as scene:
        root_id, client = scene.ids[ROOT], signed_in(scene.made)
        jobs, tree = detailed(client, root_id)
        lasting = {
            task: [what for what, *rest in jobs[scene.ids[task]]["attempts"][-1].get("waits", ()) if len(rest) == 1]
            for task in (ROOT, AUTH, SESSION, OAUTH)
        }
        assert lasting == {ROOT: ["children"], AUTH: ["children"], SESSION: ["permission"], OAUTH: []}
        below = jobs[scene.ids[AUTH]]["below"]
        assert below["counts"] == {"running": 2, "completed": 2}
        assert (below["asking"], jobs[root_id]["below"]["asking"], tree["asking"]) == (1, 1, 1)
        running = {task: jobs[scene.ids[task]]["costUsd"] for task in (OAUTH, SESSION)}
        assert all(running.values())
        under = [row for row in jobs.values() if row.get("parentJobId") == scene.ids[AUTH]]
        assert round(sum(row.get("costUsd", 0.0) for row in under), 6) == below["costUsd"]
        assert round(sum(row.get("costUsd", 0.0) for row in jobs.values()), 6) == tree["costUsd"]
        assert (tree["title"], tree["jobs"], "endedAt" in tree) == (ROOT, len(jobs), False)

        with client.stream(f"?tree={root_id}&parents={root_id}") as events:
            some = {row["jobId"] for row in events.page()["jobs"]}
        assert scene.ids[API] in some
        assert scene.ids[OAUTH] not in some
        with client.stream("?trees=1") as events:
            page = events.page()
        assert (page["jobs"], [row["rootId"] for row in page["trees"]]) == ([], [root_id])
        of_tree = client.get(f"/api/trees/{root_id}/costs").json
        assert of_tree["costUsd"] == tree["costUsd"]
        assert of_tree["maxBudgetUsd"] == tree["maxBudgetUsd"] == 5
        assert [row["depth"] for row in of_tree["depths"]] == [0, 1, 2]

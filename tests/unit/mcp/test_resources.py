"""Jobs, transcripts and trees as resources, their changes, and completions: under the tools' own rules of sight."""

import json
from pathlib import Path

import anyio
import pytest
from mcp import Client, MCPError
from mcp_types import (
    EmptyResult,
    ResourceTemplateReference,
    ResourceUpdatedNotification,
    SubscribeRequest,
    SubscribeRequestParams,
    TextResourceContents,
    UnsubscribeRequest,
    UnsubscribeRequestParams,
)

from server.mcp import resources
from tests.unit.mcp.modern import modern
from tests.unit.mcp.world import ERAS, call, call_json, world

pytestmark = pytest.mark.anyio

WIDE = {"max_concurrent": {0: 8, 1: 8}}
HOLD = "stub:wait=/nonexistent"


async def text_of(client: Client, uri: str) -> str:
    [content] = (await client.read_resource(uri)).contents
    assert isinstance(content, TextResourceContents)
    assert content.uri == uri
    return content.text


@pytest.mark.parametrize("era", ERAS)
async def test_a_job_its_transcript_and_its_tree_can_be_read(home: Path, era: str):
    async with world(home, **WIDE) as here, here.client(mode=era) as client:
        batch = await call_json(client, "claude_run_batch", tasks=["stub:say=a", "stub:exit=1"])
        one, other = batch["job_ids"]
        assert json.loads(await text_of(client, f"job://{one}")) == await call_json(client, "claude_status", jobId=one)
        frames = [json.loads(line) for line in (await text_of(client, f"job://{one}/transcript")).splitlines()]
        assert [frame["type"] for frame in frames] == ["system", "stream_event", "assistant", "result"]
        tree = json.loads(await text_of(client, f"tree://{batch['batch_id']}"))
        assert tree["counts"] == {"completed": 1, "failed": 1}
        assert [line["jobId"] for line in tree["jobs"]] == [one, other]
        templates = await client.list_resource_templates()
        assert [one.uri_template for one in templates.resource_templates] == [
            "job://{id}",
            "job://{id}/transcript",
            "tree://{id}",
        ]
        listed = (await client.list_resources()).resources
        assert {resource.uri for resource in listed} == {f"job://{one}", f"job://{other}"}


async def test_a_job_that_never_ran_has_an_empty_transcript(home: Path):
    async with world(home) as here, here.client() as client:
        tasks = [{"task": HOLD, "key": "a"}, {"task": "x", "dependsOn": ["a"]}]
        batch = await call_json(client, "claude_run_batch_async", tasks=tasks)
        assert await text_of(client, f"job://{batch['jobIds'][1]}/transcript") == ""


async def test_of_a_long_transcript_the_last_whole_lines_are_read(home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(resources, "TRANSCRIPT_BYTES", 600)
    async with world(home) as here, here.client() as client:
        await call(client, "claude_run", {"task": "x"})
        [job] = await here.services.store.newest_jobs(limit=2)
        lines = (await text_of(client, f"job://{job.id}/transcript")).splitlines()
        assert 0 < len(lines) < 3
        assert json.loads(lines[-1])["type"] == "result"


@pytest.mark.parametrize(
    "uri", ["job://j404", "tree://b404", "job://", "job://j1/../j2", "job://j1/out", "file:///etc/passwd", "job://J1"]
)
@pytest.mark.parametrize("era", ERAS)
async def test_what_is_not_there_is_not_found(home: Path, era: str, uri: str):
    async with world(home) as here, here.client(mode=era) as client:
        with pytest.raises(MCPError, match="Resource not found"):
            await client.read_resource(uri)


async def test_a_job_finds_its_own_subtree_and_nothing_else(home: Path):
    async with world(home, **WIDE) as here, here.client() as person:
        one, other = await here.waiting_job(person), await here.waiting_job(person)
        async with here.client(token=here.token(one)) as client:
            assert [found.uri for found in (await client.list_resources()).resources] == [f"job://{one.id}"]
            for uri in (f"job://{other.id}", f"job://{other.id}/transcript", f"tree://{other.id}"):
                with pytest.raises(MCPError) as foreign:
                    await client.read_resource(uri)
                with pytest.raises(MCPError) as nobody:
                    await client.read_resource(uri.replace(other.id, "j404"))
                assert str(foreign.value).replace(other.id, "j404") == str(nobody.value)
            ref = ResourceTemplateReference(type="ref/resource", uri="job://{id}")
            found = await client.complete(ref, {"name": "id", "value": "j"})
            assert found.completion.values == [one.id]


async def test_ids_are_completed_from_their_beginning(home: Path):
    async with world(home) as here, here.client() as client:
        job = await here.waiting_job(client)
        jobs = ResourceTemplateReference(type="ref/resource", uri="job://{id}")
        trees = ResourceTemplateReference(type="ref/resource", uri="tree://{id}")
        assert (await client.complete(jobs, {"name": "id", "value": job.id[:4]})).completion.values == [job.id]
        assert (await client.complete(jobs, {"name": "id", "value": "x"})).completion.values == []
        assert (await client.complete(jobs, {"name": "other", "value": ""})).completion.values == []
        assert (await client.complete(trees, {"name": "id", "value": "b"})).completion.values == [job.batch_id]


async def test_a_newer_client_hears_of_changes_on_its_stream(home: Path):
    async with world(home) as here, modern(here) as client, here.client() as person:
        job = await here.waiting_job(person)
        wanted = {"resourceSubscriptions": [f"job://{job.id}", "job://j404"], "toolsListChanged": True}
        await client.send("subscriptions/listen", notifications=wanted)
        acknowledged = await client.note()
        assert acknowledged["params"]["notifications"] == {"resourceSubscriptions": [f"job://{job.id}"]}
        await call(person, "claude_kill_job", {"jobId": job.id})
        news = await client.note()
        assert (news["method"], news["params"]["uri"]) == ("notifications/resources/updated", f"job://{job.id}")


async def test_who_subscribes_to_a_job_hears_of_what_it_does_and_who_subscribes_to_its_tree_does_not(home: Path):
    async with world(home) as here, modern(here) as client, here.client() as person:
        job = await here.waiting_job(person)
        uris = [f"tree://{job.id}", f"job://{job.id}"]
        await client.send("subscriptions/listen", notifications={"resourceSubscriptions": uris})
        await client.note()
        here.services.event_bus.publish_activity(job)
        assert (await client.note())["params"]["uri"] == f"job://{job.id}"
        await call(person, "claude_kill_job", {"jobId": job.id})
        assert (await client.note())["params"]["uri"] in uris


async def test_a_newer_clients_job_hears_nothing_of_others(home: Path):
    async with world(home, **WIDE) as here, here.client() as person:
        one, other = await here.waiting_job(person), await here.waiting_job(person)
        async with modern(here, token=here.token(one)) as client:
            uris = [f"job://{other.id}", f"tree://{one.id}"]
            await client.send("subscriptions/listen", notifications={"resourceSubscriptions": uris})
            assert (await client.note())["params"]["notifications"] == {"resourceSubscriptions": [f"tree://{one.id}"]}


async def test_an_older_client_hears_of_changes_until_it_says_otherwise(home: Path):
    heard: list[str] = []
    news = anyio.Event()

    async def hear(message: object) -> None:
        nonlocal news
        if isinstance(message, ResourceUpdatedNotification):
            heard.append(str(message.params.uri))
            news.set()

    async with world(home, **WIDE) as here, here.client(message_handler=hear) as client, here.client() as person:
        first, second = await here.waiting_job(person), await here.waiting_job(person)
        for uri in (f"tree://{first.id}", f"job://{second.id}", "job://j404"):
            # By hand: the client's own method warns that the newest protocol has another way.
            asked = SubscribeRequest(params=SubscribeRequestParams(uri=uri))
            await client.session.send_request(asked, EmptyResult)
        child = await call_json(person, "claude_run_async", task=HOLD, parentJobId=first.id)
        with anyio.fail_after(60):
            await news.wait()
        left = UnsubscribeRequest(params=UnsubscribeRequestParams(uri=f"tree://{first.id}"))
        await client.session.send_request(left, EmptyResult)
        heard.clear()
        news = anyio.Event()
        await call(person, "claude_kill_job", {"jobId": child["jobId"]})
        await call(person, "claude_kill_job", {"jobId": second.id})
        with anyio.fail_after(60):
            await news.wait()
        assert set(heard) == {f"job://{second.id}"}

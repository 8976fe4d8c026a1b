"""A tree as a trace: its tracks are nested as the jobs are, and its slices are their times."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import pytest

from server.report.document import document_of
from server.report.perfetto import perfetto_trace
from server.report.protobuf_writer import Message
from tests.unit.report.sample import NOW, ZERO, Sample, ended, review
from tests.unit.report.wire import decoded


@dataclass
class Slice:
    name: str
    since: float
    until: float | None
    depth: int
    facts: dict[str, Any]
    ends_flows: list[int]


@dataclass
class Trace:
    """A trace as a viewer sees it.

    Attributes:
        tracks: Descriptors by uuid, in their order.
        slices: By uuid of the track.
        instants: Events without length, by uuid of the track.
        counters: Time and value, by name.
    """

    tracks: dict[int, dict[str, Any]] = field(default_factory=dict)
    slices: dict[int, list[Slice]] = field(default_factory=lambda: defaultdict(list))
    instants: dict[int, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    counters: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))

    def uuid(self, name: str) -> int:
        [found] = [uuid for uuid, track in self.tracks.items() if track.get("name") == name]
        return found

    def of(self, name: str) -> list[tuple[int, str, float, float | None]]:
        """Return depth, name, and times since the beginning of the slices of a job."""
        found = self.slices[self.uuid(name)]
        return [
            (one.depth, one.name, one.since, one.until) for one in sorted(found, key=lambda one: (one.since, one.depth))
        ]


def seconds(timestamp: int) -> float:
    return round(timestamp / 1e9 - ZERO, 3)


def viewed(sample: Sample, **tree: Any) -> Trace:
    """Return a trace as a viewer sees it."""
    data = b"".join(perfetto_trace(document_of(sample.pages(**tree), (), with_answers=True)))
    trace, events = Trace(), []
    packets = decoded(data)["packet"]
    assert [packet.get("sequence_flags") for packet in packets] == [1, *[None] * (len(packets) - 1)]
    assert {packet["trusted_packet_sequence_id"] for packet in packets} == {1}
    for packet in packets:
        if "track_descriptor" in packet:
            track = packet["track_descriptor"]
            assert track["uuid"] not in trace.tracks
            assert track.get("parent_uuid") in (None, *trace.tracks), "a track comes before the one above it"
            trace.tracks[track["uuid"]] = track
        elif "track_event" in packet:
            assert packet["track_event"]["track_uuid"] in trace.tracks, "an event comes before its track"
            events.append((packet["timestamp"], packet["track_event"]))
    open_slices: dict[int, list[Slice]] = defaultdict(list)
    # A viewer sorts by time alone; of one time they stay in their order.
    for timestamp, event in sorted(events, key=lambda one: one[0]):
        take_in(trace, open_slices[event["track_uuid"]], event, seconds(timestamp))
    return trace


def take_in(trace: Trace, stack: list[Slice], event: dict[str, Any], at: float) -> None:
    """Take in an event of a track, on which some slices are open."""
    uuid = event["track_uuid"]
    match event["type"]:
        case 1:
            stack.append(
                Slice(event["name"], at, None, len(stack), facts_of(event), event.get("terminating_flow_ids", []))
            )
            trace.slices[uuid].append(stack[-1])
        case 2:
            stack.pop().until = at
        case 3:
            trace.instants[uuid].append({**event, "at": at})
        case 4:
            value: float = event.get("double_counter_value", event.get("counter_value", 0))
            trace.counters[trace.tracks[uuid]["name"]].append((at, value))


def facts_of(event: dict[str, Any]) -> dict[str, Any]:
    notes = event.get("debug_annotations", ())
    return {one["name"]: value for one in notes for key, value in one.items() if key != "name"}


def test_each_job_is_a_track_below_that_of_the_job_that_started_it():
    trace = viewed(review())
    process = next(track for track in trace.tracks.values() if "process" in track)
    assert process["process"] == {"pid": 1, "process_name": "Review src/ for security problems"}
    top = trace.tracks[trace.uuid("17 jobs")]
    assert (top["parent_uuid"], top["child_ordering"]) == (process["uuid"], 3)
    above = {
        "Review src/ for security problems": "17 jobs",
        "auth/": "Review src/ for security problems",
        "auth/oauth.py": "auth/",
        "api/users.py": "api/",
        "summary": "Review src/ for security problems",
    }
    for name, parent in above.items():
        assert trace.tracks[trace.uuid(name)]["parent_uuid"] == trace.uuid(parent)
    below_api = [track for track in trace.tracks.values() if track.get("parent_uuid") == trace.uuid("api/")]
    assert [(track["name"], track["sibling_order_rank"]) for track in below_api] == [
        ("api/orders.py", 0),
        ("api/payments.py", 1),
        ("api/users.py", 2),
        ("api/webhooks.py", 3),
    ]


def test_slices_are_the_queue_the_attempts_and_in_these_what_was_waited_for():
    trace = viewed(review())
    assert trace.of("auth/oauth.py") == [
        (0, "queued", 66, 72),
        (0, "attempt 1: overloaded", 72, 112),
        (0, "queued", 112, 126),
        (0, "attempt 2: running", 126, None),
    ]
    assert trace.of("api/") == [
        (0, "queued", 20, 32),
        (0, "attempt 1: completed", 32, 214),
        (1, "waits for its jobs", 50, 200),
    ]
    assert trace.of("auth/session.py")[-2:] == [
        (0, "attempt 1: running", 184, None),
        (1, "waits for a permission", 232, None),
    ]
    assert trace.of("docs/") == [(0, "queued", 20, 40)]


def test_a_pause_is_a_slice_in_the_queue():
    sample = review()
    [paused] = [row["jobId"] for row in sample.rows if row["task"] == "scripts/"]
    trace = viewed(sample, pauses=[[ZERO + 120, None, f"j0root/{paused}"]])
    assert trace.of("scripts/")[-2:] == [(0, "queued", 100, None), (1, "paused", 120, None)]


def test_an_attempt_says_what_it_cost_and_which_job_it_is_of():
    trace = viewed(review())
    [slice_] = [one for one in trace.slices[trace.uuid("db/migrate.py")] if one.name.startswith("attempt")]
    assert slice_.facts["reason"] == "prompt_too_long"
    assert slice_.facts["costUsd"] == pytest.approx(0.31)
    assert slice_.facts["model"] == "claude-sonnet-5"
    assert slice_.facts["job"].startswith("j11")
    assert isinstance(slice_.facts["inputTokens"], int)


def test_flows_lead_from_a_job_to_those_that_it_starts_and_back():
    trace = viewed(review())
    api, users = trace.uuid("api/"), trace.uuid("api/users.py")
    [started] = [one for one in trace.instants[api] if one["name"] == "starts api/users.py"]
    first = min(trace.slices[users], key=lambda one: one.since)
    assert (started["at"], started["flow_ids"]) == (48, first.ends_flows)
    [ended_] = trace.instants[users]
    [told] = [one for one in trace.instants[api] if one["name"] == "api/users.py: completed"]
    assert (ended_["at"], ended_["flow_ids"]) == (131, told["terminating_flow_ids"])
    assert ended_["name"] == "completed"
    # Each flow begins once and ends once.
    begun = [flow for events in trace.instants.values() for one in events for flow in one.get("flow_ids", ())]
    assert len(begun) == len(set(begun))


def test_counters_tell_how_many_jobs_run_and_work_and_what_it_has_cost():
    counters = viewed(review()).counters
    assert counters["Running jobs"][0] == (1, 1)
    # The root, auth/ and three of its jobs, api/ and three of its jobs, db/migrate.py and scripts/.
    assert dict(counters["Running jobs"])[72] == max(value for _, value in counters["Running jobs"]) == 11
    # What is not over counts until the record was made.
    assert counters["Running jobs"][-1] == (NOW - ZERO, 0)
    # Three of them wait for their jobs.
    assert dict(counters["Jobs at work"])[72] == 8
    costs = [value for _, value in counters["Cost so far"]]
    assert costs == sorted(costs)
    assert costs[0] == 0
    assert costs[-1] == pytest.approx(1.975, abs=0.01)


def test_jobs_of_one_name_have_two_tracks():
    sample = Sample()
    root = sample.job("all", **ended(0.1, 0, 1, 9))
    for _ in range(2):
        sample.job("the same", root, **ended(0.1, 1, 2, 8))
    tracks = [track for track in viewed(sample).tracks.values() if track.get("name") == "the same"]
    assert len({track["uuid"] for track in tracks}) == 2
    assert {track["sibling_merge_behavior"] for track in tracks} == {2}


def test_attempts_of_no_length_and_those_that_follow_at_once_are_nested_well():
    sample = Sample()
    root = sample.job("all", **ended(0.1, 0, 0, 0))
    for number in range(5):
        sample.job(f"part {number}", root, **ended(0.1, 0, number / 1e6, number / 1e6 + 1e-6))
    trace = viewed(sample)
    assert all(one.depth == 0 for slices in trace.slices.values() for one in slices)


def test_a_trace_holds_no_answer_and_no_secret():
    sample = Sample()
    sample.job("use sk-ant-api03-" + "aB3" * 20, answer="The answer.", **ended(0.1, 0, 1, 9))
    data = b"".join(perfetto_trace(document_of(sample.pages(), (), with_answers=True)))
    assert b"aB3aB3" not in data
    assert b"The answer." not in data
    assert b"[redacted]" in data


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 2**31, 2**63, 2**64 - 1])
def test_numbers_of_any_size_are_written_as_they_are(value: int):
    assert decoded(bytes(Message().number(8, value)), "TracePacket") == {"timestamp": value}


def test_a_negative_number_has_64_bits():
    assert decoded(bytes(Message().number(30, -1)), "TrackEvent") == {"counter_value": 2**64 - 1}

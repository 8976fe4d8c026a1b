"""Reads a trace without the code that writes it. Names and numbers of fields are those of Perfetto's definitions.

They are copied from `perfetto_trace_pb2` of the package `perfetto` 0.59.1, which weighs 5 MB with what it needs and is
no dependency for that. Those definitions read these traces, too, with no field left over.
"""

import struct
from collections.abc import Iterator, Mapping
from typing import Any

_TEXT, _REAL = "text", "real"

FIELDS: Mapping[str, Mapping[int, tuple[str, str]]] = {
    "Trace": {1: ("packet", "TracePacket")},
    "TracePacket": {
        6: ("clock_snapshot", "ClockSnapshot"),
        8: ("timestamp", ""),
        10: ("trusted_packet_sequence_id", ""),
        11: ("track_event", "TrackEvent"),
        13: ("sequence_flags", ""),
        60: ("track_descriptor", "TrackDescriptor"),
    },
    "ClockSnapshot": {1: ("clocks", "Clock")},
    "Clock": {1: ("clock_id", ""), 2: ("timestamp", "")},
    "TrackDescriptor": {
        1: ("uuid", ""),
        2: ("name", _TEXT),
        3: ("process", "ProcessDescriptor"),
        5: ("parent_uuid", ""),
        8: ("counter", "CounterDescriptor"),
        11: ("child_ordering", ""),
        12: ("sibling_order_rank", ""),
        15: ("sibling_merge_behavior", ""),
    },
    "ProcessDescriptor": {1: ("pid", ""), 6: ("process_name", _TEXT)},
    "CounterDescriptor": {3: ("unit", ""), 6: ("unit_name", _TEXT)},
    "TrackEvent": {
        4: ("debug_annotations", "DebugAnnotation"),
        9: ("type", ""),
        11: ("track_uuid", ""),
        22: ("categories", _TEXT),
        23: ("name", _TEXT),
        30: ("counter_value", ""),
        44: ("double_counter_value", _REAL),
        47: ("flow_ids", ""),
        48: ("terminating_flow_ids", ""),
    },
    "DebugAnnotation": {
        4: ("int_value", ""),
        5: ("double_value", _REAL),
        6: ("string_value", _TEXT),
        10: ("name", _TEXT),
    },
}
SEVERAL = frozenset({"packet", "clocks", "debug_annotations", "categories", "flow_ids", "terminating_flow_ids"})
"""Fields that may be there more than once."""


def decoded(data: bytes, message: str = "Trace") -> dict[str, Any]:
    """Return a message by the names of its fields; a field that is not known is a `KeyError`."""
    found: dict[str, Any] = {}
    for number, raw in _fields(data):
        name, kind = FIELDS[message][number]
        value = _value(raw, kind)
        if name in SEVERAL:
            found.setdefault(name, []).append(value)
        else:
            assert name not in found, f"{name} is there twice"
            found[name] = value
    return found


def _value(raw: Any, kind: str) -> Any:
    if kind in FIELDS:
        return decoded(raw, kind)
    if kind == _TEXT:
        return raw.decode()
    if isinstance(raw, bytes):
        return struct.unpack("<d" if kind == _REAL else "<Q", raw)[0]
    return raw


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        match key & 7:
            case 0:
                value, at = _varint(data, at)
                yield key >> 3, value
            case 1:
                yield key >> 3, data[at : at + 8]
                at += 8
            case 2:
                size, at = _varint(data, at)
                assert at + size <= len(data), "a field reaches over the end"
                yield key >> 3, data[at : at + size]
                at += size
            case kind:
                raise ValueError(f"wire type {kind}")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if not data[at - 1] & 0x80:
            return value, at

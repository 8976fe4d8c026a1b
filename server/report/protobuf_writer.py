"""Writes messages of protocol buffers: the few kinds of fields that a trace of jobs needs.

The format is that of https://protobuf.dev/programming-guides/encoding/.
"""

import struct
from typing import Final

_VARINT: Final = 0
_FIXED64: Final = 1
_BYTES: Final = 2
_WORD: Final = (1 << 64) - 1


class Message:
    """A message that is being written. Each method adds a field and returns the message."""

    def __init__(self) -> None:
        self._data = bytearray()

    def __bytes__(self) -> bytes:
        return bytes(self._data)

    def number(self, field: int, value: int) -> "Message":
        """Add a whole number, an enumeration or a truth value; a negative one as 64 bits."""
        self._tag(field, _VARINT)
        self._varint(value & _WORD)
        return self

    def real(self, field: int, value: float) -> "Message":
        """Add a number of double precision."""
        self._tag(field, _FIXED64)
        self._data += struct.pack("<d", value)
        return self

    def fixed(self, field: int, value: int) -> "Message":
        """Add a whole number of 64 bits, not negative, in as many bits."""
        self._tag(field, _FIXED64)
        self._data += struct.pack("<Q", value)
        return self

    def text(self, field: int, value: str) -> "Message":
        """Add a text."""
        return self.data(field, value.encode())

    def message(self, field: int, value: "Message") -> "Message":
        """Add a message."""
        return self.data(field, bytes(value))

    def data(self, field: int, value: bytes) -> "Message":
        """Add bytes."""
        self._tag(field, _BYTES)
        self._varint(len(value))
        self._data += value
        return self

    def _tag(self, field: int, wire_type: int) -> None:
        self._varint(field << 3 | wire_type)

    def _varint(self, value: int) -> None:
        while value > 0x7F:
            self._data.append(value & 0x7F | 0x80)
            value >>= 7
        self._data.append(value)

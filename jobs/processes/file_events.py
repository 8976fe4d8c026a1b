"""File events: notifies at once that a file grows, by inotify on Linux. Elsewhere the caller polls."""

import asyncio
import ctypes
import logging
import os
import struct
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache

logger = logging.getLogger(__name__)

GAP = 0.02
"""Seconds between two readings of the events, of all files together: many small writes wake no reader more often."""

REMOVE_SECONDS = 1.0
"""Seconds over which watches are gathered that are not needed any more. The kernel takes about a millisecond to remove
one (measured), so it is done in a thread, for many files at once."""

_MODIFIED = 0x2
_EVENT = struct.Struct("iIII")
_BUFFER = 4096 * _EVENT.size
_OVERFLOW = -1


class FileEvents:
    """Calls back when watched files are written to. Used by one event loop.

    All files share one inotify descriptor. It stays open while nothing is watched: to close one takes the kernel
    milliseconds (measured).
    """

    def __init__(self) -> None:
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._leaving: set[int] = set()
        self._descriptor: int | None = None

    @contextmanager
    def watching(self, descriptors: Sequence[int], on_write: Callable[[], None]) -> Iterator[bool]:
        """Watch open files; yield whether the system tells of every one of them.

        Args:
            descriptors: The files.
            on_write: Called in the event loop, at most every `GAP` seconds, after something was written.
        """
        watches = self._add(descriptors) if sys.platform == "linux" else []
        self._callbacks.update(dict.fromkeys(watches, on_write))
        try:
            yield bool(descriptors) and len(watches) == len(descriptors)
        finally:
            self._remove(watches)

    def _add(self, descriptors: Sequence[int]) -> list[int]:
        if self._descriptor is None:
            self._open()
        if self._descriptor is None:
            return []
        # By its descriptor: the name may mean another file by now.
        paths = [f"/proc/self/fd/{descriptor}".encode() for descriptor in descriptors]
        watches = [_libc().inotify_add_watch(self._descriptor, path, _MODIFIED) for path in paths]
        # A file that is watched again has the watch that is just being removed.
        return [watch for watch in watches if watch >= 0 and watch not in self._leaving]

    def _remove(self, watches: Sequence[int]) -> None:
        for watch in watches:
            self._callbacks.pop(watch, None)
        if watches and not self._leaving:
            asyncio.get_running_loop().call_later(REMOVE_SECONDS, self._remove_leaving)
        self._leaving.update(watches)

    def _remove_leaving(self) -> None:
        leaving = frozenset(self._leaving)
        removal = asyncio.get_running_loop().run_in_executor(None, self._remove_in_kernel, leaving)
        removal.add_done_callback(lambda _: self._removed(leaving))

    def _remove_in_kernel(self, watches: Iterable[int]) -> None:
        # Not by `_libc`: the others go on meanwhile.
        remove = ctypes.CDLL(None).inotify_rm_watch
        for watch in watches:
            remove(self._descriptor, watch)

    def _removed(self, watches: frozenset[int]) -> None:
        self._leaving -= watches
        if self._leaving:
            asyncio.get_running_loop().call_later(REMOVE_SECONDS, self._remove_leaving)

    def _open(self) -> None:
        descriptor = _libc().inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if descriptor < 0:
            logger.info("no file events: %s", os.strerror(ctypes.get_errno()))
            return
        self._descriptor = descriptor
        weakref.finalize(self, os.close, descriptor)
        self._listen(descriptor)

    def _listen(self, descriptor: int) -> None:
        if descriptor == self._descriptor:
            asyncio.get_running_loop().add_reader(descriptor, self._read, descriptor)

    def _read(self, descriptor: int) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(descriptor)
        loop.call_later(GAP, self._listen, descriptor)
        try:
            data = os.read(descriptor, _BUFFER)
        except BlockingIOError:
            return
        written = {watch for watch, *_ in _EVENT.iter_unpack(data)}
        watches = set(self._callbacks) if _OVERFLOW in written else written & self._callbacks.keys()
        for on_write in {self._callbacks[watch] for watch in watches}:
            on_write()


@cache
def _libc() -> ctypes.PyDLL:
    # These calls take microseconds: releasing the interpreter lock for them would cost more.
    return ctypes.PyDLL(None, use_errno=True)

"""Reading by key for all requests of the process: what is asked while a read is in flight forms the next one."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from itertools import islice
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

KEYS_MAX = 500
"""Keys of one read."""


class Gatherer(Generic[Key, Value]):
    """Asks ``read`` for many keys at once, with at most one read in flight, however many requests wait for one."""

    def __init__(self, read: Callable[[Sequence[Key]], Awaitable[Mapping[Key, Value]]], name: str) -> None:
        """``read`` answers what it found by key; ``name`` is that of the task which reads."""
        self._read = read
        self._name = name
        self._waiting: dict[Key, asyncio.Future[Value | None]] = {}
        self._reader: asyncio.Task[None] | None = None

    async def find(self, key: Key) -> Value | None:
        """The value as of now, or None. Never answered by a read that began before this call."""
        future = self._waiting.get(key)
        if future is None:
            future = self._waiting[key] = asyncio.get_running_loop().create_future()
            if self._reader is None:
                self._reader = asyncio.create_task(self._read_all(), name=self._name)
        # Shared with other requests: one that goes away must not cancel it for them.
        return await asyncio.shield(future)

    async def _read_all(self) -> None:
        while self._waiting:
            batch = dict(islice(self._waiting.items(), KEYS_MAX))
            for key in batch:
                del self._waiting[key]
            try:
                found = await self._read(list(batch))
            except Exception as error:  # noqa: BLE001 (whatever it was belongs to those who asked, not to this task)
                for future in batch.values():
                    future.set_exception(error)
                    future.exception()  # those who asked may have gone: nobody needs to hear of it then
            else:
                for key, future in batch.items():
                    future.set_result(found.get(key))
        self._reader = None

"""Batches: requests that come at the same time are encoded together."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64

from wembed.errors import WembedError
from wembed.measures import Measures

__all__ = ["Batches", "Encoded"]


@dataclass(frozen=True, eq=False)
class Encoded:
    """What a model makes of some measures.

    Attributes:
        vectors: their embeddings.
        unusualness: of each measure, how unlike the training measures it is.
    """

    vectors: Float32[np.ndarray, "n dim"]
    unusualness: Float64[np.ndarray, " n"]

    def part(self, start: int, stop: int) -> "Encoded":
        """That of some of the measures."""
        return Encoded(self.vectors[start:stop], self.unusualness[start:stop])


class Batches:
    """Encodes measures, those of requests that wait at the same time in one call.

    Args:
        encode: encodes measures; it is called in `thread`.
        thread: where it is called.
        window: seconds to wait for more, once there is something to encode and the encoder is free; 0 takes what has
            come while it was busy.
        size: measures, from which on no more requests are taken into a call; 1 leaves each request to itself.
        seen: called with the measures of each call.
    """

    def __init__(
        self,
        encode: Callable[[Measures], Encoded],
        thread: Executor,
        window: float = 0.001,
        size: int = 256,
        seen: Callable[[int], None] = lambda count: None,
    ) -> None:
        self._encode, self._thread, self._window, self._size, self._seen = encode, thread, window, size, seen
        self._waiting: list[tuple[Measures, asyncio.Future[Encoded]]] = []
        self._count = 0  # measures that wait
        self._busy: asyncio.Task[None] | None = None

    async def encode(self, measures: Measures) -> Encoded:
        """The vectors of some measures, and how unusual they are.

        Raises:
            WembedError: as `Embedder.transform`, of these measures; those of other requests do not matter.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Encoded] = loop.create_future()
        self._waiting.append((measures, future))
        self._count += len(measures)
        if not self._busy:  # else those that wait are taken when it is done
            self._gather(first=len(self._waiting) == 1)
        return await future

    def _gather(self, *, first: bool) -> None:
        """Start at once where there is enough, and else after the window, which begins with the first that waits."""
        if self._count >= self._size or not self._window:
            self._start()
        elif first:
            asyncio.get_running_loop().call_later(self._window, self._start)

    def _start(self) -> None:
        if self._busy or not self._waiting:
            return
        ends = np.cumsum([len(measures) for measures, _ in self._waiting])
        taken = int(np.searchsorted(ends, self._size)) + 1  # the request that fills it goes along
        asked, self._waiting = self._waiting[:taken], self._waiting[taken:]
        self._count -= sum(len(measures) for measures, _ in asked)
        self._busy = asyncio.create_task(self._together(asked))
        self._busy.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._busy = None
        if self._waiting:  # those of clients that have just been answered come soon: they go along
            self._gather(first=True)

    async def _together(self, asked: list[tuple[Measures, "asyncio.Future[Encoded]"]]) -> None:
        asked = [(measures, future) for measures, future in asked if not future.done()]  # whoever asked may be gone
        if not asked:
            return
        loop = asyncio.get_running_loop()
        ends = np.cumsum([0, *(len(measures) for measures, _ in asked)]).tolist()
        try:
            found = await loop.run_in_executor(self._thread, self._encoded, [measures for measures, _ in asked])
        except Exception as error:
            if isinstance(error, WembedError) and len(asked) > 1:  # of whose measures? Each is asked by itself
                for one in asked:
                    await self._together([one])
                return
            for _, future in asked:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), start, stop in zip(asked, ends, ends[1:], strict=False):
            if not future.done():
                future.set_result(found.part(start, stop))

    def _encoded(self, parts: list[Measures]) -> Encoded:
        together = parts[0] if len(parts) == 1 else Measures.concatenate(parts)
        self._seen(len(together))
        return self._encode(together)

"""Service: what is asked of a collection, by many at once; encoding, solving and changing it in a thread each."""

import asyncio
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import asdict
from http import HTTPStatus
from importlib.metadata import version
from typing import Any, TypeVar

import numpy as np

from wembed.errors import MeasureError, SettingError
from wembed.geometry import Decoded, barycenter, interpolate
from wembed.geometry.decoded import THIN
from wembed.geometry.interpolations import TURNS
from wembed.geometry.means import most_couplings
from wembed.index import Index
from wembed.measures import Measures
from wembed.records import Distances, Entry
from wembed.serve.batches import Batches, Encoded
from wembed.serve.charts import Chart, Charts, methods
from wembed.serve.collection import Collection
from wembed.serve.limits import Limits
from wembed.serve.metrics import Metrics
from wembed.serve.schemas import AddOptions, BarycenterOptions, DistanceOptions, InterpolateOptions, NeighborsOptions
from wembed.transport.parallel import exact_distances
from wembed.trust import Asked, answered, answered_each

__all__ = ["NotWrittenError", "Service"]

_LOOKED_AT = 200  # measures, to say in what box they lie
_WHOLE = re.compile(r"-?[0-9]{1,19}")  # more digits than any id has

Found = TypeVar("Found")


class NotWrittenError(Exception):
    """A change that could not be put on the disk, and was not made."""


class Service:
    """The verbs of the service, each checked against the limits.

    Args:
        collection: what is asked; closed with the service.
        limits: what one request may ask for.
        window: seconds for which the encoder waits for requests to encode together.
        size: measures, from which on it waits for no more; 1 encodes each request by itself.
        n_jobs: processes for exact distances, or -1 for one a core.
    """

    def __init__(
        self,
        collection: Collection,
        limits: Limits | None = None,
        window: float = 0.001,
        size: int = 256,
        n_jobs: int = -1,
    ) -> None:
        self.collection = collection
        self.limits = limits or Limits()
        self.metrics = Metrics(lambda: len(collection.index))
        self._n_jobs = n_jobs
        self._encoder, self._solver, self._writer = (
            ThreadPoolExecutor(1, name) for name in ("wembed-encoder", "wembed-solver", "wembed-writer")
        )
        self._charts = Charts()
        self._batches = Batches(self._encoded, self._encoder, window, size, self.metrics.encoded.observe)

    def close(self) -> None:
        """Finish what was begun, and write what has changed."""
        for thread in (self._encoder, self._solver, self._writer):
            thread.shutdown()
        self.collection.close()

    async def embed(self, measures: Measures) -> Encoded:
        """Vectors, and how unusual the measures are."""
        self.collection.index.embedder.check_like(measures)
        return await self._batches.encode(measures)

    async def distance(self, a: Measures, b: Measures, asked: DistanceOptions) -> Distances:
        """Of the first of a and the first of b, and so on."""
        if len(a) != len(b):
            raise SettingError(
                f"there are {len(a)} measures in a and {len(b)} in b; give as many, or ask for /v1/pairwise"
            )
        self.limits.check("pairs", len(a), "distances")
        left, right = await self._both(a, b)
        every = np.arange(len(a))
        predicted = self._model.paired(left.vectors, right.vectors)
        plain = _plain(predicted, np.maximum(left.unusualness, right.unusualness))
        if asked.plain:
            return plain
        self._check_solves(asked, len(a), len(a) + len(b), a.sizes, b.sizes)
        cost, trust = self._model.cost, self._model.trust
        if asked.exact:
            pairs = np.stack([every, every + len(a)], axis=1)
            return await self._solved(_exactly, plain, Measures.concatenate([a, b]), pairs, cost, self._n_jobs)
        one, other = (a, left.vectors), (b, right.vectors)
        return await self._solved(answered, trust, one, other, (every, every), _asked(asked), self._n_jobs)

    async def pairwise(self, a: Measures, b: Measures | None, asked: DistanceOptions) -> Distances:
        """Of each of a and each of b, or of a itself."""
        count = len(a) * len(a if b is None else b)
        self.limits.check("pairs", count, "distances")
        left, right = await self._both(a, a if b is None else b)
        predicted = self._model.between(left.vectors, right.vectors).astype(np.float64)
        plain = _plain(predicted, np.maximum(left.unusualness[:, None], right.unusualness[None]))
        if asked.plain:
            return plain
        solved = count if b is not None else len(a) * (len(a) - 1) // 2
        sides = len(a) + (0 if b is None else len(b))
        self._check_solves(asked, solved, sides, a.sizes, (a if b is None else b).sizes)
        cost, trust = self._model.cost, self._model.trust
        if asked.exact:
            rows, columns = np.divmod(np.arange(count), count // len(a))
            pairs = np.stack([rows, columns + (0 if b is None else len(a))], axis=1)
            together = a if b is None else Measures.concatenate([a, b])
            return await self._solved(_exactly, plain, together, pairs, cost, self._n_jobs)
        other = None if b is None else (b, right.vectors)
        return await self._solved(answered_each, trust, (a, left.vectors), other, _asked(asked), self._n_jobs)

    async def neighbors(self, queries: Measures, asked: NeighborsOptions) -> dict[str, Any]:
        """The nearest measures of each."""
        self.limits.check("pairs", len(queries) * max(asked.k, asked.rerank), "neighbours")
        if asked.rerank:
            self.limits.check("solves", len(queries) * asked.rerank, "exact distances")
        encoded = await self.embed(queries)
        index = self.collection.index
        among = None if asked.among is None else self.ids(asked.among)
        exact = asked.rerank > 0 or asked.recall is not None
        found = await self._in(
            self._solver if exact else self._encoder,
            lambda: index.query(
                queries,
                asked.k,
                asked.rerank,
                self._n_jobs,
                recall=asked.recall,
                among=among,
                vectors=encoded.vectors,
                before=self.limits.spending(),
            ),
        )
        self.metrics.solved.inc(int(found.solved.sum()))
        known = await asyncio.to_thread(index.labels_at, found.ids)
        labels = np.array(known, dtype=object).reshape(found.ids.shape)
        return vars(found) | {"labels": labels, "unusualness": encoded.unusualness}

    async def barycenter(self, measures: Measures, asked: BarycenterOptions) -> Decoded:
        """The barycenter of measures."""
        used = np.arange(len(measures)) if asked.weights is None else np.flatnonzero(asked.weights)
        sizes = measures.sizes[used[used < len(measures)]]  # more weights than measures are told of later
        most = most_couplings(asked.method, len(sizes))
        fewer = "ask for a polish, which takes one for each measure, or of fewer"
        self.limits.check("solves", most, "exact couplings, the most that this barycenter may take,", way_out=fewer)
        first = THIN if asked.method == "polish" else int(sizes.max(initial=0))
        self._check_made(asked.method, 1, np.full(most, first), np.resize(sizes, most))
        return await self._made(
            asked.method,
            lambda model: barycenter(model, measures, asked.weights, method=asked.method, normalize=asked.normalize),
        )

    async def interpolate(self, a: Measures, b: Measures, asked: InterpolateOptions) -> Decoded:
        """What lies on the way from the first of a to the first of b, and so on."""
        sizes = (a.sizes, b.sizes)
        if asked.method == "polish":
            sizes = (np.tile(np.concatenate(sizes), TURNS), np.full(TURNS * (len(a) + len(b)), THIN))
        elif asked.method == "learned" or len(a) != len(b):
            sizes = (a.sizes[:0], b.sizes[:0])
        self._check_made(asked.method, len(a) * len(asked.t), *sizes)
        return await self._made(asked.method, lambda model: interpolate(model, a, b, asked.t, method=asked.method))

    def _check_made(self, method: str, count: int, n: np.ndarray, m: np.ndarray) -> None:
        self.limits.check("measures", count, "measures that are made", HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        if method == "learned":
            atoms = count * self._model.check_decoder().most_atoms
            self.limits.check("atoms", atoms, "atoms that are made", HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        self.limits.spending()(n, m)

    async def _made(self, method: str, make: Callable[[Any], Decoded]) -> Decoded:
        model = copy(self._model)
        model.n_jobs = self._n_jobs
        return await self._in(self._encoder if method == "learned" else self._solver, lambda: make(model))

    async def add(self, measures: Measures, asked: AddOptions) -> np.ndarray:
        """Take measures in; their ids, once they are on the disk."""
        encoded = await self.embed(measures)
        ids = None if asked.ids is None else self.ids(asked.ids)
        return await self._changed(
            lambda: self.collection.add(
                measures, encoded.vectors, ids, asked.labels, asked.payloads, update=asked.update
            )
        )

    async def remove(self, ids: list[int | str]) -> int:
        """Forget measures; once that is on the disk, how many."""
        gone = [*dict.fromkeys(self.ids(ids))]
        await self._changed(lambda: self.collection.remove(gone))
        return len(gone)

    async def entry(self, wanted: str) -> dict[str, Any] | None:
        """What is known of a measure, if it is there."""
        index, (one,) = self.collection.index, self.ids([wanted])
        found = await asyncio.to_thread(index.get, one)
        return None if found is None else _told(found, index)

    async def entries(self, wanted: list[int | str]) -> list[dict[str, Any]]:
        """What is known of some measures."""
        self.limits.check("measures", len(wanted), "measures", HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        index, ids = self.collection.index, [*dict.fromkeys(self.ids(wanted))]
        self._check_atoms(index, ids)
        return [_told(one, index) for one in await asyncio.to_thread(lambda: [index[one] for one in ids])]

    async def chart(self, method: str) -> Chart:
        """The collection on two axes."""
        index = self.collection.index
        return await self._in(self._solver, lambda: self._charts.of(index, method))

    def placed(self, measures: Measures) -> Measures:
        """As the index has its own: for a cost matrix, on the support that it is for.

        Raises:
            MeasureError: a point that is not on that support, or images of another size than those of the index.
        """
        index = self.collection.index
        mine, theirs = index.grid, measures.grid
        if mine is not None and theirs is not None and mine != theirs:
            raise MeasureError(
                f"images are of {' x '.join(map(str, theirs))} pixels, and those of the index of "
                f"{' x '.join(map(str, mine))}; resize them, or send points and weights"
            )
        support = None if isinstance(self._model.cost.metric, str) else index.support
        if support is None or np.array_equal(measures.support, support):
            return measures
        return measures.on(support, mine)

    @property
    def support(self) -> np.ndarray | None:
        """Of the histograms that the index holds; None where it holds images or clouds."""
        index = self.collection.index
        return index.support if index.grid is None else None

    def known(self, ids: list[int | str]) -> Measures:
        """The measures of the collection with these ids."""
        index, wanted = self.collection.index, self.ids(ids)
        self._check_atoms(index, wanted)
        return index.at(wanted)

    def _check_atoms(self, index: Index, ids: list[int | str]) -> None:
        count = int(index.sizes_at(ids).sum())
        self.limits.check("atoms", count, "atoms", HTTPStatus.REQUEST_ENTITY_TOO_LARGE)

    def ids(self, given: list[int | str]) -> list[int | str]:
        """As the collection has them: 17 for "17", where they are numbers."""
        if not self.collection.index.numbered:
            return given
        return [int(one) if isinstance(one, str) and _WHOLE.fullmatch(one) else one for one in given]

    async def info(self) -> dict[str, Any]:
        """What this service is."""
        index, model = self.collection.index, self._model
        some = await asyncio.to_thread(lambda: index.at(index.first(_LOOKED_AT)))
        return {
            "wembed": version("wembed"),
            "measures": len(index),
            "cost": model.cost.as_dict(),
            "encoder": model.encoder_,
            "dim": model.dim_,
            "residuals": None if model.residuals is None else asdict(model.residuals),
            "point_dim": some.dim,
            "grid": some.grid,
            "box": [some.points().min(axis=0).tolist(), some.points().max(axis=0).tolist()],
            "maps": methods(),
            "method": index.method,
            "errors": model.errors_,
            "decoder": None if model.decoder is None else model.decoder.kind,
            "highest_level": model.trust.highest_level,
            "limits": asdict(self.limits),
        }

    @property
    def _model(self) -> Any:
        return self.collection.index.embedder

    async def _both(self, a: Measures, b: Measures) -> tuple[Encoded, Encoded]:
        """What the encoder makes of both sides, in one call."""
        if a is b:
            left = await self.embed(a)
            return left, left
        for one in (a, b):
            self._model.check_like(one)
        encoded = await self._batches.encode(Measures.concatenate([a, b]))
        return encoded.part(0, len(a)), encoded.part(len(a), len(a) + len(b))

    def _check_solves(self, asked: DistanceOptions, pairs: int, sides: int, n: np.ndarray, m: np.ndarray) -> None:
        """By the largest measures of both sides, as if each pair were of these."""
        if asked.exact or asked.budget is None:
            count = pairs if asked.exact or asked.tolerance is not None else 0
        else:
            count = min(pairs, asked.budget)
        count += self._model.trust.references * sides if asked.refine else 0
        self.limits.check("solves", count, "exact distances")
        self.limits.spending()(np.full(count, n.max(initial=0)), np.full(count, m.max(initial=0)))

    async def _solved(self, solve: Callable[..., Distances], *arguments: Any) -> Distances:
        found = await self._in(self._solver, lambda: solve(*arguments))
        self.metrics.solved.inc(found.solved)
        return found

    async def _changed(self, change: Callable[[], Found]) -> Found:
        try:
            return await self._in(self._writer, change)
        except OSError as error:
            raise NotWrittenError(
                f"nothing was changed, as it could not be written: {error.strerror or error}"
            ) from error

    async def _in(self, thread: ThreadPoolExecutor, work: Callable[[], Found]) -> Found:
        return await asyncio.get_running_loop().run_in_executor(thread, work)

    def _encoded(self, measures: Measures) -> Encoded:
        vectors = self._model.encode(measures)
        return Encoded(vectors, self._model.trust.unusualness(measures, vectors))


def _told(found: Entry, index: Index) -> dict[str, Any]:
    measure = {"points": found.measure.support, "weights": found.measure.weights, "grid": index.grid}
    return {"id": found.id, "label": found.label, "payload": found.payload, "vector": found.vector} | measure


def _asked(options: DistanceOptions) -> Asked:
    return Asked(options.interval, options.tolerance, options.budget, bool(options.refine))


def _plain(predicted: np.ndarray, unusualness: np.ndarray) -> Distances:
    """Predicted distances, of which no more is asked."""
    return Distances(predicted, predicted, predicted, predicted, np.zeros(predicted.shape, dtype=bool), unusualness)


def _exactly(plain: Distances, measures: Measures, pairs: np.ndarray, cost: Any, n_jobs: int) -> Distances:
    """All of them solved; each once, where both orders of a pair are asked for."""
    ordered = np.sort(pairs, axis=1)
    ordered, place = np.unique(ordered, axis=0, return_inverse=True)
    apart = ordered[:, 0] != ordered[:, 1]
    distances = np.zeros(len(ordered))
    distances[apart] = exact_distances(measures, ordered[apart], cost, n_jobs)
    exact = distances[place.ravel()].reshape(plain.predicted.shape)
    return Distances(
        plain.predicted, exact, exact, exact, np.ones(exact.shape, dtype=bool), plain.unusualness, int(apart.sum())
    )

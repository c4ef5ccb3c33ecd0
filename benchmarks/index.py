"""A million embeddings of 128 numbers on two cores: is the graph built in minutes, and one query answered in 2 ms?"""

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import arguments, is_step, measured, peak_megabytes, record

from wembed import Embedder, Measures, TrainingSettings
from wembed.learning.augmentation import distorted
from wembed.nearest import Graph, nearest
from wembed.readers import digits

BLOCK = 50_000  # measures that are there at once
QUERIES = 1_000


def embed(folder: Path, size: int) -> dict[str, float]:
    """Vectors of distorted digits, and of as many queries of other digits."""
    measures, _ = digits()
    few = size < BLOCK
    training = TrainingSettings(steps=20) if few else None
    known = measures[:300] if few else measures[:9_000]
    embedder = Embedder(encoder="quantiles", pairs=600 if few else 5_000, training=training, verbose=True).fit(known)

    def vectors(source: Measures, count: int, seed: int) -> np.ndarray:
        return np.asarray(embedder.encode(distorted(source, count, seed)))

    blocks = [min(BLOCK, size - start) for start in range(0, size, BLOCK)]
    made = np.concatenate([vectors(measures[:9_000], count, seed) for seed, count in enumerate(blocks)])
    np.save(folder / "vectors.npy", made)
    np.save(folder / "queries.npy", vectors(measures[9_000:], QUERIES, len(blocks)))
    return {"vectors": len(made), "dim": made.shape[1]}


def build(folder: Path, size: int) -> dict[str, float]:
    """The graph, onto the disk."""
    graph = Graph.build(np.load(folder / "vectors.npy", mmap_mode="r")[:size])
    graph.write(folder / "graph")
    return {"megabytes_on_disk": (folder / "graph").stat().st_size / 1e6}


def ask(folder: Path, size: int) -> dict[str, float]:
    """The ten nearest of one query at a time, and how many of them are right."""
    graph, vectors = Graph.read(folder / "graph"), np.load(folder / "vectors.npy", mmap_mode="r")[:size]
    queries = np.load(folder / "queries.npy")
    for query in queries[:100]:  # the pages of the graph are read from the disk
        graph.nearest(query[None], vectors, 10)
    seconds, found = [], np.empty((len(queries), 10), dtype=np.int64)
    for row, query in enumerate(queries):
        started = time.perf_counter()
        found[row] = graph.nearest(query[None], vectors, 10)[0][0]
        seconds.append(time.perf_counter() - started)
    peak = peak_megabytes()
    started = time.perf_counter()
    graph.nearest(queries, vectors, 10)
    together = (time.perf_counter() - started) / len(queries)
    exactly, _distances = nearest(queries, vectors, 10)
    hits = [len(set(a) & set(b)) for a, b in zip(exactly.tolist(), found.tolist(), strict=True)]
    return {
        "milliseconds_median": 1e3 * float(np.median(seconds)),
        "milliseconds_p95": 1e3 * float(np.quantile(seconds, 0.95)),
        "milliseconds_each_of_many": 1e3 * together,
        "recall_at_10": sum(hits) / (10 * len(hits)),
        "peak_megabytes_of_queries": peak,
    }


def flat(folder: Path, size: int) -> dict[str, float]:
    """The same without a graph."""
    vectors, queries = np.load(folder / "vectors.npy", mmap_mode="r")[:size], np.load(folder / "queries.npy")
    nearest(queries[:1], vectors, 10)
    seconds = []
    for query in queries[:30]:
        started = time.perf_counter()
        nearest(query[None], vectors, 10)
        seconds.append(time.perf_counter() - started)
    started = time.perf_counter()
    nearest(queries, vectors, 10)
    together = (time.perf_counter() - started) / len(queries)
    return {"milliseconds_median": 1e3 * float(np.median(seconds)), "milliseconds_each_of_many": 1e3 * together}


def main() -> None:
    if is_step({"embed": embed, "build": build, "ask": ask, "flat": flat}):
        return
    chosen = arguments(__doc__ or "")
    sizes = (2_000,) if chosen.smoke else (10_000, 50_000, 200_000, 1_000_000)
    chosen.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=chosen.work) as place:
        run = partial(measured, __file__, folder=Path(place))
        results: dict[str, Any] = {"embed": run("embed", size=sizes[-1])}
        results["sizes"] = {
            str(size): {step: run(step, size=size) for step in ("build", "ask", "flat")} for size in sizes
        }
    record("index", __doc__ or "", results, smoke=chosen.smoke)


if __name__ == "__main__":
    main()

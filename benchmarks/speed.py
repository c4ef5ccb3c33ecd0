"""How fast are encoding, distances between vectors and the import, and how much memory does each step take?"""

import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import alternate, arguments, is_step, measured, record, spread

STEPS = ("read", "precompute", "fit", "fit_1e6_pairs", "transform", "index", "query")


def encoding(embedder: Any, measures: Any, runs: int) -> tuple[dict[str, float], dict[str, float]]:
    """Vectors alone, and with a look at how unusual the measures are."""
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(1)
    with threadpool_limits(1):
        alone, looked_at = alternate(runs, partial(embedder.encode, measures), partial(embedder.transform, measures))
    torch.set_num_threads(os.cpu_count() or 1)
    return spread([len(measures) / s for s in alone]), spread([len(measures) / s for s in looked_at])


def distances(vectors: np.ndarray, runs: int) -> dict[str, Any]:
    """All pairs of the vectors, against the bare matrix product that bounds them, at its best in blocks of rows."""
    from wembed.euclidean import distances_between

    out = np.empty((len(vectors), len(vectors)), dtype=np.float32)

    def product() -> None:
        for start in range(0, len(vectors), 100):
            np.matmul(vectors[start : start + 100], vectors.T, out=out[start : start + 100])

    ours, bound = alternate(runs, lambda: distances_between(vectors, vectors, out), product)
    return {
        "vectors": list(vectors.shape),
        "distances_per_second": spread([out.size / s for s in ours]),
        "share_of_matrix_product": spread([b / a for a, b in zip(ours, bound, strict=True)]),
    }


def imports(runs: int) -> dict[str, float]:
    command = [sys.executable, "-c", "import wembed"]
    bare = [sys.executable, "-c", "pass"]
    ours, empty = alternate(
        runs, partial(subprocess.run, command, check=True), partial(subprocess.run, bare, check=True)
    )
    return spread([a - b for a, b in zip(ours, empty, strict=True)])


def quickstart(folder: Path, smoke: bool) -> float:
    """Seconds of the README's first command, from nothing; its smallest run is among the tests."""
    command = [sys.executable, "-m", "wembed", "quickstart", "--out", str(folder / "quickstart")]
    started = time.perf_counter()
    subprocess.run([*command, *(["--help"] if smoke else [])], check=True, capture_output=True)
    return time.perf_counter() - started


def step_memory(folder: Path, smoke: bool) -> dict[str, float]:
    """Peak memory of each step in a process of its own; of the largest process where there are several."""
    return {step: measured(__file__, step, folder, int(smoke))["peak_megabytes"] for step in STEPS}


def run_step(step: str, folder: Path, smoke: int) -> dict[str, float]:
    from wembed import Embedder, Index, TrainingSettings, load, precompute
    from wembed.readers import digits

    measures, _ = digits()
    pairs = 400 if smoke else 20_000
    encoder = "quantiles" if smoke else "auto"  # what suits so many; of few pairs optimal maps are learned as well
    if step == "precompute":
        precompute(measures, folder / "distances", pairs)
    elif step == "fit":
        training = TrainingSettings(steps=20) if smoke else None
        embedder = Embedder(encoder=encoder, training=training)
        embedder.fit(measures, distances=folder / "distances").save(folder / "model")
    elif step == "fit_1e6_pairs":
        million(load(folder / "model"), measures, encoder, 10_000 if smoke else 1_000_000)
    elif step == "transform":
        load(folder / "model").transform(measures)
    elif step == "index":
        Index(load(folder / "model"), measures).save(folder / "index")
    elif step == "query":
        Index.load(folder / "index").query(measures[:100], k=10)
    return {}


def million(embedder: Any, measures: Any, encoder: str, count: int) -> None:
    """Train on as many pairs as asked for; predicted distances stand in for exact ones, which memory cannot tell."""
    from wembed import Embedder, TrainingSettings
    from wembed.euclidean import paired_distances
    from wembed.solved import Solved
    from wembed.transport.pairs import Split, split_pairs

    split = Split.draw(len(measures))
    plan = split_pairs(split, count, 0)
    pairs = plan.take(0, len(plan))
    vectors = embedder.transform(measures)
    near = np.concatenate([paired_distances(vectors[p[:, 0]], vectors[p[:, 1]]) for p in np.array_split(pairs, 50)])

    class StandIn:
        most, added, seconds = len(pairs), 0, 0.0

        def solved(self, *_: Any) -> Solved:
            return Solved.divide(split, measures, pairs, near.astype(np.float64), len(pairs), "stand-in")

    class Taught(Embedder):
        def _source(self, *_: Any, **__: Any) -> StandIn:
            return StandIn()

    Taught(encoder=encoder, training=TrainingSettings(steps=200)).fit(measures)


def main() -> None:
    if is_step({step: partial(run_step, step) for step in STEPS}):
        return
    chosen = arguments(__doc__ or "")
    with tempfile.TemporaryDirectory() as folder:
        peaks = step_memory(Path(folder), chosen.smoke)
        from wembed import load
        from wembed.readers import digits

        measures, _ = digits()
        embedder, runs = load(Path(folder) / "model"), 1 if chosen.smoke else 7
        vectors = embedder.transform(measures)
        encoded, transformed = encoding(embedder, measures, runs)
        results = {
            "encoded_per_second_one_core": encoded,
            "transformed_per_second_one_core": transformed,
            "distances": distances(vectors[:1000] if chosen.smoke else vectors, runs),
            "quickstart_seconds": quickstart(Path(folder), chosen.smoke),
            "import_seconds": imports(runs),
            "peak_megabytes": peaks,
        }
    record("speed", __doc__ or "", results, smoke=chosen.smoke)


if __name__ == "__main__":
    main()

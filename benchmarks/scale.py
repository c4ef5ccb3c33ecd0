"""Do 10^8 pairs in a store, and a million measures of 100 atoms, stay within the memory of a laptop?"""

import tempfile
from pathlib import Path

import numpy as np
from common import arguments, is_step, measured, record

from wembed import DistanceStore, Measures
from wembed.readers import digits
from wembed.transport.pairs import Split, split_pairs
from wembed.transport.parallel import block_boundaries

STEPS = ("plan", "write", "read", "query", "build", "map")
ROWS = 500_000  # of a shard as it is added
ATOMS = 100


def plan(_: Path, size: int) -> dict[str, float]:
    """Draw the pairs of the shipped digits and cut them into blocks of equal work."""
    measures = digits()[0]
    pairs = split_pairs(Split.draw(len(measures)), size, 0)
    return {"pairs": len(pairs), "blocks": len(block_boundaries(measures, pairs)) - 1}


def write(folder: Path, size: int) -> dict[str, float]:
    """Add made-up distances shard by shard, as precompute does with solved ones."""
    rng = np.random.default_rng(0)
    store = DistanceStore.create(folder / "store", {"pairs": size})
    for start in range(0, size, ROWS):
        pairs = np.sort(rng.integers(0, 1_000_000, (min(ROWS, size - start), 2)), axis=1)
        store.add(start, pairs, rng.gamma(9.0, 0.4, len(pairs)))
    return {"pairs": len(store), "megabytes_on_disk": sum(f.stat().st_size for f in (folder / "store").iterdir()) / 1e6}


def read(folder: Path, _: int) -> dict[str, float]:
    """Go through all pairs once, with checksums."""
    total = rows = 0.0
    for pairs, distances in DistanceStore(folder / "store").batches():
        total += float(distances.sum())
        rows += len(pairs)
    return {"pairs": rows, "mean": total / rows}


def query(folder: Path, _: int) -> dict[str, float]:
    """The same mean by DuckDB, which knows nothing of wembed."""
    import duckdb  # imported late: for this comparison only

    table = duckdb.connect().execute(f"select count(*), avg(distance) from '{folder}/store/*.parquet'")
    ((rows, mean),) = table.fetchall()
    return {"pairs": rows, "mean": mean}


def build(folder: Path, size: int) -> dict[str, float]:
    """Measures of 100 atoms each, from images, and onto the disk."""
    images = np.zeros((size, 784), dtype=np.uint8)
    rng = np.random.default_rng(0)
    shape = rng.permutation(784)[:ATOMS]
    for start in range(0, size, 10_000):
        block = images[start : start + 10_000]
        places = (shape + rng.integers(0, 784, (len(block), 1))) % 784
        np.put_along_axis(block, places, rng.integers(1, 256, places.shape).astype(np.uint8), axis=1)
    measures = Measures.from_images(images.reshape(size, 28, 28))
    measures.save(folder / "measures")
    held = sum(array.nbytes for array in (measures.weights, measures.atoms) if array is not None)
    return {"measures": size, "bytes_per_atom": held / len(measures.weights), "megabytes": held / 1e6}


def map_(folder: Path, _: int) -> dict[str, float]:
    """Open them as memory maps and take a thousand."""
    measures = Measures.load(folder / "measures")
    some = measures[np.sort(np.random.default_rng(0).permutation(len(measures))[:1000])]
    held = next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "RssAnon" in line)
    return {
        "measures": len(measures),
        "mean_row_of_some": float(some.centroids()[:, 0].mean()),
        "megabytes_not_mapped": int(held) / 1024,  # the rest of the peak are pages of the files, given back on demand
    }


def main() -> None:
    if is_step(dict(zip(STEPS, (plan, write, read, query, build, map_), strict=True))):
        return
    chosen = arguments(__doc__ or "")
    results = {}
    chosen.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=chosen.work) as folder:
        for step in STEPS:
            pairs, measures = (100_000, 2_000) if chosen.smoke else (100_000_000, 1_000_000)
            size = measures if step in ("build", "map") else pairs
            results[step] = measured(__file__, step, Path(folder), size)
    record("scale", __doc__ or "", results, smoke=chosen.smoke)


if __name__ == "__main__":
    main()

"""Wasserstein Wormhole in an environment of its own: `train` it for so many seconds, then `encode` measures.

This file runs with the Python of that environment and imports nothing of wembed; benchmarks/peers.py calls it.
"""

import argparse
import importlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

ITERATIONS = 200  # of Sinkhorn's


class Clock:
    """In place of the package's progress bar: steps until the time is over."""

    seconds = 0.0

    def __init__(self, steps: int, **_: Any) -> None:
        self.steps = steps

    def __iter__(self) -> Iterator[int]:
        started = time.perf_counter()
        for step in range(self.steps):
            if step and time.perf_counter() - started > self.seconds:
                print(f"steps: {step} in {time.perf_counter() - started:.1f} s", flush=True)
                return
            yield step

    def set_description(self, text: str) -> None:
        """What the package says of its losses is not shown."""

    def refresh(self) -> None:
        """There is nothing to draw."""


def model(file: Path) -> Any:
    """A Wormhole with its defaults, on the measures of a file.

    Only the search for a number of Sinkhorn's iterations is left out, which takes minutes by itself.
    """
    from wassersteinwormhole.Wormhole import Wormhole

    clouds, weights = read(file)
    return Wormhole(clouds, weights, num_sinkhorn_iter=ITERATIONS)


def read(file: Path) -> tuple[list[np.ndarray], list[np.ndarray]]:
    with np.load(file, allow_pickle=False) as arrays:
        points, weights, offsets = arrays["points"], arrays["weights"], arrays["offsets"]
    cuts = offsets[1:-1]
    return np.split(points.astype(np.float32), cuts), np.split(weights.astype(np.float32), cuts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("verb", choices=["train", "encode"])
    parser.add_argument("--seconds", type=float, default=60.0, help="after which training stops, compilation included")
    parser.add_argument("--known", type=Path, required=True, help="the measures to learn from, .npz")
    parser.add_argument("--weights", type=Path, required=True, help="where the weights are kept")
    parser.add_argument("--measures", type=Path, help="the measures to encode, .npz")
    parser.add_argument("--out", type=Path, help="where their vectors go, .npy")
    chosen = parser.parse_args()

    import flax.serialization

    wormhole = model(chosen.known)
    if chosen.verb == "train":
        Clock.seconds = chosen.seconds
        vars(importlib.import_module("wassersteinwormhole.Wormhole"))["trange"] = Clock
        wormhole.train()
        chosen.weights.write_bytes(flax.serialization.msgpack_serialize(wormhole.params))
        return
    wormhole.params = flax.serialization.msgpack_restore(chosen.weights.read_bytes())
    clouds, weights = read(chosen.measures)
    vectors = np.asarray(wormhole.encode(clouds, weights))
    np.save(chosen.out, vectors / np.sqrt(vectors.shape[1]))  # its distance is the mean over the numbers, not the sum


if __name__ == "__main__":
    main()

"""What several test files share: a few real digits, their exact distances, and an Embedder fitted on them."""

import os
from pathlib import Path

import pytest

# Two processes run the tests; threads that each of them started would wait for those of the other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Before wembed: what a module whose types are checked is the first to import is compiled anew.
import ot  # noqa: F401
import scipy.stats  # noqa: F401
import sklearn.cluster  # noqa: F401
import torch  # noqa: F401
from halved import halved_digits

import wembed


@pytest.fixture(scope="session")
def some_digits() -> wembed.Measures:
    measures, _ = halved_digits()
    return measures[:300]


@pytest.fixture(scope="session")
def digit_store(some_digits: wembed.Measures, tmp_path_factory: pytest.TempPathFactory) -> wembed.DistanceStore:
    return wembed.precompute(some_digits, tmp_path_factory.mktemp("store") / "distances", pairs=1_600)


@pytest.fixture(scope="session")
def quick() -> wembed.TrainingSettings:
    return wembed.TrainingSettings(steps=60, checks=6)


@pytest.fixture(scope="session")
def fitted(
    some_digits: wembed.Measures, digit_store: wembed.DistanceStore, quick: wembed.TrainingSettings
) -> wembed.Embedder:
    return wembed.Embedder(encoder="quantiles", training=quick).fit(some_digits, distances=digit_store)


@pytest.fixture(scope="session")
def run_folder(fitted: wembed.Embedder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    fitted.save(folder / "model")
    return folder

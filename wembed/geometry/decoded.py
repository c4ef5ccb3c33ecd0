"""What is made, with its vectors; and what all that makes it has in common."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32

from wembed.embedder import Embedder
from wembed.errors import SettingError
from wembed.measures import Measure, Measures
from wembed.options import whole
from wembed.transport.between import thinned

__all__ = ["THIN", "Decoded", "check_count", "check_labels", "check_method", "decoded_thin"]

METHODS = ("learned", "polish", "exact")
THIN = 150  # atoms of what a polish starts from: of 28 x 28 digits, where more gain less than they cost


@dataclass(frozen=True, eq=False)
class Decoded:
    """Measures that were made, and their vectors.

    Attributes:
        measures: what was made.
        vectors: what it was decoded from; of measures that were made by couplings, those that they are encoded to.
    """

    measures: Measures
    vectors: Float32[np.ndarray, "made dim"]

    @classmethod
    def of(cls, embedder: Embedder, measures: Measures) -> "Decoded":
        """Measures that couplings made."""
        return cls(measures, embedder.encode(measures))

    @classmethod
    def from_vectors(cls, embedder: Embedder, vectors: np.ndarray) -> "Decoded":
        """What vectors decode to."""
        single = np.asarray(vectors, dtype=np.float32)
        return cls(embedder.decode(single), single)


def decoded_thin(embedder: Embedder, vector: np.ndarray) -> Measure:
    """What a vector decodes to, with few enough atoms for couplings to be soon solved."""
    return thinned(embedder.decode(np.asarray(vector, dtype=np.float32)[None])[0], THIN)


def check_method(embedder: Embedder, method: str) -> None:
    """Refuse a method that is none, or not for this model.

    Raises:
        SettingError: it is; or there is no decoder, and it takes one.
    """
    if method not in METHODS:
        raise SettingError(f"method={method!r}; choose one of {', '.join(METHODS)}")
    if method != "exact":
        embedder.check_decoder()
    if method != "learned" and not embedder.cost.splits_translation:
        raise SettingError(f"method={method!r} is for euclidean W_2; under this cost there is 'learned'")


def check_labels(labels: Any, count: int) -> np.ndarray:
    """Labels, one for each measure.

    Raises:
        SettingError: more or fewer of them, or none.
    """
    if len(labels) != count or not count:
        raise SettingError(f"there are {count} measures and {len(labels)} labels; give one for each")
    return np.asarray(labels)


def check_count(name: str, count: Any, most: int, of: str) -> int:
    """A number from 1 to the most there can be.

    Raises:
        SettingError: it is none.
    """
    whole(name, count, 1)
    if count > most:
        raise SettingError(f"{name}={count}; there are at most {most} of {of}")
    return int(count)

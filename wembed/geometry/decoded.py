"""What is made, with its vectors; and what all that makes it has in common."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32

from wembed.embedder import Embedder
from wembed.errors import SettingError
from wembed.measures import Measure, Measures
from wembed.options import whole
from wembed.transport.between import thinned

__all__ = ["THIN", "Decoded", "check_asked", "check_count", "check_labels", "decoded_thin"]

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


def check_asked(embedder: Embedder, method: str, *collections: Measures) -> None:
    """Refuse a method that is none, or not for this model, and measures that are not.

    Raises:
        SettingError: it is; or there is no decoder, and it takes one; or no Embedder.
        NotFittedError: the Embedder has not been fitted.
        MeasureError: as `Embedder.transform`.
    """
    if not isinstance(embedder, Embedder):
        raise SettingError(f"give a fitted Embedder, or one that wembed.load brought back, and no {_kind(embedder)}")
    if method not in METHODS:
        raise SettingError(f"method={method!r}; choose one of {', '.join(METHODS)}")
    for measures in collections:
        embedder.check_like(measures)
    if method != "learned" and not embedder.cost.splits_translation:
        raise SettingError(f"method={method!r} is for euclidean W_2; under this cost there is 'learned'")
    if method != "exact":
        embedder.check_decoder()


def check_labels(labels: Any, count: int) -> np.ndarray:
    """Labels, one for each measure.

    Raises:
        SettingError: more or fewer of them, or none; or neither all numbers nor all text.
    """
    if not isinstance(labels, Sequence | np.ndarray) or isinstance(labels, str):
        if not hasattr(labels, "__array__"):
            raise SettingError(f"labels are a {_kind(labels)}; give a list or an array, one for each measure")
        labels = np.asarray(labels)
    shape = np.shape(labels) if isinstance(labels, np.ndarray) else (len(labels),)
    if shape != (count,) or not count:
        have = f"{shape[0]}" if len(shape) == 1 else f"an array {shape} of"
        raise SettingError(f"there are {count} measures and {have} labels; give one for each")
    each = labels.tolist() if isinstance(labels, np.ndarray) else list(labels)
    text = [isinstance(one, str) for one in each]
    if not all(text) and (any(text) or not all(isinstance(one, int | float | np.number) for one in each)):
        raise SettingError("labels have to be all numbers or all text; turn them into text")
    owner = np.asarray(each)
    if owner.dtype.kind == "f" and not np.isfinite(owner).all():
        raise SettingError("a label is NaN or infinite; leave its measure out, or give it a label")
    return owner


def _kind(value: Any) -> str:
    return type(value).__name__


def check_count(name: str, count: Any, most: int, of: str) -> int:
    """A number from 1 to the most there can be.

    Raises:
        SettingError: it is none.
    """
    whole(name, count, 1)
    if count > most:
        raise SettingError(f"{name}={count}; give at most {most}: {of}")
    return int(count)

"""Warnings of measures unlike those that a model learned from."""

import sys
import warnings

import numpy as np

from wembed.errors import UnusualWarning

__all__ = ["UNUSUAL", "warn", "warn_of_unusual", "warn_of_unusual_sides"]

UNUSUAL = 2.5  # unusualness that is warned of: a long way beyond the most unusual hundredth
_RARE = 0.01  # share of usual measures with an unusualness above 1, known to a factor of two or so
_CHANCE = 1e-4  # that as many of a collection are above it, below which the collection is warned of
_WRAPPERS = ("wembed", "sklearn", "jaxtyping")  # packages whose frames are not the caller's


def warn_of_unusual(
    unusualness: np.ndarray,
    whose: str = "measures",
    so: str = "distances may be further off than the errors of the model say",
    each: int = 1,
) -> None:
    """Warn of measures that are unusual by themselves, and of many that are so together, where there are some.

    Args:
        unusualness: of each measure.
        whose: what they are.
        so: what is to be thought of their answers.
        each: how many measures each is the unusualness of, which is that of the most unusual one.
    """
    from scipy.stats import binom  # imported late: slow to load

    rare, strange = int((unusualness > 1).sum()), int((unusualness >= UNUSUAL).sum())
    together = rare > binom.isf(_CHANCE, len(unusualness), 2 * each * _RARE)
    if together or strange:
        many = rare if together else strange
        least = f"above 1, as of 1 in {1 / _RARE:.0f} usual ones" if together else f"at least {UNUSUAL}"
        warn(
            f"{many:,} of {len(unusualness):,} {whose} {'is' if many == 1 else 'are'} unlike those that the model "
            f"learned from: {so} (unusualness {least}; the highest, {unusualness.max():.2g}, is that of number "
            f"{int(unusualness.argmax())}, counted from 0)",
            UnusualWarning,
        )


def warn_of_unusual_sides(unusualness: np.ndarray, sides: int) -> None:
    """Warn of the measures of pairs.

    Args:
        unusualness: of the more unusual measure of each pair: (n,), or (n, m) for each of one side and each of another.
        sides: collections that are paired: 1 where one is with itself.
    """
    if unusualness.ndim == 1:
        warn_of_unusual(unusualness, "pairs, by the more unusual measure of each,", each=2)
    elif unusualness.size and sides == 1:
        warn_of_unusual(unusualness.diagonal())
    elif unusualness.size:  # the least of a row is its own, or that of the most usual measure of the other side
        warn_of_unusual(unusualness.min(axis=1), "measures of a")
        warn_of_unusual(unusualness.min(axis=0), "measures of b")


def warn(sentence: str, category: type[Warning]) -> None:
    """A warning that points at the line that called wembed."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] in _WRAPPERS:
        level, frame = level + 1, frame.f_back
    warnings.warn(sentence, category, stacklevel=level)

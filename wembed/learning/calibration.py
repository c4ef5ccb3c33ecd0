"""Calibration of predicted distances on validation pairs."""

import numpy as np
import torch
from jaxtyping import Float64, Int64
from scipy.optimize import minimize_scalar

from wembed.learning.losses import Loss, distance_error

__all__ = ["fitted_scale", "shrunken_scale"]

_GROUPS = 20  # of measures, that are left out in turn


def fitted_scale(
    learned: Float64[np.ndarray, " k"],
    fixed: Float64[np.ndarray, " k"],
    exact: Float64[np.ndarray, " k"],
    loss: Loss = distance_error,
) -> float:
    """The factor s on the learned part that makes sqrt(fixed^2 + (s learned)^2) fit the exact distances best.

    Distances of unseen pairs come out shrunk or stretched a little as a whole; a factor keeps the embedding Euclidean.

    Args:
        learned: distances between the learned parts of the vectors.
        fixed: distances between the parts that are exact (the centroids).
        exact: W_p.
        loss: of squared predicted and exact distances.

    Returns:
        The factor with the least loss; 1 where there is nothing to fit.
    """
    power = float(learned @ learned)
    if power == 0:
        return 1.0
    guess = float(np.sqrt(max(exact @ exact - fixed @ fixed, 0.0) / power)) or 1.0
    wanted, beside, made = (torch.from_numpy(part) for part in (exact, np.square(fixed), np.square(learned)))

    def error(scale: float) -> float:
        return float(loss(beside + scale**2 * made, wanted))

    found = minimize_scalar(error, bounds=(guess / 4, guess * 4), method="bounded", options={"xatol": 1e-6 * guess})
    return float(found.x)


def shrunken_scale(
    learned: Float64[np.ndarray, " k"],
    fixed: Float64[np.ndarray, " k"],
    exact: Float64[np.ndarray, " k"],
    pairs: Int64[np.ndarray, "k 2"],
    loss: Loss = distance_error,
) -> float:
    """The fitted factor, drawn towards 1 by as much as so few measures may be wrong about it.

    By the share se^2 / (s - 1)^2, at most all of it (James and Stein 1961, the positive part). The standard error se is
    that of the jackknife that leaves out groups of measures, with all pairs they are in (Kott 2001): pairs that share a
    measure are not independent.

    Args:
        learned: as for `fitted_scale`.
        fixed: as for `fitted_scale`.
        exact: as for `fitted_scale`.
        pairs: the two measures of each distance.
        loss: as for `fitted_scale`.
    """
    scale = fitted_scale(learned, fixed, exact, loss)
    measures, place = np.unique(pairs, return_inverse=True)
    count = min(_GROUPS, len(measures) - 2)
    if scale == 1.0 or count < 2:
        return 1.0
    group = np.random.default_rng(0).permutation(len(measures)) % count
    groups, without = group[place.reshape(-1, 2)], np.empty(count)
    for number in range(count):
        kept = (groups != number).all(axis=1)
        without[number] = fitted_scale(learned[kept], fixed[kept], exact[kept], loss)
    variance = (count - 1) * float(without.var())
    return 1.0 + (scale - 1.0) * max(0.0, 1.0 - variance / (scale - 1.0) ** 2)

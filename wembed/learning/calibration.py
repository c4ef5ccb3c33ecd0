"""Calibration of predicted distances on validation pairs."""

import numpy as np
import torch
from jaxtyping import Float64
from scipy.optimize import minimize_scalar

from wembed.learning.losses import Loss, distance_error

__all__ = ["fitted_scale"]


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

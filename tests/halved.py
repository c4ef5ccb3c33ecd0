"""Digits at half their resolution: as real as whole ones, and solved eight times as fast."""

import functools

import numpy as np

from wembed import Measures
from wembed.readers import digits

SIDE = 14


@functools.cache
def halved_digits() -> tuple[Measures, np.ndarray]:
    """The digits, each pixel the mean of four, and their labels."""
    measures, labels = digits()
    images = measures.histograms().reshape(-1, SIDE, 2, SIDE, 2)
    return Measures.from_images(images.mean(axis=(2, 4))), labels

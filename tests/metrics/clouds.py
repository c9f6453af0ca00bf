"""Made-up patients as points: distances without images, for thousands of audits."""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist

from medgan.metrics.copies import Neighbours
from medgan.metrics.gate import Normal


def neighbours(queries: np.ndarray, points: np.ndarray, patients: np.ndarray) -> Neighbours:
    """The nearest of all points (N, D), and the nearest of another patient."""
    distance = cdist(queries, points)
    nearest = distance.argmin(1)
    other = np.where(patients[nearest][:, None] == patients[None], np.inf, distance).min(1)
    zeros = np.zeros(len(queries), int)
    return Neighbours(nearest, distance.min(1), other, zeros, zeros.astype(bool))


SIDE = 1e5
"""Of the cube of patients: no two images are as near as an image that is repeated."""


class Cloud:
    """Patients anywhere in a cube, their images around them; features are another, noisy look at the same points.

    Args:
        rng: Draws everything.
        dim: Dimensions that patients differ in.
        within: Distance of a patient's images from each other, in sides of the cube; 0 makes them the same.
    """

    def __init__(self, rng: np.random.Generator, dim: int, within: float) -> None:
        self.rng, self.dim, self.within = rng, dim, within
        self.look = rng.normal(size=(dim, dim)) / dim**0.5

    def patients(self, count: int, images: int) -> tuple[np.ndarray, np.ndarray]:
        """Images (count * images, dim) and the patient of each."""
        centres = np.repeat(self.rng.random((count, self.dim)) * SIDE, images, 0)
        return centres + self.rng.normal(size=centres.shape) * self.within * SIDE, np.repeat(np.arange(count), images)

    def features(self, points: np.ndarray) -> np.ndarray:
        return points @ self.look

    def compare(self, queries: np.ndarray, train: np.ndarray, people: np.ndarray) -> tuple[Neighbours, Neighbours]:
        """Neighbours by grey values and by features."""
        return neighbours(queries, train, people), neighbours(self.features(queries), self.features(train), people)

    def normal(self, train: np.ndarray, people: np.ndarray, held_out: int, images: int) -> Normal:
        """Of so many held-out patients; of halves of the training patients where there are none."""
        if held_out:
            points, keys = self.patients(held_out, images)
            return Normal(*self.compare(points, train, people), keys, np.ones(len(points), bool))
        inside = people % 2 == 0
        grey, features = self.compare(train[inside], train[~inside], people[~inside])
        return Normal(grey, features, people[inside], np.ones(int(inside.sum()), bool), halves=2)

"""Fréchet distance of two sets of features, each taken as a normal distribution: what FID and FRRea are made of.

|μa - μb|² + tr(Sa) + tr(Sb) - 2 tr √(Sa Sb). The last trace is the sum of the singular values of A Bᵀ, with A and B the
centred features over √(n - 1), or triangular factors of them: no root of a rounding error is taken. The published tools
take √ of the product itself. With more samples than dimensions both agree to 1e-9; with fewer the product has
eigenvalues that are nothing but rounding, whose roots raise the trace by 1e-6 and more. Then the default follows the
published tools, and `exact` does not.
Shapes: n samples, D dimensions.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dyad.metrics.checks import require_finite

Array = NDArray[np.float64]
Numbers = NDArray[np.floating[Any]]
SINGULAR = 1e-6
"""Covariances whose smallest root is this share of the largest, or less, count as singular."""


def frechet(features_a: Numbers, features_b: Numbers, *, exact: bool = False) -> float:
    """Squared distance (FID) of features [n, D] from features [m, D]; two samples each at least; 0: equal moments."""
    if features_a.ndim != 2 or features_b.ndim != 2 or features_a.shape[1] != features_b.shape[1]:
        raise ValueError(
            f"features [n, D] and [m, D] are needed; got {list(features_a.shape)} and {list(features_b.shape)}; "
            "take both from the same network and layer"
        )
    if min(len(features_a), len(features_b)) < 2:
        raise ValueError("two samples on either side are needed to have a covariance; got fewer; add samples")
    (mean_a, a), (mean_b, b) = _centred(features_a, "features_a"), _centred(features_b, "features_b")
    shared = _shared(a, b) if exact or not (_singular(a) or _singular(b)) else _shared_as_published(a, b)
    return float(np.square(mean_a - mean_b).sum() + np.square(a).sum() + np.square(b).sum() - 2 * shared)


def _centred(features: Numbers, name: str) -> tuple[Array, Array]:
    """Mean [D] and the factor F [n, D] of the covariance Fᵀ F."""
    require_finite(features, session=name, what="features")
    x = features.astype(np.float64)
    mean = x.mean(axis=0)
    return mean, (x - mean) / np.sqrt(len(x) - 1)


def _triangular(factor: Array) -> Array:
    """A factor [min(n, D), D] of the same covariance."""
    if len(factor) <= factor.shape[1]:
        return factor
    return np.asarray(np.linalg.qr(factor, mode="r"), np.float64)


def _singular(factor: Array) -> bool:
    """Has the covariance fewer directions than dimensions? (One is always lost to the mean.)"""
    if len(factor) <= factor.shape[1]:
        return True
    values = np.linalg.eigvalsh(factor.T @ factor)
    return bool(values[0] <= SINGULAR**2 * values[-1])


def _shared(a: Array, b: Array) -> float:
    """The trace of √(Sa Sb), exactly."""
    return float(np.linalg.svd(_triangular(a) @ _triangular(b).T, compute_uv=False).sum())


def _shared_as_published(a: Array, b: Array) -> float:
    """The trace of √(Sa Sb) from the eigenvalues of the product; negative ones, all rounding, have no real root."""
    values = np.linalg.eigvals((a.T @ a) @ (b.T @ b))
    return float(np.sum(np.real(np.sqrt(values.astype(np.complex128)))))

"""Powers of matrices of any rank, their gradient, and the covariances of measures."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import nn

from wembed.learning.roots import CovarianceRoots, symmetric_power


class Nothing(nn.Module):
    def forward(self, points: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(points)


def roots(dim: int, most: int = 50, exponents: tuple[float, ...] = (0.5,)) -> CovarianceRoots:
    return CovarianceRoots(dim, most, exponents, Nothing()).double()


def law(points: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(points)[None], torch.full((1, len(points), 1), 1 / len(points), dtype=torch.double)


@pytest.mark.parametrize("atoms", [3, 4, 5, 40])
@pytest.mark.parametrize("exponent", [0.375, 0.5, 1.0])
def test_it_is_the_power_of_the_covariance_with_more_atoms_than_dimensions_or_fewer(
    atoms: int, exponent: float
) -> None:
    points = np.random.default_rng(atoms).normal(size=(atoms, 4)) * [3, 2, 1, 0.5]
    (found,) = roots(4, exponents=(exponent,))(*law(points))
    values, vectors = np.linalg.eigh(np.cov(points.T, bias=True))
    power = (vectors * values.clip(0) ** exponent) @ vectors.T
    scaled = power[np.triu_indices(4)] * np.where(np.eye(4)[np.triu_indices(4)] == 1, 1, np.sqrt(2))
    np.testing.assert_allclose(found[0], scaled, atol=5e-3)
    assert float(found.norm()) == pytest.approx(np.linalg.norm(power), rel=1e-3)


def test_square_roots_of_covariances_that_commute_are_as_far_apart_as_their_normal_laws() -> None:
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    raw = rng.normal(size=(60, 5))
    white = np.linalg.solve(np.linalg.cholesky(np.cov(raw.T, bias=True)), (raw - raw.mean(axis=0)).T).T
    clouds = [white * rng.uniform(0.5, 3, 5) @ turn.T for _ in range(2)]
    a, b = (np.cov(cloud.T, bias=True) for cloud in clouds)
    middle = sqrtm(sqrtm(a) @ b @ sqrtm(a)).real
    bures = np.sqrt(np.trace(a + b - 2 * middle))
    (first,), (second,) = (roots(5)(*law(cloud)) for cloud in clouds)
    assert float((first - second).norm()) == pytest.approx(bures, rel=1e-3)


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_the_gradient_is_that_of_the_power_whatever_the_rank(rank: int) -> None:
    torch.manual_seed(0)
    half = torch.randn(3, 4, rank, dtype=torch.double, requires_grad=True)
    aim = torch.randn(3, 4, 4, dtype=torch.double)

    def power(factor: torch.Tensor) -> torch.Tensor:
        gram = factor @ factor.transpose(1, 2)
        return ((symmetric_power(gram, -0.5) @ gram) * aim).sum()

    (gradient,) = torch.autograd.grad(power(half), half)
    step = 1e-6 * torch.randn_like(half)
    with torch.no_grad():
        change = float(power(half + step) - power(half - step)) / 2
    assert float((gradient * step).sum()) == pytest.approx(change, rel=1e-3)


def test_equal_eigenvalues_one_atom_and_numbers_too_large_keep_their_place() -> None:
    torch.manual_seed(0)
    points = torch.randn(4, 6, 3, requires_grad=True)
    weights = torch.full((4, 6, 1), 1 / 6)
    places = torch.stack([torch.cat([torch.eye(3), -torch.eye(3)]), torch.ones(6, 3), points[2], 1e30 * points[3]])
    (found,) = CovarianceRoots(3, 50, (0.5,), Nothing())(places, weights)
    assert torch.isfinite(found[:3]).all()
    assert torch.isnan(found[3]).all()
    np.testing.assert_allclose(found[1].detach(), 0, atol=1e-4)
    found[:3].square().sum().backward()  # type: ignore[no-untyped-call]
    assert points.grad is not None
    assert torch.isfinite(points.grad[:3]).all()


def test_many_dimensions_are_seen_along_the_axes_of_most_variance() -> None:
    rng = np.random.default_rng(0)
    inside, turn = rng.normal(size=(30, 4)), np.linalg.qr(rng.normal(size=(9, 9)))[0][:, :4]
    seen = roots(9, most=4)
    seen.start_from(torch.from_numpy(np.cov((inside @ turn.T).T)))
    (low,), (high,) = roots(4)(*law(inside)), seen(*law(inside @ turn.T))
    assert high.shape == low.shape == (1, 10)
    assert float(high.norm()) == pytest.approx(float(low.norm()), rel=1e-6)

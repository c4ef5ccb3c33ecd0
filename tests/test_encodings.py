"""The encoders that an Embedder can have: which suits which measures, and what holds of each of them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import wembed
from wembed import Embedder, GroundCost, Measures, TrainingSettings
from wembed.learning import sinkhorn
from wembed.learning.encodings import suited
from wembed.learning.geometric import TransportEncoding

DIM = 6


def clouds(seed: int, count: int = 40, atoms: int = 7, dim: int = DIM) -> Measures:
    rng = np.random.default_rng(seed)
    points = [rng.normal(size=(int(rng.integers(1, atoms + 1)), dim)) * np.linspace(2, 1, dim) for _ in range(count)]
    return Measures.from_point_clouds(points, [rng.uniform(0.1, 1, len(cloud)) for cloud in points])


def bags() -> Measures:
    """Five words of 300 each, in eight dimensions."""
    rng = np.random.default_rng(0)
    words = rng.normal(size=(300, 8))
    return Measures.from_point_clouds([words[rng.choice(300, 5, replace=False)] for _ in range(120)])


@pytest.fixture(scope="module", params=["quantiles", "transport", "sinkhorn", "linear"])
def encoder(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def learned(encoder: str) -> Embedder:
    training = TrainingSettings(steps=15, checks=3)
    return Embedder(encoder=encoder, pairs=300, training=training, n_jobs=1).fit(clouds(0))


def reordered(points: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.random.default_rng(3).permutation(len(points))
    return points[order], weights[order]


def split(points: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([points, points[:1]]), np.concatenate([weights[:1] / 2, weights[1:], weights[:1] / 2])


def padded(points: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([points, [[1e3] * points.shape[1]]]), np.append(weights, 0)


@pytest.mark.parametrize("same", [reordered, split, padded])
def test_the_vector_depends_on_the_measure_alone(learned: Embedder, same: Callable[..., tuple]) -> None:
    fresh = clouds(1)
    again = [same(measure.support, measure.weights) for measure in fresh]
    other = Measures.from_point_clouds([points for points, _ in again], [weights for _, weights in again])
    np.testing.assert_allclose(learned.transform(other), learned.transform(fresh), atol=2e-3)


def test_a_vector_does_not_depend_on_its_company(learned: Embedder) -> None:
    fresh = clouds(1)
    together = learned.transform(fresh)
    alone = np.concatenate([learned.transform(fresh[i : i + 1]) for i in range(len(fresh))])
    np.testing.assert_allclose(alone, together, atol=2e-3)


def test_translates_are_as_far_apart_as_they_were_moved(learned: Embedder) -> None:
    fresh = clouds(1)
    shift = np.arange(DIM) + 1.0
    moved = Measures.from_point_clouds(
        [measure.support + shift for measure in fresh], [measure.weights for measure in fresh]
    )
    np.testing.assert_allclose(learned.distance(fresh, moved), np.linalg.norm(shift), rtol=1e-3)


def test_a_saved_model_gives_the_same_vectors(learned: Embedder, encoder: str, tmp_path: Path) -> None:
    learned.save(tmp_path)
    loaded = wembed.load(tmp_path)
    assert loaded.encoder_ == learned.encoder_ == encoder
    np.testing.assert_array_equal(loaded.transform(clouds(1)), learned.transform(clouds(1)))


@pytest.mark.parametrize("order", [1, 2])
def test_vectors_have_the_length_that_is_asked_for(encoder: str, order: int, tmp_path: Path) -> None:
    settings = TrainingSettings(steps=5, checks=1)
    short = Embedder(order=order, encoder=encoder, dim=9, pairs=300, training=settings, n_jobs=1).fit(clouds(0))
    short.save(tmp_path)
    found = short.transform(clouds(1))
    assert found.shape == (40, 9)
    np.testing.assert_array_equal(wembed.load(tmp_path).transform(clouds(1)), found)


@pytest.mark.parametrize("encoder", ["transport", "sinkhorn"])
def test_optimal_maps_say_more_than_slices_of_few_atoms_in_many_dimensions(encoder: str) -> None:
    measures, errors = bags(), {}
    for name in ("quantiles", encoder):
        settings = TrainingSettings(steps=15, checks=3)
        embedder = Embedder(encoder=name, pairs=1_000, training=settings, n_jobs=1).fit(measures)
        report = wembed.evaluate(embedder, measures[embedder.split_.test], pairs=60, queries=0, n_jobs=1)
        errors[name] = report.errors["wembed"].relative_error
    assert errors[encoder] < 0.75 * errors["quantiles"]


@pytest.mark.parametrize(("dim", "numbers"), [(2, 4 * 128 * 2 + 2), (3, 4 * 64 * 3 + 3)])
def test_optimal_maps_are_finer_in_the_plane_and_learned_slowly_from_few_pairs(dim: int, numbers: int) -> None:
    encoding = TransportEncoding.build(GroundCost(), clouds(0, atoms=30, dim=dim), None, 0)
    assert encoding.dim == numbers
    assert encoding.rate_for(2_000) < encoding.rate_for(8_000) < encoding.rate_for(16_000) == encoding.rate_for(10**6)


def test_a_start_is_what_linear_transport_gives_and_training_makes_no_worse(encoder: str) -> None:
    settings = TrainingSettings(steps=40, learning_rate=1e-2)
    wild = Embedder(encoder=encoder, pairs=300, training=settings, n_jobs=1).fit(clouds(0))
    errors = [error for _, error in wild.history_]
    assert errors[0] < 0.35 * wild.mean_distance_
    assert min(errors) <= errors[0]


@pytest.mark.parametrize("learns", [False, True])
def test_what_was_learned_is_kept_only_where_it_is_closer_than_linear_transport(learns: bool, tmp_path: Path) -> None:
    planar = not learns  # where too little is learned, slices say less than optimal maps
    measures = clouds(0, count=300, atoms=30, dim=2) if planar else bags()
    suits = "quantiles" if planar else "sinkhorn"
    settings = TrainingSettings(auxiliary=0, **({"steps": 40} if learns else {"steps": 1, "learning_rate": 1e-9}))
    found = {
        encoder: Embedder(encoder=encoder, pairs=2_000, training=settings, n_jobs=1).fit(measures)
        for encoder in ("auto", "linear", suits)
    }
    errors = {encoder: embedder.learning_curve_.rounds[-1].error for encoder, embedder in found.items()}
    assert errors["auto"] == pytest.approx(min(errors["linear"], errors[suits]))
    chosen = found["auto"]
    assert chosen.encoder_ == (suits if learns else "linear")
    np.testing.assert_allclose(chosen.transform(measures), found[chosen.encoder_].transform(measures), rtol=1e-5)
    chosen.save(tmp_path)
    loaded = wembed.load(tmp_path)
    assert (loaded.encoder_, loaded.dim_, loaded.history_) == (chosen.encoder_, chosen.dim_, chosen.history_)
    np.testing.assert_array_equal(loaded.transform(measures[:9]), chosen.transform(measures[:9]))


@pytest.mark.parametrize("dim", [2, 5])
def test_measures_that_are_all_the_same_are_no_distance_apart(dim: int) -> None:
    points = np.arange(3.0 * dim).reshape(3, dim)
    same = Measures.from_point_clouds([points[[*range(3)] * k] for k in range(1, 41)])  # the atoms in ever more parts
    embedder = Embedder(pairs=300, training=TrainingSettings(steps=5), n_jobs=1).fit(same)
    assert embedder.encoder_ != "linear"
    np.testing.assert_allclose(embedder.pairwise(same), 0, atol=1e-5)


@pytest.mark.parametrize("softness", [1e-3, 1.0, 1e3])
def test_sinkhorn_stays_finite_whatever_the_softness_and_the_weights(softness: float) -> None:
    import torch

    torch.manual_seed(0)
    module = sinkhorn.SinkhornEncoder(3, 16, centred=True)
    with torch.no_grad():
        module.log_softness.fill_(np.log(softness))
        module.reference.normal_()
    atoms = torch.randn(5, 8, 4)
    atoms[..., -1] = torch.rand(5, 8) ** 40  # down to 1e-40
    atoms[0, 1:, -1] = 0
    atoms[..., -1] /= atoms[..., -1].sum(dim=1, keepdim=True)
    module(atoms).square().sum().backward()
    gradients = [parameter.grad for parameter in module.parameters()]
    assert all(gradient is not None and torch.isfinite(gradient).all() for gradient in gradients)


def test_blocks_without_gradient_agree_with_one_block_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    torch.manual_seed(0)
    module = sinkhorn.SinkhornEncoder(3, 16, centred=False, out=5)
    with torch.no_grad():
        module.reference.normal_(std=0.1)
    atoms = torch.rand(9, 4, 4)
    atoms[..., -1] /= atoms[..., -1].sum(dim=1, keepdim=True)
    whole = module(atoms).detach()
    monkeypatch.setattr(sinkhorn, "_BLOCK_NUMBERS", 2 * 16 * 4)
    with torch.no_grad():
        torch.testing.assert_close(module(atoms), whole)
        assert module(atoms[:0]).shape == (0, 5)


@pytest.mark.parametrize(
    ("cost", "measures", "name"),
    [
        (GroundCost(), clouds(0, dim=1), "quantiles"),
        (GroundCost(order=1), clouds(0, dim=2)[np.arange(200) % 40], "quantiles"),
        (GroundCost(order=1), clouds(0, dim=2)[np.arange(199) % 40], "transport"),
        (GroundCost("great-circle", 1), clouds(0, dim=2), "sinkhorn"),
        (GroundCost(), clouds(0, dim=50), "sinkhorn"),
        (GroundCost(), Measures.from_point_clouds([np.eye(100)[:, :3] * scale for scale in (1, 2)]), "transport"),
    ],
)
def test_the_encoder_follows_the_measures(cost: GroundCost, measures: Measures, name: str) -> None:
    assert suited(cost, measures) == name

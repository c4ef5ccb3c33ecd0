"""The encoders that an Embedder can have: which suits which measures, and what holds of each of them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import wembed
import wembed.embedder as embedder_module
import wembed.learned as learned_module
from wembed import Embedder, GroundCost, Measures, TrainingSettings
from wembed.euclidean import distances_between
from wembed.learned import Candidate, Learned
from wembed.learning import geometric, sinkhorn
from wembed.learning.calibration import fitted_scale
from wembed.learning.encoders import PerceptronEncoder
from wembed.learning.encoding import Encoding
from wembed.learning.encodings import slower, suited
from wembed.learning.features import LinearTransport
from wembed.learning.geometric import CombinedEncoding, LinearEncoding, QuantileEncoding, TransportEncoding
from wembed.learning.training import Examples
from wembed.solved import Solved
from wembed.transport.pairs import Split

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


@pytest.fixture(scope="module", params=["quantiles", "transport", "sinkhorn", "linear"])  # combined: test_turns
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


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("order", [1, 2])
def test_a_model_of_optimal_maps_is_saved_with_its_turns(order: int, dim: int, tmp_path: Path) -> None:
    settings = {"encoder": "transport", "pairs": 300, "n_jobs": 1, "training": TrainingSettings(steps=3)}
    embedder = Embedder(order=order, **settings).fit(clouds(0, dim=dim))
    embedder.save(tmp_path)
    np.testing.assert_array_equal(wembed.load(tmp_path).encode(clouds(1, dim=dim)), embedder.encode(clouds(1, dim=dim)))


@pytest.mark.parametrize("encoder", ["transport", "sinkhorn"])
def test_optimal_maps_say_more_than_slices_of_few_atoms_in_many_dimensions(
    encoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(geometric, "_MAPPED", 1)  # next to nothing is learned from them here
    measures, errors = bags(), {}
    for name in ("quantiles", encoder):
        settings = TrainingSettings(steps=5, checks=1)
        embedder = Embedder(encoder=name, pairs=1_000, training=settings, references=0, n_jobs=1).fit(measures)
        report = wembed.evaluate(embedder, measures[embedder.split_.test], pairs=60, queries=0, n_jobs=1)
        errors[name] = report.errors["wembed"].relative_error
    assert errors[encoder] < 0.75 * errors["quantiles"]


@pytest.mark.parametrize(
    ("dim", "references", "atoms"), [(1, 2, 256), (2, 1, 256), (3, 1, 256), (8, 2, 256), (16, 2, 128), (100, 2, 64)]
)
def test_optimal_maps_are_coarser_where_they_would_be_long_unless_nothing_is_learned(
    dim: int, references: int, atoms: int
) -> None:
    measures = clouds(0, 40, 30, dim)
    assert TransportEncoding.build(GroundCost(), measures, None, 0).dim == references * atoms * dim + dim
    assert LinearEncoding.build(GroundCost(), measures, None, 0).dim == 256 * dim + dim


def test_optimal_maps_are_learned_slowly_from_few_pairs() -> None:
    for kind in (TransportEncoding, CombinedEncoding):
        encoding = kind.build(GroundCost(), clouds(0, 30, 6, 2), None, 0)
        assert encoding.rate_for(2_000) < encoding.rate_for(8_000) < encoding.rate_for(16_000) == kind.learning_rate


@pytest.mark.parametrize(
    ("kind", "share"), [(QuantileEncoding, 0.5), (TransportEncoding, 0.5), (CombinedEncoding, 1.0)]
)
def test_from_many_pairs_learning_is_slower_unless_it_is_slow_as_it_is(
    kind: type[QuantileEncoding | TransportEncoding | CombinedEncoding], share: float
) -> None:
    encoding = kind.build(GroundCost(), clouds(0, 30, 6, 2), None, 0)
    assert encoding.rate_for(256_000) == pytest.approx(share * kind.learning_rate)


@pytest.mark.parametrize(("metric", "dim"), [("euclidean", 2), ("euclidean", 3), ("great-circle", 2)])
@pytest.mark.parametrize("order", [1, 2])
def test_optimal_maps_are_learned_from_measures_in_five_turns_and_encoded_in_three(
    order: float, metric: str, dim: int
) -> None:
    cost, measures = GroundCost(metric, order), clouds(0, 12, 30, dim)
    encoding = TransportEncoding.build(cost, measures, None, 7)
    done: list[tuple[int, int]] = []
    copies = encoding.copies(measures, 0.5, 7, progress=lambda now, total: done.append((now, total)))
    placed, dim = encoding.placed(measures), len(encoding.centre)
    turns = cost.isometries(dim, 5, np.random.default_rng([7, 3]), 15)
    assert len(copies) == 5
    for copy, turn in zip(copies, turns, strict=True):
        moved = replace(placed, support=(placed.support - encoding.centre) @ turn.T + encoding.centre)
        shown = LinearTransport(encoding.features.references[:1])(moved) / np.float32(0.5)
        np.testing.assert_allclose(copy[:, : shown.shape[1]], shown, atol=1e-5)
        if not encoding.exact_dim:
            np.testing.assert_allclose(copy[:, -dim:], (moved.centroids() - encoding.centre) / 0.5, atol=1e-5)
    assert done[-1][0] == done[-1][1]
    assert sorted(done) == done

    pairs, known = np.array([[0, 1], [1, 2]]), np.ones(2)
    examples = Examples(copies, encoding.exact_part(measures), pairs, known, pairs, known)
    encoding.start_from(examples)
    encoding.module.eval()
    with torch.no_grad():
        alone = [encoding.module(torch.from_numpy(copy)).numpy() for copy in copies[:3]]
    encoding.finish(examples)
    inputs = encoding.inputs(measures, 0.5)
    np.testing.assert_allclose(encoding.inputs_of(copies), inputs, atol=1e-5)
    with torch.no_grad():
        vectors = encoding.module(torch.from_numpy(inputs)).numpy()
    assert vectors.shape[1] == encoding.dim - encoding.exact_dim
    whole = np.sqrt(np.mean([np.square(distances_between(part, part)) for part in alone], axis=0))
    np.testing.assert_allclose(distances_between(vectors, vectors), whole, atol=1e-4)


@pytest.mark.parametrize(("dim", "numbers"), [(None, 3 * 768 + 3), (40, 40), (771, 771)])
def test_vectors_of_maps_in_turns_are_as_long_as_is_asked_for(dim: int | None, numbers: int) -> None:
    training = TrainingSettings(steps=3)
    settings = {"encoder": "transport", "dim": dim, "pairs": 200, "n_jobs": 1, "training": training, "calibration": 0}
    embedder = Embedder(**settings).fit(clouds(0, 100, 12, 3))
    assert embedder.encode(clouds(1, 5, 12, 3)).shape == (5, numbers)


def test_optimal_maps_are_learned_from_fewer_turns_where_measures_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geometric, "_MAPPED", 60)
    monkeypatch.setattr(geometric, "_MAPPED_IN_TURNS", 60)
    turned, other = {12: 5, 15: 4, 20: 3, 61: 3}, {10: 3, 15: 2, 16: 1, 61: 1}
    for kind, dim, counts in (
        (TransportEncoding, 3, turned),
        (CombinedEncoding, 2, turned),
        (TransportEncoding, 5, other),
    ):
        for count, copies in counts.items():
            many = clouds(0, 3, 2, dim)[np.zeros(count, dtype=int)]
            assert len(kind.build(GroundCost(), many, None, 0).copies(many, 1.0, 0)) == copies


def test_on_the_globe_slices_are_learned_from_in_five_turns_and_slowly() -> None:
    measures = clouds(0, 30, 6, 2)
    globe, plane = (
        QuantileEncoding.build(GroundCost(metric), measures, None, 0) for metric in ("great-circle", "euclidean")
    )
    assert len(globe.copies(measures, 1.0, 0)) == 5
    assert len(plane.copies(measures, 1.0, 0)) == 3
    assert globe.rate_for(1_000) == plane.rate_for(1_000) / 4


def test_optimal_maps_are_found_once_where_turns_make_others_of_the_measures() -> None:
    measures = clouds(0, 3, 2, 2)
    assert len(TransportEncoding.build(GroundCost("cityblock"), measures, None, 0).copies(measures, 1.0, 0)) == 1
    assert len(LinearEncoding.build(GroundCost(), measures, None, 0).copies(measures, 1.0, 0)) == 1


def test_a_start_is_what_linear_transport_gives_and_training_makes_no_worse(encoder: str) -> None:
    settings = TrainingSettings(steps=40, learning_rate=1e-2)
    wild = Embedder(encoder=encoder, pairs=300, training=settings, n_jobs=1).fit(clouds(0))
    errors = [error for _, error in wild.history_]
    assert errors[0] < 0.35 * wild.mean_distance_
    assert min(errors) <= errors[0]


@pytest.mark.parametrize(
    ("kind", "order"), [(QuantileEncoding, 2), (TransportEncoding, 1), (TransportEncoding, 2), (CombinedEncoding, 2)]
)
def test_a_start_has_the_scale_that_fits_the_training_pairs(kind: type[Encoding], order: int) -> None:
    measures, cost = clouds(0, 40, 7, 2), GroundCost(order=order)
    pairs = np.stack(np.triu_indices(40, 1), axis=1)
    distances = wembed.exact_distances(measures, pairs, cost, n_jobs=1)
    encoding = kind.build(cost, measures, None, 0)
    inputs, exact_part = encoding.copies(measures, 1.0, 0), encoding.exact_part(measures)
    encoding.start_from(Examples(inputs, exact_part, pairs, distances, pairs, distances))
    assert isinstance(encoding.module, PerceptronEncoder)
    with torch.no_grad():
        vectors = encoding.module.linear(torch.from_numpy(inputs[0])).double().numpy()
    exact_part = exact_part.astype(np.float64)
    made, fixed = (np.linalg.norm(part[pairs[:, 0]] - part[pairs[:, 1]], axis=1) for part in (vectors, exact_part))
    assert fitted_scale(made, fixed, distances, encoding.loss) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("measures", "learns", "encoder"),
    [
        pytest.param(bags(), True, "sinkhorn", id="what suits"),
        pytest.param(clouds(0, 300, 6, 2), False, "transport", id="else optimal maps alone"),
        pytest.param(clouds(0, 60, 200, 20), False, "linear", id="else to one of many atoms"),
    ],
)
def test_what_was_learned_is_kept_only_where_it_is_closer_than_linear_transport(
    measures: Measures, learns: bool, encoder: str, tmp_path: Path
) -> None:
    settings = TrainingSettings(auxiliary=0, **({"steps": 40} if learns else {"steps": 1, "learning_rate": 1e-9}))
    store = wembed.precompute(measures, tmp_path / "distances", pairs=1_000, n_jobs=1)
    found = {
        name: Embedder(encoder=name, training=settings, references=0, n_jobs=1).fit(measures, distances=store)
        for name in dict.fromkeys(["auto", "linear", suited(GroundCost(), measures), encoder])
    }
    chosen, errors = found["auto"], {name: one.learning_curve_.rounds[-1].error for name, one in found.items()}
    assert chosen.encoder_ == encoder
    assert errors["auto"] == pytest.approx(min(errors.values()))
    np.testing.assert_allclose(chosen.encode(measures), found[encoder].encode(measures), rtol=1e-5)
    chosen.save(tmp_path / "model")
    loaded = wembed.load(tmp_path / "model")
    assert (loaded.encoder_, loaded.dim_, loaded.history_) == (chosen.encoder_, chosen.dim_, chosen.history_)
    np.testing.assert_array_equal(loaded.encode(measures[:9]), chosen.encode(measures[:9]))


@pytest.mark.parametrize("residual", [False, True])
def test_short_vectors_are_made_of_the_long_ones_that_are_closest(residual: bool, tmp_path: Path) -> None:
    measures = clouds(0, 60, 200, 20)
    store = wembed.precompute(measures, tmp_path, pairs=1_000, n_jobs=1)
    nothing_learned = TrainingSettings(steps=1, learning_rate=1e-9)
    settings = {"dim": 48, "residual": residual, "training": nothing_learned, "references": 0, "n_jobs": 1}
    chosen, linear = (Embedder(encoder=name, **settings).fit(measures, distances=store) for name in ("auto", "linear"))
    assert (chosen.encoder_, chosen.dim_, chosen.residuals is not None) == ("linear", 48, residual)
    np.testing.assert_allclose(chosen.pairwise(measures), linear.pairwise(measures), rtol=1e-3, atol=1e-3)
    assert chosen.learning_curve_.error == pytest.approx(linear.learning_curve_.error, rel=1e-3)


def test_linear_transport_is_compared_at_the_scale_that_suits_distances_of_all_sizes(tmp_path: Path) -> None:
    sizes = np.geomspace(1e-2, 1, 60)
    measures = Measures.from_point_clouds([size * one.support for size, one in zip(sizes, clouds(0, 60), strict=True)])
    store = wembed.precompute(measures, tmp_path / "distances", pairs=500, n_jobs=1)
    settings: dict[str, Any] = {"training": TrainingSettings(steps=1), "references": 0, "n_jobs": 1}
    chosen, linear = (Embedder(encoder=name, **settings).fit(measures, distances=store) for name in ("auto", "linear"))
    assert chosen.learning_curve_.compared["linear"] == pytest.approx(linear.learning_curve_.error)


@pytest.mark.parametrize(
    ("count", "near", "trained", "encoder"),
    [
        pytest.param(500, 1.5, ["quantiles", "combined"], "combined", id="linear transport comes near"),
        pytest.param(500, 1.0, ["quantiles"], "quantiles", id="it does not"),
        pytest.param(340, 1.5, ["quantiles", "combined"], "quantiles", id="too few measures to see a gain"),
    ],
)
def test_in_the_plane_maps_beside_slices_are_taken_where_they_bring_more_than_chance(
    count: int, near: float, trained: list[str], encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measures, learned = clouds(0, count, 6, 2), []
    monkeypatch.setattr("wembed.learning.encodings._WORTH_MAPS", near)
    learn = learned_module._learn
    monkeypatch.setattr(learned_module, "_learn", lambda *given: [learned.append(given[3]), learn(*given)][1])
    store = wembed.precompute(measures, tmp_path / "distances", 3_000, n_jobs=1, validation=0.28, calibration=0)
    settings: dict[str, Any] = {"training": TrainingSettings(auxiliary=0, steps=180), "references": 0, "n_jobs": 1}
    chosen = Embedder(**settings).fit(measures, distances=store)
    assert learned == trained
    assert chosen.encoder_ == encoder
    alone = Embedder(encoder=encoder, **settings).fit(measures, distances=store)
    np.testing.assert_array_equal(chosen.transform(measures), alone.transform(measures))
    assert chosen.history_ == alone.history_
    assert chosen.dim_ == alone.dim_ == len(chosen.transform(measures[:1])[0])


def in_small_rounds(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Two rounds of slices on fifty clouds in the plane, which maps are always worth trying after."""
    monkeypatch.setattr("wembed.learning.encodings.FEW_MEASURES", 20)
    monkeypatch.setattr("wembed.learning.curve._FIRST", 200)
    monkeypatch.setattr("wembed.learning.curve._PAYS", -1.0)  # go on as long as there are pairs
    monkeypatch.setattr(learned_module, "slower", lambda *_: "combined")
    training = TrainingSettings(auxiliary=0, steps=5, checks=1)
    return {"pairs": "auto", "training": training, "references": 0, "n_jobs": 1, "calibration": 0}


@pytest.mark.parametrize("closer", [True, False])
@pytest.mark.parametrize(
    ("wish", "takes", "trained"),
    [
        ({}, 1e9, ["quantiles", "quantiles", "combined"]),
        ({"target_error": 1e-9}, 1e9, ["quantiles", "quantiles", "combined"]),
        ({"target_error": 0.9}, 0.0, ["quantiles"]),
        ({"max_seconds": 1e8}, 9e7, ["quantiles", "quantiles", "combined"]),
        ({"max_seconds": 1e8}, 1e9, ["quantiles", "quantiles"]),
    ],
)
def test_maps_beside_slices_wait_for_the_last_round_and_are_learned_if_there_is_need_and_time(
    wish: dict[str, float], takes: float, trained: list[str], closer: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, learned, learn = in_small_rounds(monkeypatch), [], learned_module._learn
    answers = iter([False] * trained.count("quantiles") + [closer])  # linear transport after each round, then maps
    monkeypatch.setattr(Candidate, "is_closer", lambda *_: next(answers))
    monkeypatch.setattr(embedder_module, "seconds_by_maps", lambda *_: takes)
    monkeypatch.setattr(learned_module, "_learn", lambda *given: [learned.append(given[3]), learn(*given)][1])
    fitted = Embedder(**settings).fit(clouds(0, 50, 4, 2), **wish)
    curve = fitted.learning_curve_
    assert learned == trained
    assert len(curve.rounds) == trained.count("quantiles")
    assert (curve.second is not None) == ("combined" in trained)
    assert set(curve.compared) == set(trained) | ({"linear"} if wish != {"target_error": 0.9} else set())
    assert fitted.encoder_ == ("combined" if curve.second and closer else "quantiles")
    assert (curve.error != curve.rounds[-1].error) == (fitted.encoder_ == "combined")


def test_to_learn_by_maps_takes_a_solve_of_a_reference_a_measure_and_turn() -> None:
    rng = np.random.default_rng(0)
    as_large = Measures.from_point_clouds([rng.normal(size=(128, 2)) for _ in range(20)])
    assert CombinedEncoding.solves(as_large) == pytest.approx(100)
    assert CombinedEncoding.solves(as_large[:10]) == pytest.approx(50)
    assert CombinedEncoding.solves(clouds(0, 20, 7, 2)) > 100, (
        "one of a small measure takes longer than one of two small"
    )


def test_what_was_learned_is_not_lost_until_intervals_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, measures, file = {"encoder": "quantiles", "pairs": 300}, clouds(0), tmp_path / "training.safetensors"
    training, steps = TrainingSettings(steps=5, checks=1), list[int]()

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as early:
        early.setattr(Embedder, "_trusted", interrupt)
        with pytest.raises(KeyboardInterrupt):
            Embedder(training=training, **settings).fit(measures, checkpoint=file)
    train = learned_module.train
    counted = lambda *given: train(*given[:-1], lambda step, *_: steps.append(step))  # noqa: E731
    monkeypatch.setattr(learned_module, "train", counted)
    Embedder(training=training, **settings).fit(measures, checkpoint=file)
    assert steps == [5], "nothing is trained again"
    assert not list(tmp_path.iterdir())


def test_maps_after_rounds_go_on_where_they_were_interrupted_and_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, measures = in_small_rounds(monkeypatch), clouds(0, 50, 4, 2)
    monkeypatch.setattr(Candidate, "is_closer", lambda one, *_: one.learned.encoding.kind == "combined")
    train, calls = learned_module.train, []

    def interrupted(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return train(*arguments)

    whole = Embedder(**settings).fit(measures)
    places = {"distances": tmp_path / "distances", "checkpoint": tmp_path / "training.safetensors"}
    monkeypatch.setattr(learned_module, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Embedder(**settings).fit(measures, **places)
    (kept,) = tmp_path.glob("training-*.safetensors")
    kept.with_stem(f"{kept.stem}-combined").write_bytes(kept.read_bytes())
    with monkeypatch.context() as short:
        short.setattr(embedder_module, "seconds_by_maps", lambda *_: 2e9)
        again = Embedder(**settings).fit(measures, max_seconds=1e9, **places)
    assert not list(tmp_path.glob("*.safetensors")), "not even that of maps which are not learned in the end"
    assert again.encoder_ == "quantiles"
    last = Embedder(**settings).fit(measures, **places)
    np.testing.assert_array_equal(last.transform(measures), whole.transform(measures))
    assert last.encoder_ == "combined"


@pytest.mark.parametrize(
    ("quick", "cost", "dim", "share", "pairs", "name"),
    [
        ("quantiles", GroundCost(), 2, 0.9, 100, "transport"),
        ("quantiles", GroundCost(order=1), 2, 1.4, 100, "combined"),
        ("quantiles", GroundCost(), 2, 1.6, 100, None),
        ("quantiles", GroundCost(), 2, 1.6, 10**6, "combined"),
        ("quantiles", GroundCost("cityblock"), 2, 1.4, 10**6, None),
        ("quantiles", GroundCost(), 1, 1.4, 10**6, None),
        ("sinkhorn", GroundCost(), 3, 0.9, 100, "transport"),
        ("sinkhorn", GroundCost(), 3, 1.4, 10**6, None),
        ("transport", GroundCost(), 2, 0.9, 10**6, None),
    ],
)
def test_maps_are_tried_where_they_may_be_closer_or_take_little(
    quick: str, cost: GroundCost, dim: int, share: float, pairs: int, name: str | None
) -> None:
    assert slower(quick, cost, clouds(0, dim=dim), share, pairs) == name


def test_maps_take_little_where_four_times_as_many_pairs_were_solved() -> None:
    measures = clouds(0, dim=2)
    enough = int(4 * CombinedEncoding.solves(measures)) + 1
    tried = [slower("quantiles", GroundCost(), measures, 2.0, pairs) for pairs in (enough - 2, enough)]
    assert tried == [None, "combined"]


def test_a_second_encoder_goes_on_where_it_was_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wembed.learning.encodings.FEW_MEASURES", 20)  # so that slices come first
    measures, file = clouds(0, 60, 6, 2), tmp_path / "training.safetensors"
    training = TrainingSettings(auxiliary=0, steps=20, checks=2, patience=1.0, learning_rate=1e-9)
    settings: dict[str, Any] = {"validation": 0.3, "training": training, "references": 0, "n_jobs": 1}
    whole = Embedder(**settings).fit(measures)
    train, steps, most = learned_module.train, [], 35  # 14 of them in the second training

    def interrupted(*arguments: Any) -> Any:
        def stop(step: int, total: int, error: float) -> None:
            steps.append(step)
            if len(steps) == most:
                raise KeyboardInterrupt

        return train(*arguments[:-1], stop)

    monkeypatch.setattr(learned_module, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Embedder(**settings).fit(measures, checkpoint=file)
    files = {file, tmp_path / "training-transport.safetensors"}
    assert set(tmp_path.iterdir()) == files, "the first is kept as long as the second is not done"
    steps, most = [], 1_000
    again = Embedder(**settings).fit(measures, checkpoint=file)
    assert steps == [20, *range(11, 21), 20]
    assert again.encoder_ == "transport"
    np.testing.assert_array_equal(again.transform(measures), whole.transform(measures))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["quantiles", "transport", "combined", "sinkhorn", "linear"])
def test_what_a_fit_has_seen_of_a_measure_is_not_found_again(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measures, encoded, encode = clouds(0, 120, 6, 2), list[np.ndarray](), Learned.encode
    measures = Measures.concatenate([measures[:5], measures])  # some come twice
    monkeypatch.setattr(Learned, "encode", lambda *given: [encoded.append(given[1].digests()), encode(*given)][1])
    monkeypatch.setattr("wembed.learned._PROBE_SECONDS", 1e-9)  # one measure is encoded twice, to see how long it takes
    store = wembed.precompute(measures, tmp_path / "distances", 2_000, n_jobs=1)
    training = TrainingSettings(steps=15, auxiliary=0)
    fitted = Embedder(encoder=name, training=training, n_jobs=1).fit(measures, distances=store)
    first, timed, *others = encoded
    assert len(first) == len(timed) == 1
    assert set(np.concatenate(others).tolist()) == set(measures.digests()[fitted.split_.calibration].tolist())
    pairs, exact, _ = store.read()
    held = np.isin(pairs, fitted.split_.validation).all(axis=1)
    left, right = (fitted.encode(measures[pairs[held, side]]) for side in (0, 1))
    errors = np.abs(np.linalg.norm(left - right, axis=1) / exact[held] - 1)
    assert fitted.learning_curve_.rounds[-1].error == pytest.approx(errors.mean(), rel=1e-4)


@pytest.mark.parametrize("dim", [2, 5])
def test_measures_that_are_all_the_same_are_no_distance_apart(dim: int) -> None:
    points = np.arange(3.0 * dim).reshape(3, dim)
    same = Measures.from_point_clouds([points[[*range(3)] * k] for k in range(1, 41)])  # the atoms in ever more parts
    embedder = Embedder(pairs=300, training=TrainingSettings(steps=5), n_jobs=1).fit(same)
    np.testing.assert_allclose(embedder.pairwise(same), 0, atol=1e-5)


@pytest.mark.parametrize(
    ("gain", "spread", "closer"),
    [(0.012, 0.03, True), (0.006, 0.03, False), (-0.02, 0.03, False), (1e-3, 0.0, True), (1e-8, 0.0, False)],
)
def test_closer_is_what_gains_more_than_chance_and_rounding_bring(
    gain: float, spread: float, closer: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = np.stack(np.triu_indices(15, 1), axis=1)  # a standard error of a 15th of the variance, not of a 105th
    noise = np.resize([-1.0, 1.0], len(pairs))
    before, after = np.full(len(pairs), 0.1), 0.1 - gain - spread * (noise - noise.mean())
    one, other = object.__new__(Candidate), object.__new__(Candidate)
    monkeypatch.setattr(Candidate, "_errors", lambda self, _: after if self is one else before)
    none, ones = np.empty((0, 2), dtype=np.int64), np.ones(len(pairs))
    solved = Solved(Split.draw(40), none, np.empty(0), pairs, ones, none, np.empty(0), len(pairs), "")
    assert one.is_closer(other, solved) == closer


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
    module = sinkhorn.SinkhornEncoder(3, 16, centred=False)
    with torch.no_grad():
        module.reference.normal_(std=0.1)
    atoms = torch.rand(9, 4, 4)
    atoms[..., -1] /= atoms[..., -1].sum(dim=1, keepdim=True)
    whole = module(atoms).detach()
    monkeypatch.setattr(sinkhorn, "_BLOCK_NUMBERS", 2 * 16 * 4)
    with torch.no_grad():
        torch.testing.assert_close(module(atoms), whole)
        assert module(atoms[:0]).shape == (0, module.size)


@pytest.fixture(scope="module", params=[1, 2])
def of_small_clouds(request: pytest.FixtureRequest) -> Learned:
    embedder = Embedder(
        order=request.param, encoder="sinkhorn", pairs=300, training=TrainingSettings(steps=3), n_jobs=1
    )
    return embedder.fit(clouds(0))._learned


def with_large_ones(seed: int, count: int = 60) -> Measures:
    """Small clouds, and among them a few of some hundreds of atoms."""
    large = Measures.from_point_clouds([np.random.default_rng(seed).normal(size=(n, DIM)) for n in (700, 300, 90)])
    order = np.random.default_rng(seed).permutation(count + len(large))
    return Measures.concatenate([clouds(seed, count), large])[order]


@pytest.mark.parametrize("most", [1, 20_000, 1 << 24])
@pytest.mark.parametrize("seed", [1, 2])
def test_a_vector_of_sinkhorn_is_the_same_beside_measures_of_any_size(
    of_small_clouds: Learned, seed: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sinkhorn, "_INPUT_NUMBERS", most)
    measures = with_large_ones(seed)
    together = of_small_clouds.encode(measures)
    alone = np.concatenate([of_small_clouds.encode(measures[[row]]) for row in range(len(measures))])
    maps = len(of_small_clouds.encoding.module.reference) * DIM
    np.testing.assert_allclose(alone[:, :maps], together[:, :maps], rtol=0, atol=1e-6 * np.abs(together).max())
    # Roots of covariances of low rank round to some 1e-4, by whichever Gram matrix is the smaller in a block.
    np.testing.assert_allclose(alone, together, rtol=0, atol=3e-4 * np.abs(together).max())


@pytest.mark.parametrize("seed", [1, 2])
def test_a_large_measure_makes_no_others_large(
    of_small_clouds: Learned, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    measures, joined, seen = with_large_ones(seed), list[int](), list[int]()
    encoder, inputs = sinkhorn.SinkhornEncoder, sinkhorn.SinkhornEncoding.inputs
    inner = encoder.projections

    def projections(self: sinkhorn.SinkhornEncoder, points: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        joined.append(weights.numel())
        return inner(self, points, weights)

    monkeypatch.setattr(encoder, "projections", projections)
    monkeypatch.setattr(
        sinkhorn.SinkhornEncoding, "inputs", lambda *given: [found := inputs(*given), seen.append(found.size)][0]
    )
    most = 700 * (DIM + 1)
    monkeypatch.setattr(sinkhorn, "_INPUT_NUMBERS", most)
    of_small_clouds.encode(measures)
    assert max(seen) <= most < len(measures) * most / 10
    assert sum(joined) < 2 * measures.sizes.sum()


def test_where_sinkhorn_starts_does_not_depend_on_the_order_of_measures() -> None:
    measures, rng = clouds(0, 30, 20), np.random.default_rng(0)
    pairs, order = rng.integers(30, size=(80, 2)), rng.permutation(30)
    exact, place = rng.uniform(1, 2, size=80), np.argsort(order)
    started = []
    for part, listed in ((measures, pairs), (measures[order], place[pairs])):
        torch.manual_seed(0)
        encoding = sinkhorn.SinkhornEncoding.build(GroundCost(order=1), measures, None, 0)
        seen = encoding.copies(part, 1.0, 0)
        encoding.start_from(Examples(seen, encoding.exact_part(part), listed, exact, listed, exact))
        started.append([encoding.module.log_softness.exp(), encoding.module.log_scales.exp()])
    torch.testing.assert_close(*started, rtol=1e-3, atol=1e-6)


def test_a_step_of_training_is_as_wide_as_its_own_measures(of_small_clouds: Learned) -> None:
    module, small = of_small_clouds.encoding.module, torch.rand(9, 4, DIM + 1)
    small[..., -1] /= small[..., -1].sum(dim=1, keepdim=True)
    wide = torch.nn.functional.pad(small, (0, 0, 0, 40))
    torch.testing.assert_close(module(wide), module(small), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("cost", "measures", "name"),
    [
        (GroundCost(), clouds(0, dim=1), "quantiles"),
        (GroundCost(order=1), clouds(0, dim=2)[np.arange(200) % 40], "quantiles"),
        (GroundCost(order=1), clouds(0, dim=2)[np.arange(199) % 40], "transport"),
        (GroundCost("great-circle", 1), clouds(0, dim=2), "transport"),
        (GroundCost(), clouds(0, dim=50), "sinkhorn"),
        (GroundCost(), Measures.from_point_clouds([np.eye(100)[:, :3] * scale for scale in (1, 2)]), "transport"),
    ],
)
def test_the_encoder_follows_the_measures(cost: GroundCost, measures: Measures, name: str) -> None:
    assert suited(cost, measures) == name

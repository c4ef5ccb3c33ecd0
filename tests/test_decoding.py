"""Decoders: what they make of vectors is near to the measures, about the same centroids, and saved with the model."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_training import past_types

import wembed
from wembed import Embedder, MeasureError, Measures, SettingError, TrainingSettings
from wembed.learning.decoders import ImageDecoder
from wembed.learning.decoding import DecoderSettings, ImageDecoding
from wembed.readers import digits


def apart(a: Measures, b: Measures, cost: wembed.GroundCost | None = None) -> np.ndarray:
    pairs = np.stack([np.arange(len(a)), np.arange(len(a)) + len(a)], axis=1)
    return wembed.exact_distances(Measures.concatenate([a, b]), pairs, cost or wembed.GroundCost())


@pytest.fixture(scope="module")
def decoding(fitted: Embedder, some_digits: Measures, tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    folder = tmp_path_factory.mktemp("decoding")
    fitted.save(folder)
    return wembed.load(folder).fit_decoder(some_digits[fitted.split_.train], steps=40, mixtures=40)


def test_digits_come_back(quick: TrainingSettings) -> None:
    whole = digits()[0][:300]
    decoding = Embedder(encoder="quantiles", pairs=600, training=quick, n_jobs=1).fit(whole)
    decoding.fit_decoder(whole[decoding.split_.train], steps=200, mixtures=150)
    unseen = whole[decoding.split_.test]
    vectors = decoding.transform(unseen)
    made = decoding.decode(vectors)
    assert made.grid == unseen.grid
    off = apart(unseen, made).mean()
    assert off < 0.35 * decoding.mean_distance_
    assert decoding.decoder_error_ == pytest.approx(off, rel=0.15)
    np.testing.assert_allclose(made.centroids(), unseen.centroids(), atol=1e-5)
    assert apart(unseen, made).mean() < 0.6 * apart(unseen, decoding.decode(np.roll(vectors, 1, axis=0))).mean()


def test_a_decoder_is_saved_with_the_model(decoding: Embedder, some_digits: Measures, tmp_path: Path) -> None:
    vectors = decoding.transform(some_digits[:20])
    decoding.save(tmp_path)
    loaded = wembed.load(tmp_path)
    assert loaded.decoder_error_ == decoding.decoder_error_
    np.testing.assert_allclose(loaded.decode(vectors).weights, decoding.decode(vectors).weights, atol=1e-7)
    np.testing.assert_array_equal(loaded.transform(some_digits[:20]), vectors)


def test_the_same_seed_gives_the_same_decoder_and_leaves_torch_alone(
    fitted: Embedder, some_digits: Measures, tmp_path: Path
) -> None:
    fitted.save(tmp_path)
    vectors = fitted.transform(some_digits[:5])
    made = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        loaded = wembed.load(tmp_path)
        before = torch.get_rng_state()
        made.append(loaded.fit_decoder(some_digits[:60], steps=5).decode(vectors))
        assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(made[0].weights, made[1].weights)


def clouds(count: int, seed: int = 0, dim: int = 3) -> Measures:
    rng = np.random.default_rng(seed)
    shapes = [rng.exponential(1.0, dim) for _ in range(count)]
    sizes = rng.integers(30, 60, count)
    return Measures.from_point_clouds(
        [rng.standard_normal((n, dim)) * s + 5 * rng.standard_normal(dim) for n, s in zip(sizes, shapes, strict=True)],
        [rng.exponential(1.0, n) for n in sizes],
    )


def test_clouds_come_back_with_as_many_atoms_as_were_asked_for() -> None:
    measures = clouds(140)
    embedder = Embedder(encoder="quantiles", pairs=800, n_jobs=1, training=TrainingSettings(steps=30), calibration=0)
    embedder.fit(measures[:120])
    embedder.fit_decoder(measures[:120], atoms=48, steps=150)
    unseen = measures[120:]
    vectors = embedder.transform(unseen)
    made = embedder.decode(vectors)
    assert (made.sizes == 48).all()
    np.testing.assert_allclose(made.weights, 1 / 48)
    np.testing.assert_allclose(made.centroids(), unseen.centroids(), atol=1e-4)
    about = [centred(unseen), centred(made)]
    assert apart(*about).mean() < 0.6 * apart(about[0], about[0][np.roll(np.arange(20), 1)]).mean()
    moved = vectors.copy()
    moved[:, -3:] += [10.0, -20.0, 30.0]
    np.testing.assert_allclose(
        embedder.decode(moved).points(), made.points() + [10.0, -20.0, 30.0], atol=1e-4
    )  # a translate is decoded to the translate


def test_a_cloud_is_decoded_to_its_place_where_vectors_do_not_hold_it() -> None:
    measures = clouds(140)
    settings = TrainingSettings(steps=30)
    embedder = Embedder(order=1, encoder="transport", pairs=800, n_jobs=1, training=settings, calibration=0)
    embedder.fit(measures[:120]).fit_decoder(measures[:120], atoms=48, steps=150)
    made = embedder.decode(embedder.transform(measures[120:]))
    centroids, middle = measures[120:].centroids(), measures.centroids().mean(axis=0)
    off, far = (np.linalg.norm(centroids - of, axis=1).mean() for of in (made.centroids(), middle))
    assert off < 0.3 * far


def centred(measures: Measures) -> Measures:
    return Measures.from_flat(
        measures.points() - np.repeat(measures.centroids(), measures.sizes, axis=0), measures.weights, measures.sizes
    )


def test_histograms_under_a_cost_matrix_come_back() -> None:
    rng = np.random.default_rng(0)
    support = rng.standard_normal((12, 2))
    matrix = np.abs(support[:, None] - support).sum(axis=-1)
    measures = Measures.from_histograms(rng.exponential(1.0, (150, 12)) ** 3, support)
    embedder = Embedder(matrix, order=1, pairs=1_000, n_jobs=1, training=TrainingSettings(steps=40), calibration=0)
    embedder.fit(measures[:130]).fit_decoder(measures[:130], steps=300, mixtures=400)
    made = embedder.decode(embedder.transform(measures[130:]))
    np.testing.assert_array_equal(made.support, support)
    assert apart(measures[130:], made, embedder.cost).mean() < 0.5 * embedder.mean_distance_


def test_what_cannot_be_decoded_is_told(fitted: Embedder, decoding: Embedder, some_digits: Measures) -> None:
    with pytest.raises(SettingError, match="has no decoder; give it one with fit_decoder"):
        fitted.decode(fitted.transform(some_digits[:2]))
    for wrong in (np.zeros((2, 5)), np.zeros(decoding.dim_), np.zeros((0, decoding.dim_)), np.zeros((1, 128), int)):
        with pytest.raises(SettingError, match="expected floats"):
            decoding.decode(wrong)
    with pytest.raises(SettingError, match="NaN or infinite"):
        decoding.decode(np.full((1, decoding.dim_), np.nan))
    with pytest.raises(SettingError, match="19 measures are too few to decode from; give at least 20"):
        decoding.fit_decoder(some_digits[:19])
    with pytest.raises(SettingError, match="mixtures"):
        decoding.fit_decoder(some_digits, mixtures=-1)
    with pytest.raises(SettingError, match="steps"):
        decoding.fit_decoder(some_digits, steps=0)
    with pytest.raises(MeasureError, match="dimension"):
        decoding.fit_decoder(clouds(20))


@pytest.mark.parametrize(
    "wrong",
    [{"atoms": 0}, {"atoms": 2.5}, {"steps": 2.5}, {"mixtures": -1}, {"seed": -1}, {"n_jobs": 0}],
)
def test_settings_of_a_decoder_out_of_range_are_refused_by_name(wrong: dict[str, Any]) -> None:
    ((name, value),) = wrong.items()
    settings = {"atoms": 8, "steps": 1, "mixtures": None, "seed": 0, "n_jobs": 1, "device": "cpu"}
    with pytest.raises(SettingError, match=f"^{name}={value}; give a "):
        past_types(DecoderSettings, **{**settings, **wrong})


def test_a_decoder_keeps_numbers_of_numpy_as_plain_ones() -> None:
    numbers = dict.fromkeys(("atoms", "steps", "mixtures", "seed"), np.int64(1))
    settings = past_types(DecoderSettings, **numbers, n_jobs=1, device="cpu")
    assert {type(getattr(settings, name)) for name in numbers} == {int}


def test_a_decoder_that_learns_from_measures_unlike_the_models_is_warned_of(decoding: Embedder, tmp_path: Path) -> None:
    decoding.save(tmp_path)
    far = Measures.from_point_clouds([np.random.default_rng(i).normal(size=(9, 2)) * 40 for i in range(30)])
    with pytest.warns(wembed.UnusualWarning, match="30 of 30 measures to decode to .* may be of no use"):
        wembed.load(tmp_path).fit_decoder(far, steps=1, mixtures=0)


def test_another_fit_forgets_the_decoder(decoding: Embedder, some_digits: Measures, tmp_path: Path) -> None:
    decoding.save(tmp_path)
    again = wembed.load(tmp_path).set_params(pairs=200, training=TrainingSettings(steps=2), calibration=0)
    again.fit(some_digits[:60])
    assert again.decoder_error_ is None
    with pytest.raises(SettingError, match="has no decoder"):
        again.decode(again.transform(some_digits[:2]))


def test_a_decoder_is_not_taken_before_its_error_is_known(
    fitted: Embedder, some_digits: Measures, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    embedder = copy.copy(fitted)
    monkeypatch.setattr("wembed.embedder.exact_distances", stop)
    with pytest.raises(KeyboardInterrupt):
        embedder.fit_decoder(some_digits[:30], steps=1, mixtures=0)
    assert embedder.decoder is None


def test_clouds_on_the_sphere_are_not_decoded() -> None:
    rng = np.random.default_rng(0)
    measures = Measures.from_point_clouds([rng.uniform(-40, 40, (5, 2)) for _ in range(60)])
    embedder = Embedder("great-circle-degrees", order=1, pairs=200, n_jobs=1, training=TrainingSettings(steps=2))
    with pytest.raises(SettingError, match="decoded in flat space alone"):
        embedder.set_params(calibration=0).fit(measures).fit_decoder(measures)


def test_pixels_share_an_atom_so_that_its_place_is_kept() -> None:
    rng = np.random.default_rng(0)
    cloud = Measures.from_point_clouds([rng.uniform(0, 7, (30, 2)), [[0.0, 7.0]], [[2.25, 3.5]]])
    images = cloud.on_pixels((8, 8))
    np.testing.assert_allclose(images.centroids(), cloud.centroids(), atol=1e-12)
    assert images.sizes[1:].tolist() == [1, 4]
    border = Measures.from_point_clouds([[[-3.0, 9.0]]]).on_pixels((8, 8))
    assert border[0].support.tolist() == [[0.0, 7.0]]


JOINT = TrainingSettings(steps=80, checks=5, patience=1.0, reconstruction=0.01)


def digits_with_a_decoder(measures: Measures, training: TrainingSettings = JOINT, **settings: Any) -> Embedder:
    return Embedder(encoder="quantiles", pairs=1_500, n_jobs=1, training=training, calibration=0, **settings).fit(
        measures
    )


def test_a_decoder_can_be_trained_along_with_the_encoder(some_digits: Measures, tmp_path: Path) -> None:
    embedder = digits_with_a_decoder(some_digits)
    unseen = some_digits[embedder.split_.test]
    vectors = embedder.transform(unseen)
    made = embedder.decode(vectors)
    assert apart(unseen, made).mean() < 0.45 * embedder.mean_distance_
    assert embedder.decoder_error_ == pytest.approx(apart(unseen, made).mean(), rel=0.3)
    np.testing.assert_allclose(made.centroids(), unseen.centroids(), atol=1e-5)
    embedder.save(tmp_path)
    np.testing.assert_allclose(wembed.load(tmp_path).decode(vectors).weights, made.weights, atol=1e-7)


def test_an_encoder_learns_from_its_decoder(some_digits: Measures) -> None:
    short = replace(JOINT, steps=10, auxiliary=0.0)
    along, alone = (digits_with_a_decoder(some_digits, replace(short, reconstruction=one)) for one in (0.1, 0.0))
    assert alone.decoder is None
    vectors = alone.transform(some_digits[:20])
    assert not np.allclose(along.transform(some_digits[:20]), vectors, atol=1e-3 * alone.mean_distance_)


def test_a_decoder_trained_along_sees_vectors_as_they_are_scaled_in_the_end() -> None:
    torch.manual_seed(0)
    decoder = ImageDecoder(6, (8, 8))
    decoder.start_from(torch.randn(50, 6) + 2)
    vectors = torch.randn(5, 6)
    with torch.no_grad():
        before = decoder(vectors)
        decoder.stretched(4, 1.5)
        np.testing.assert_allclose(decoder(vectors * torch.tensor([1.5] * 4 + [1.0] * 2)), before, atol=1e-5)


def test_a_training_with_a_decoder_goes_on_where_it_was_interrupted(
    some_digits: Measures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, file = replace(JOINT, steps=20, checks=4, auxiliary=0.0), tmp_path / "training.safetensors"
    whole = digits_with_a_decoder(some_digits, settings)
    error, calls = ImageDecoding.loss, [0]

    def kill(self: ImageDecoding, made: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        calls[0] += 1
        if calls[0] == 13:
            raise KeyboardInterrupt
        return error(self, made, targets)

    embedder = Embedder(encoder="quantiles", pairs=1_500, n_jobs=1, training=settings, calibration=0)
    with monkeypatch.context() as patched:
        patched.setattr(ImageDecoding, "loss", kill)
        with pytest.raises(KeyboardInterrupt):
            embedder.fit(some_digits, checkpoint=file)
    assert file.exists()
    embedder.fit(some_digits, checkpoint=file)
    vectors = whole.transform(some_digits[:5])
    np.testing.assert_array_equal(embedder.transform(some_digits[:5]), vectors)
    np.testing.assert_array_equal(embedder.decode(vectors).weights, whole.decode(vectors).weights)


@pytest.mark.parametrize(("encoder", "dim"), [("transport", 3), ("combined", 2)])
def test_clouds_are_decoded_by_what_was_trained_along(encoder: str, dim: int, tmp_path: Path) -> None:
    measures = clouds(140, dim=dim)
    training = replace(JOINT, steps=30)
    embedder = Embedder(encoder=encoder, pairs=800, n_jobs=1, training=training, calibration=0)
    embedder.fit(measures[:120])
    turns = embedder._learned.encoding.turns
    assert (turns is None) == (encoder == "transport")  # whose vectors of three turns would be longer
    made = embedder.decode(embedder.transform(measures[120:]))
    np.testing.assert_allclose(made.centroids(), measures[120:].centroids(), atol=1e-4)
    about = [centred(measures[120:]), centred(made)]
    assert apart(*about).mean() < 0.7 * apart(about[0], about[0][np.roll(np.arange(20), 1)]).mean()
    embedder.save(tmp_path)
    again = wembed.load(tmp_path)
    np.testing.assert_array_equal(again.decode(again.encode(measures[120:])).support, made.support)


def test_what_cannot_be_trained_along_is_told_before_anything_is_solved(some_digits: Measures) -> None:
    with pytest.raises(SettingError, match="the linear encoder learns nothing"):
        Embedder(encoder="linear", pairs=10**9, training=JOINT).fit(some_digits)
    places = Measures.from_point_clouds([np.random.default_rng(i).uniform(-80, 80, (5, 2)) for i in range(60)])
    with pytest.raises(SettingError, match="clouds are decoded in flat space alone"):
        Embedder("great-circle-degrees", pairs=10**9, training=JOINT).fit(places)

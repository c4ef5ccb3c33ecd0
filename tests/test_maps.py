"""Maps from a reference: where the optimal coupling sends its atoms."""

import numpy as np
import ot
import pytest

from wembed import MeasureError, Measures, SettingError
from wembed.transport import parallel
from wembed.transport.maps import transport_maps


@pytest.fixture
def reference() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(6, 2))


@pytest.fixture
def measures() -> Measures:
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 30, 12)
    return Measures.from_point_clouds(
        [rng.normal(size=(n, 2)) + 3 for n in sizes], [rng.uniform(1, 2, n) for n in sizes]
    )


def test_maps_are_the_barycentric_projections_of_pots_coupling(measures: Measures, reference: np.ndarray) -> None:
    for found, measure in zip(transport_maps(measures, reference), measures, strict=True):
        points = measure.support - measure.weights @ measure.support / measure.weights.sum()
        weights = measure.weights / measure.weights.sum()
        coupling = ot.emd(np.full(6, 1 / 6), weights, ot.dist(reference, points))
        np.testing.assert_allclose(found, 6 * coupling @ points, atol=1e-5)


def test_a_measure_of_as_many_equal_masses_is_matched_atom_by_atom(reference: np.ndarray) -> None:
    centred = reference - reference.mean(axis=0)
    moved = Measures.from_point_clouds([centred[::-1] * 1.5 + [7, -2]])
    np.testing.assert_allclose(transport_maps(moved, centred)[0], centred * 1.5, atol=1e-5)


def test_maps_do_not_depend_on_where_a_measure_is_nor_on_its_unit(measures: Measures, reference: np.ndarray) -> None:
    found = transport_maps(measures, reference)
    elsewhere = Measures(measures.offsets, measures.support * 1e-9 + 1e-7, measures.weights)
    np.testing.assert_allclose(transport_maps(elsewhere, reference * 1e-9) * 1e9, found, atol=1e-4)


def test_maps_do_not_depend_on_the_number_of_workers(
    measures: Measures, reference: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = transport_maps(measures, reference)
    monkeypatch.setattr(parallel, "_BLOCK_WORK", 6e5)
    monkeypatch.setattr(parallel, "ALONE_WORK", 0)
    seen: list[tuple[int, int]] = []
    np.testing.assert_array_equal(
        transport_maps(measures, reference, n_jobs=2, progress=lambda *at: seen.append(at)), alone
    )
    assert len(seen) > 2
    assert seen[-1] == (12, 12)


def test_none_of_no_measures(measures: Measures, reference: np.ndarray) -> None:
    assert transport_maps(measures[:0], reference, n_jobs=2).shape == (0, 6, 2)


def test_another_dimension_and_no_process_are_refused(measures: Measures, reference: np.ndarray) -> None:
    with pytest.raises(MeasureError, match="dimension 2; this reference has 3"):
        transport_maps(measures, np.zeros((4, 3)))
    with pytest.raises(SettingError, match="n_jobs=0"):
        transport_maps(measures, reference, n_jobs=0)

"""The whole job at a small size, as a person would run it."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from halved import halved_digits

from wembed import quickstart as module


def test_quickstart_solves_trains_evaluates_and_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measures, labels = halved_digits()
    monkeypatch.setattr(module, "digits", lambda: (measures[:2_000], labels[:2_000]))
    result = module.quickstart(tmp_path, pairs=1_000)
    errors = result.report.errors
    assert set(errors) == {"wembed", "linear OT", "sliced Wasserstein", "mean predictor"}
    assert errors["wembed"].relative_error < errors["sliced Wasserstein"].relative_error
    assert errors["sliced Wasserstein"].relative_error < errors["mean predictor"].relative_error
    assert result.exact_seconds > 100 * result.learned_seconds
    for file in ("predicted-against-exact.png", "neighbors.png"):
        assert (tmp_path / file).read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "model" / "model.json").exists()


def test_importing_wembed_takes_neither_torch_nor_pot_nor_half_a_second() -> None:
    script = "import sys, wembed; print(sorted({'torch', 'ot', 'scipy', 'sklearn'} & set(sys.modules)))"
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        seconds.append(time.perf_counter() - started)
    assert finished.stdout.strip() == "[]"
    assert min(seconds) < 0.5


def test_every_public_name_is_there() -> None:
    import wembed

    for name in wembed.__all__:
        assert getattr(wembed, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'magic'"):
        wembed.magic  # noqa: B018

"""Progress bars: a rate is what was done over the time that it took."""

import re

import pytest

from wembed.progress import bar, mean_rate


def last_line(capsys: pytest.CaptureFixture[str], unit: str, *signs: tuple[float, int, int]) -> str:
    """What a bar leaves on standard error after signs of progress: when, done, in all."""
    now = 100.0
    with bar(True, "work", unit, clock=lambda: now) as show:
        for after, done, total in signs:
            now = 100.0 + after
            show(done, total)
    return re.sub(r"\s+", " ", capsys.readouterr().err.splitlines()[-1])


def test_blocks_that_end_together_do_not_make_a_rate(capsys: pytest.CaptureFixture[str]) -> None:
    line = last_line(
        capsys, "pairs", (0.0, 0, 17_675), (2.9, 9_000, 17_675), (2.93, 17_600, 17_675), (3, 17_675, 17_675)
    )
    assert "17675/17675 5,892 pairs/s 0:00:03" in line


def test_the_rate_of_a_task_without_a_sign_at_its_beginning_is_over_all_of_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "100/100 25 pairs/s" in last_line(capsys, "pairs", (3.9, 50, 100), (4.0, 100, 100))


def test_a_slow_task_has_a_rate_with_decimals(capsys: pytest.CaptureFixture[str]) -> None:
    signs = [(330 * step / 2_806, step, 9_000) for step in range(1, 2_807)]
    assert "2806/2806 8.5 steps/s 0:05:30" in last_line(capsys, "steps", *signs, (330.0, 2_806, 2_806))
    assert "187/187 0.5 steps/s" in last_line(capsys, "steps", (2.0, 1, 187), (374.0, 187, 187))


def test_what_was_done_before_an_interruption_is_not_counted(capsys: pytest.CaptureFixture[str]) -> None:
    assert "1000/1000 10 pairs/s" in last_line(
        capsys, "pairs", (0.1, 900, 1_000), (5.0, 950, 1_000), (10.1, 1_000, 1_000)
    )
    assert "1000/1000 0:00:01" in last_line(capsys, "pairs", (1.0, 1_000, 1_000))  # all was there


def test_one_sign_tells_no_rate() -> None:
    assert mean_rate(0.0, (1.0, 5), (1.0, 5)) is None
    assert mean_rate(0.0, (1.0, 5), (2.0, 5)) is None
    assert mean_rate(0.0, (0.0, 0), (2.0, 5)) == 2.5


def test_a_bar_that_is_not_shown_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with bar(False, "work", "pairs") as show:
        show(1, 2)
    assert capsys.readouterr().err == ""

"""Progress bars with rate and time left."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["bar", "mean_rate"]

_WHOLE = 10  # a second, from which on a rate is shown without decimals


@contextmanager
def bar(
    visible: bool, what: str, unit: str, clock: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error; yields the function to call with what is done and what there is in all."""
    if not visible:
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    signs: list[tuple[float, int]] = []  # of progress, the first and the last: when, and how much was done

    class Rate(TextColumn):
        def render(self, task: "object") -> Text:
            rate = mean_rate(began, signs[0], signs[-1]) if signs else None
            form = ",.0f" if rate and rate >= _WHOLE else ".2g"
            return Text(f"{rate:{form}} {unit}/s" if rate else "", style="progress.data.speed")

    columns = (
        TextColumn("{task.description:<15}"),
        BarColumn(bar_width=10),
        MofNCompleteColumn(),
        Rate(""),
        TimeElapsedColumn(),
        TextColumn("+"),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    progress = Progress(*columns, console=Console(stderr=True), get_time=clock)
    task, began = progress.add_task(what, total=None), clock()

    def show(done: int, total: int) -> None:
        signs[1:] = [(clock(), done)]  # after the first one
        progress.start()  # not before there is something to show, so that an error comes alone
        progress.update(task, completed=done, total=total)

    try:
        yield show
    finally:
        if progress.live.is_started:
            progress.stop()


def mean_rate(began: float, first: tuple[float, int], last: tuple[float, int]) -> float | None:
    """What was done a second, from the beginning to the last sign of progress; None where there is but one sign.

    Or from the first sign on, where that is less: a task that goes on where it was interrupted counts in it what it had
    done before.

    Args:
        began: when.
        first: when the first sign of progress came, and what was done by then.
        last: the same of the last one.
    """
    (then, before), (now, done) = first, last
    if now <= then or done <= before:
        return None
    return min(done / (now - began), (done - before) / (now - then))

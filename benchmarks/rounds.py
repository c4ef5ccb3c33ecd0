"""How long does it take from nothing to a wished-for error on digits, and where do rounds stop by themselves?"""

import time
from dataclasses import replace
from typing import Any

import numpy as np
from common import arguments, record, spread
from digits import Exam

from wembed import Embedder, TrainingSettings
from wembed.learning.curve import Wish
from wembed.readers import digits
from wembed.transport.pairs import Split

WISHES = {
    "1.5 %": Wish(target_error=0.015),
    "1.0 %": Wish(target_error=0.01),
    "one minute": Wish(max_seconds=60),
    "as long as it pays": Wish(),
}


def main() -> None:
    chosen = arguments(__doc__ or "")
    measures, _ = digits()
    training, seeds, share = TrainingSettings(), 3, 0.1
    if chosen.smoke:
        measures, training, seeds, share = measures[:120], TrainingSettings(steps=20), 1, 0.2
    unseen = Split.draw(len(measures), test=share).test
    exam = Exam(measures[unseen], chosen.work / ("rounds-smoke" if chosen.smoke else "digits") / "test")
    collection = measures[np.setdiff1d(np.arange(len(measures)), unseen)]
    results: dict[str, Any] = {"measures": len(collection), "unseen": len(unseen), "wishes": {}}
    for name, wish in WISHES.items():
        found, curves = [], []
        for seed in range(seeds if wish.target_error else 1):
            embedder = Embedder(
                pairs="auto", test=0, random_state=seed, training=replace(training, seed=seed), verbose=True
            )
            started = time.perf_counter()
            embedder.fit(collection, max_seconds=wish.max_seconds, target_error=wish.target_error)
            seconds = time.perf_counter() - started
            curve = embedder.learning_curve_
            last = curve.rounds[-1]
            marks = exam.marks_of(embedder)
            taken = {"seconds": seconds, "pairs": last.pairs, "break_even": curve.break_even()}
            errors = {key: marks[key] for key in ("relative_error", "mse", "recall_at_10")}
            found.append(taken | errors | {"validation_error": curve.error})
            curves.append(curve.as_dict())
        results["wishes"][name] = {key: spread([one[key] for one in found]) for key in found[0]} | {"curves": curves}
        record("rounds", __doc__ or "", results, smoke=chosen.smoke)


if __name__ == "__main__":
    main()

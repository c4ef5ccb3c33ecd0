"""What the benchmarks share: arguments, the machine, and the JSON record of a run."""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def arguments(question: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=question)
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, to see that it runs; nothing is recorded")
    parser.add_argument("--work", type=Path, default=default_work(), help="where exact distances are kept between runs")
    return parser.parse_args()


def default_work() -> Path:
    return Path(os.environ.get("WEMBED_DATA", Path.home() / ".cache" / "wembed")) / "benchmarks"


def machine() -> dict[str, Any]:
    model = next(
        (line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("wembed", "numpy", "scipy", "torch", "pot", "joblib")},
    }


def record(name: str, question: str, results: dict[str, Any], *, smoke: bool) -> None:
    """Print the results, and keep them in results/NAME.json unless this is a smoke run."""
    content = {
        "question": question,
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit(),
        "machine": machine(),
        "results": results,
    }
    text = json.dumps(content, indent=1)
    print(text)
    if not smoke:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.json").write_text(text + "\n")


def alternate(runs: int, *actions: Callable[[], object]) -> list[list[float]]:
    """Seconds of each action, the actions taking turns so that a drift of the machine hits all alike."""
    seconds: list[list[float]] = [[] for _ in actions]
    for action in actions:
        action()
    for _ in range(runs):
        for times, action in zip(seconds, actions, strict=True):
            started = time.perf_counter()
            action()
            times.append(time.perf_counter() - started)
    return seconds


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def peak_megabytes() -> float:
    """The most memory this process has held, and the most that one of its finished children has."""
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return max(own, children) / 1024


def is_step(steps: Mapping[str, Callable[[Path, int], dict[str, Any]]]) -> bool:
    """Whether this process is to do one step for another, by `measured`; if so it has been done."""
    if "--step" not in sys.argv:
        return False
    step, folder, size = sys.argv[2:5]
    started = time.perf_counter()
    found = steps[step](Path(folder), int(size))
    seconds = time.perf_counter() - started
    print(json.dumps({**found, "seconds": seconds, "peak_megabytes": peak_megabytes()}))
    return True


def measured(file: str, step: str, folder: Path, size: int) -> dict[str, Any]:
    """What a step of a benchmark found in a process of its own, its seconds and its peak memory."""
    command = [sys.executable, file, "--step", step, str(folder), str(size)]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return found


def commit() -> str | None:
    """The commit that is measured, with a + where code differs from it; None outside a repository."""
    root = str(RESULTS.parents[1])
    try:
        name, changed = (
            subprocess.run(["git", "-C", root, *asked], capture_output=True, text=True, check=True).stdout.strip()
            for asked in (
                ["rev-parse", "--short", "HEAD"],
                ["status", "--porcelain", "--untracked-files=no", "--", "wembed", "benchmarks/*.py", "data/*.py"],
            )
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return name + ("+" if changed else "")


def _lines(file: str) -> list[str]:
    try:
        return Path(file).read_text().splitlines()
    except OSError:
        return []

"""wembed: Wasserstein distance at the speed of Euclidean distance, with an honest word on the error."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wembed.client import Client
    from wembed.embedder import Embedder, evaluate, load
    from wembed.errors import (
        ArtifactError,
        LockedError,
        MeasureError,
        NotFittedError,
        ReadError,
        SeenWarning,
        ServiceError,
        SettingError,
        SolverError,
        UnusualWarning,
        WembedError,
    )
    from wembed.index import Index
    from wembed.learning.evaluation import Report
    from wembed.learning.training import TrainingSettings
    from wembed.measures import Measure, Measures
    from wembed.readers import read
    from wembed.records import Distances, Neighbors
    from wembed.transport.bounds import Bounds, bounds
    from wembed.transport.costs import GroundCost
    from wembed.transport.pairs import Split
    from wembed.transport.parallel import exact_distances
    from wembed.transport.precompute import precompute
    from wembed.transport.store import DistanceStore

# Names are looked up on first use: `import wembed` costs neither torch nor POT nor SciPy.
_HOME = {
    "ArtifactError": "errors",
    "Bounds": "transport.bounds",
    "Client": "client",
    "Distances": "records",
    "DistanceStore": "transport.store",
    "Embedder": "embedder",
    "GroundCost": "transport.costs",
    "Index": "index",
    "LockedError": "errors",
    "Measure": "measures",
    "MeasureError": "errors",
    "Measures": "measures",
    "Neighbors": "records",
    "NotFittedError": "errors",
    "ReadError": "errors",
    "Report": "learning.evaluation",
    "SeenWarning": "errors",
    "ServiceError": "errors",
    "SettingError": "errors",
    "SolverError": "errors",
    "Split": "transport.pairs",
    "TrainingSettings": "learning.training",
    "UnusualWarning": "errors",
    "WembedError": "errors",
    "bounds": "transport.bounds",
    "evaluate": "embedder",
    "exact_distances": "transport.parallel",
    "load": "embedder",
    "precompute": "transport.precompute",
    "read": "readers",
}

__all__ = [
    "ArtifactError",
    "Bounds",
    "Client",
    "DistanceStore",
    "Distances",
    "Embedder",
    "GroundCost",
    "Index",
    "LockedError",
    "Measure",
    "MeasureError",
    "Measures",
    "Neighbors",
    "NotFittedError",
    "ReadError",
    "Report",
    "SeenWarning",
    "ServiceError",
    "SettingError",
    "SolverError",
    "Split",
    "TrainingSettings",
    "UnusualWarning",
    "WembedError",
    "bounds",
    "evaluate",
    "exact_distances",
    "load",
    "precompute",
    "read",
]


_MODULES = ("geometry", "readers")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"wembed.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'wembed' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"wembed.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, *_MODULES, "errors"]

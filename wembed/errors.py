"""The errors that wembed raises. Each is also a builtin, so `except ValueError` goes on working.

WembedError
├── MeasureError      (ValueError)    numbers that are not measures: NaN, negative or no mass, mixed dimensions
├── ReadError         (ValueError)    a file that does not hold measures in a format wembed reads
├── SettingError      (ValueError)    an argument or an option outside what is possible
├── SolverError       (RuntimeError)  an exact solve that could not be certified
├── ArtifactError     (RuntimeError)  a store, model or index that is damaged, or belongs to other data
│   └── LockedError                   a store that another process is writing
├── ServiceError      (RuntimeError)  a service that refuses to answer, or is not there
└── NotFittedError    (ValueError, AttributeError)  an Embedder that has not been fitted

UnusualWarning          (UserWarning)   measures unlike those that a model learned from
SeenWarning             (UserWarning)   an evaluation on measures that the model was fitted to or calibrated on
"""

__all__ = [
    "ArtifactError",
    "LockedError",
    "MeasureError",
    "NotFittedError",
    "ReadError",
    "SeenWarning",
    "ServiceError",
    "SettingError",
    "SolverError",
    "UnusualWarning",
    "WembedError",
]


class WembedError(Exception):
    """Any error that wembed raises on purpose; its text is a sentence meant for a person."""


class MeasureError(WembedError, ValueError):
    """Numbers that are not measures."""


class ReadError(WembedError, ValueError):
    """A file that does not hold measures in a format wembed reads."""


class SettingError(WembedError, ValueError):
    """An argument or an option outside what is possible."""


class SolverError(WembedError, RuntimeError):
    """An exact solve that could not be certified; no number is returned."""


class ArtifactError(WembedError, RuntimeError):
    """A store, model or index that is damaged, or belongs to other data."""


class LockedError(ArtifactError):
    """A store that another process is writing."""


class ServiceError(WembedError, RuntimeError):
    """A service that refuses to answer, or is not there."""


class NotFittedError(WembedError, ValueError, AttributeError):
    """An Embedder that has not been fitted."""


class UnusualWarning(UserWarning):
    """Measures unlike those that a model learned from: their distances may be further off than its errors say."""


class SeenWarning(UserWarning):
    """An evaluation on measures that the model was fitted to or calibrated on: it looks better there than elsewhere."""

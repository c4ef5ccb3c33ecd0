"""Options: a number of another kind or out of range is refused by name, in a sentence."""

import math

import numpy as np

from wembed.errors import SettingError

__all__ = ["above_zero", "integral", "not_negative", "number", "share", "switch", "whole"]

_MOST = 2**63  # beyond it NumPy has no integer


def whole(name: str, value: object, least: int = 0, *, also: str = "") -> int:
    """A whole number of at least `least`; `also` names what else the option takes.

    Raises:
        SettingError: it is none.
    """
    if not integral(value) or not least <= int(value) < _MOST:  # type: ignore[call-overload]
        below = " and below 2^63" if integral(value) and int(value) >= _MOST else ""  # type: ignore[call-overload]
        raise SettingError(f"{name}={value!r}; give a whole number of at least {least}{below}{also}")
    return int(value)  # type: ignore[call-overload,no-any-return]


def integral(value: object) -> bool:
    """Whether it is a whole number, and not a truth value."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def number(value: object) -> bool:
    """Whether it is a real number, and not a truth value."""
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def above_zero(name: str, value: object, such_as: float) -> float:
    """A finite number above 0.

    Raises:
        SettingError: it is none.
    """
    if not number(value) or not 0 < float(value) < math.inf:  # type: ignore[arg-type]
        raise SettingError(f"{name}={value!r}; give a number above 0, such as {such_as:g}")
    return float(value)  # type: ignore[arg-type]


def not_negative(name: str, value: object) -> float:
    """A finite number of at least 0.

    Raises:
        SettingError: it is none.
    """
    if not number(value) or not 0 <= float(value) < math.inf:  # type: ignore[arg-type]
        raise SettingError(f"{name}={value!r}; give a finite number of at least 0")
    return float(value)  # type: ignore[arg-type]


def share(name: str, value: object, such_as: float, *, also: str = "") -> float:
    """A number between 0 and 1, neither of them.

    Raises:
        SettingError: it is none.
    """
    if not number(value) or not 0 < float(value) < 1:  # type: ignore[arg-type]
        raise SettingError(f"{name}={value!r}; give a share between 0 and 1, such as {such_as:g}{also}")
    return float(value)  # type: ignore[arg-type]


def switch(name: str, value: object) -> bool:
    """True or False.

    Raises:
        SettingError: it is neither.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise SettingError(f"{name}={value!r}; give True or False")
    return bool(value)

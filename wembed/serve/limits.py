"""Limits: what one request may ask for, so that none takes the service from the others."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from http import HTTPStatus

import numpy as np

from wembed.errors import WembedError
from wembed.options import whole

__all__ = ["Limits", "RefusedError"]


class RefusedError(WembedError):
    """A request that is answered with an error.

    Args:
        status: of HTTP.
        message: a sentence that names the thing, and the way out.
        limit: the name of the limit that it is over, if that is why.
    """

    def __init__(self, status: HTTPStatus, message: str, limit: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.limit = limit


@dataclass(frozen=True)
class Limits:
    """What one request may ask for.

    Attributes:
        body: bytes of a request's body.
        measures: measures in a request.
        atoms: atoms of all of them, pixels of images without mass included.
        pairs: distances in an answer.
        solves: exact distances in an answer.
        solved_atoms: atoms of a measure in an exact distance.
        work: pairs of atoms, one of each measure, in all exact distances.
        upload: seconds until the body of a request is there.
        queue: requests that are under way at once; those beyond it are asked to come again.

    Raises:
        SettingError: a limit below 1.
    """

    body: int = 32 << 20
    measures: int = 20_000
    atoms: int = 4_000_000
    pairs: int = 1_000_000
    solves: int = 2_000
    solved_atoms: int = 2_000
    work: int = 200_000_000
    upload: int = 60
    queue: int = 512

    def __post_init__(self) -> None:
        for field in fields(self):
            whole(field.name, getattr(self, field.name), 1)

    def check(
        self,
        name: str,
        count: int,
        what: str,
        status: HTTPStatus = HTTPStatus.UNPROCESSABLE_ENTITY,
        way_out: str = "ask for fewer at a time",
    ) -> None:
        """Refuse more than a limit allows.

        Raises:
            RefusedError: the message names the limit.
        """
        most = getattr(self, name)
        if count > most:
            raise RefusedError(
                status, f"{count:,} {what} are more than the limit {name!r} of {most:,}; {way_out}", name
            )

    def spending(self) -> Callable[[np.ndarray, np.ndarray], None]:
        """What counts the exact distances of one request before they are solved, by the atoms of both measures of each.

        It raises `RefusedError` once they are more, or more work, than one request may ask for.
        """
        count = work = 0

        def spend(n: np.ndarray, m: np.ndarray) -> None:
            nonlocal count, work
            count, work = count + len(n), work + int(n.astype(np.int64) @ m)
            self.check("solves", count, "exact distances")
            largest = int(max(np.max(n, initial=0), np.max(m, initial=0)))
            few = "take its predicted distances, or give it fewer atoms"
            self.check("solved_atoms", largest, "atoms of a measure to be solved exactly", way_out=few)
            self.check("work", work, "pairs of atoms in exact distances")

        return spend

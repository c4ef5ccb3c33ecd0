"""Answers: JSON, or NumPy's .npy and Arrow where a request asks for them."""

import io
import json
from http import HTTPStatus
from typing import Any

import numpy as np
import orjson
from starlette.responses import Response

from wembed.geometry import Decoded
from wembed.serve.limits import RefusedError

__all__ = ["ARROW", "NPY", "answer", "failure", "made", "refusal"]

JSON = "application/json"
NPY = "application/x-npy"
ARROW = "application/vnd.apache.arrow.stream"
_HEADERS = {
    HTTPStatus.SERVICE_UNAVAILABLE: {"Retry-After": "1"},
    HTTPStatus.UNAUTHORIZED: {"WWW-Authenticate": "Bearer"},
}


def answer(known: dict[str, Any], accepted: str = "", main: str | None = None, status: int = 200) -> Response:
    """What was found, as the request accepts it.

    Args:
        known: what was found, by name.
        accepted: the header Accept.
        main: the array that alone is given as .npy; None, where there is none.
        status: of HTTP.

    Raises:
        RefusedError: there is no such form of it.
    """
    form = _form(accepted, (JSON, ARROW) if main is None else (JSON, NPY, ARROW))
    if form == NPY:
        file = io.BytesIO()
        np.save(file, known[str(main)], allow_pickle=False)
        return Response(file.getvalue(), media_type=NPY)
    if form == ARROW:
        return Response(_table(known), media_type=ARROW)
    return Response(_json(known), status, media_type=JSON)


def _form(accepted: str, forms: tuple[str, ...]) -> str:
    """The form that a request accepts most (RFC 9110, 12.5.1); of equals the one that it names, and then the first.

    Raises:
        RefusedError: it accepts none of them.
    """
    if accepted in ("", "*/*", JSON):
        return JSON
    wanted: dict[str, tuple[float, int]] = {}
    for one in accepted.lower().split(","):
        kind, *parameters = (part.strip() for part in one.split(";"))
        given = [part[2:] for part in parameters if part.startswith("q=")]
        wanted[kind] = (_share(given[0]) if given else 1.0, kind.count("*"))

    def rank(form: str) -> tuple[float, int]:
        named = (kind for kind in (form, f"{form.partition('/')[0]}/*", "*/*") if kind in wanted)
        share, stars = wanted.get(next(named, ""), (0.0, 0))
        return share, -stars

    found = max(forms, key=rank)
    if rank(found)[0] <= 0:
        raise RefusedError(HTTPStatus.NOT_ACCEPTABLE, f"this is answered as {', '.join(forms)}; accept one of these")
    return found


def _share(given: str) -> float:
    try:
        return min(max(float(given), 0.0), 1.0)
    except ValueError:
        return 0.0


def made(found: Decoded, accepted: str = "") -> Response:
    """Measures that were made, as the request accepts them: images as .npy, any as Arrow in the form they are sent in.

    Raises:
        RefusedError: there is no such form of them.
    """
    measures, grid = found.measures, found.measures.grid
    form = _form(accepted, (JSON, ARROW) if grid is None else (JSON, NPY, ARROW))
    if form == NPY:
        return answer({"images": measures.histograms().reshape(-1, *(grid or ()))}, NPY, "images")
    if form == ARROW:
        points = measures.points()
        owner = np.repeat(np.arange(len(measures)), measures.sizes)
        axes = {f"x{axis}": column for axis, column in enumerate(points.T, 1)}
        return answer({"measure": owner, **axes, "weight": measures.weights}, ARROW)
    told = [{"points": one.support, "weights": one.weights, "grid": grid} for one in measures]
    return answer({"measures": told, "vectors": found.vectors})


def refusal(error: RefusedError, request_id: str) -> Response:
    """The answer to a request that is refused."""
    body = failure("RefusedError", str(error), request_id, error.limit)
    return Response(body, error.status, _HEADERS.get(error.status), JSON)


def failure(kind: str, message: str, request_id: str, limit: str | None = None) -> bytes:
    """The body of an answer that is an error."""
    return _json({"error": {"kind": kind, "message": message, "request_id": request_id, "limit": limit}})


def _json(known: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(known, default=_plain, option=orjson.OPT_SERIALIZE_NUMPY)
    except orjson.JSONEncodeError:  # whole numbers of more than 64 bits, which a payload may have
        return json.dumps(known, default=_plain, separators=(",", ":")).encode()


def _plain(value: Any) -> Any:
    """What orjson has no form for: arrays of strings, and views that are not contiguous."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(type(value).__name__)


def _table(known: dict[str, Any]) -> bytes:
    """A row for each measure, each pair, or each neighbour of each query."""
    import pyarrow as pa

    arrays = {name: np.asarray(value) for name, value in known.items() if isinstance(value, np.ndarray)}
    axes = max(array.ndim for array in arrays.values())
    if "vectors" in arrays:
        vectors = arrays.pop("vectors")
        flat = pa.array(vectors.ravel())
        columns = {"vector": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])}
    else:
        shape = next(array.shape for array in arrays.values() if array.ndim == axes)
        places = np.indices(shape) if axes == 2 else ()
        columns = {name: pa.array(place.ravel()) for name, place in zip(("row", "column"), places, strict=False)}
        arrays = {
            name: np.broadcast_to(array if array.ndim == axes else array[:, None], shape).ravel()
            for name, array in arrays.items()
        }
    table = pa.table(columns | {name: pa.array(array) for name, array in arrays.items()})
    file = io.BytesIO()
    with pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    return file.getvalue()

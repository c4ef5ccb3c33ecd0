"""Bodies of requests -> Measures: JSON, images, NumPy's files, and Arrow tables."""

import io
import struct
import zipfile
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel, ValidationError

from wembed.errors import MeasureError, ReadError
from wembed.measures import Measures
from wembed.readers import grey, laid_end_to_end, pictures, rows_of_atoms
from wembed.serve.limits import Limits, RefusedError
from wembed.serve.schemas import MeasureBody

__all__ = ["BINARY", "measures_of_bytes", "measures_of_json", "parsed"]

_TOO_LARGE = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
_MALFORMED = HTTPStatus.UNPROCESSABLE_ENTITY
_NAME = "the body"
_DICTIONARY = 2  # in the union MessageHeader
_KINDS_OF_ID = ("int", "str", "constrained-str")  # as the models call them
_SHOWN = 3  # problems of a body that an answer tells of

Model = TypeVar("Model", bound=BaseModel)

BINARY = {
    "image/png": "one image",
    "image/jpeg": "one image",
    "application/x-npy": "images (n, h, w), volumes (n, d, h, w), or histograms (n, s) where the index holds such",
    "application/x-npz": "'images'; or 'points' (atoms, dim), 'sizes' (n,) and optionally 'weights' (atoms,); or of "
    "histograms 'weights' (n, s)",
    "application/vnd.apache.arrow.stream": "a table of 'measure', 'x1', 'x2', ... and optionally 'weight'",
    "application/vnd.apache.arrow.file": "the same",
}


def parsed(model: type[Model], content: bytes | dict[str, Any], limits: Limits) -> Model:
    """JSON, or the parameters of a query, as a model.

    Raises:
        RefusedError: it is something else; the message says where. Or over a limit.
    """
    if isinstance(content, bytes):  # an empty list has as much of it in memory as a point
        limits.check("atoms", content.count(b"["), "lists in a body", _TOO_LARGE)
    try:
        if isinstance(content, dict):
            return model.model_validate(content, strict=False)
        return model.model_validate_json(content)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        found = dict.fromkeys(_told(one["loc"], one["msg"]) for one in problems)
        more = f", and {len(found) - _SHOWN:,} more" if len(found) > _SHOWN else ""
        raise RefusedError(_MALFORMED, "; ".join([*found][:_SHOWN]) + more) from error


def _told(place: tuple[int | str, ...], message: str) -> str:
    """A problem of a body: where, and what. What may be one of two kinds is told once."""
    if place and place[-1] in _KINDS_OF_ID:
        place, message = place[:-1], "Input should be a whole number below 2^63, or a string of 1 to 200 characters"
    return f"{'.'.join(map(str, place)) or _NAME}: {message}"


def measures_of_json(
    given: Sequence[MeasureBody],
    known: Callable[[list[int | str]], Measures],
    support: np.ndarray | None,
    limits: Limits,
) -> Measures:
    """Measures of one kind, as a list of JSON has them: images, clouds, histograms, or measures of the index.

    Args:
        given: of a body.
        known: the measures that the index holds under some ids.
        support: of histograms; None where the index has none in common.
        limits: what is too much.

    Raises:
        RefusedError: over a limit, or not of one kind.
        MeasureError: no measures.
    """
    limits.check("measures", len(given), "measures", _TOO_LARGE)
    kinds = {_kind(one, i) for i, one in enumerate(given)}
    if len(kinds) != 1:
        what = f"measures of {len(kinds)} kinds: {', '.join(sorted(kinds))}" if kinds else "no measures"
        raise RefusedError(
            _MALFORMED, f"there are {what}; give at least one, and all as points, as images, as weights, or by id"
        )
    if kinds == {"id"}:
        found = known([one.id for one in given if one.id is not None])
        limits.check("atoms", int(found.offsets[-1]), "atoms", _TOO_LARGE)
        return found
    if kinds == {"image"}:
        images = _numbers([one.image for one in given], "images", 3)
        limits.check("atoms", images.size, "pixels", _TOO_LARGE)
        return Measures.from_images(images)
    if kinds == {"weights"}:
        return _histograms(_numbers([one.weights for one in given], "weights", 2), support, limits)
    points = [_numbers(one.points, f"the points of measure {i}", 2) for i, one in enumerate(given)]
    limits.check("atoms", sum(map(len, points)), "atoms", _TOO_LARGE)
    weights = [
        np.ones(len(own)) if one.weights is None else _numbers(one.weights, f"the weights of measure {i}", 1)
        for i, (one, own) in enumerate(zip(given, points, strict=True))
    ]
    return Measures.from_point_clouds(points, weights)


def measures_of_bytes(content: bytes, kind: str, support: np.ndarray | None, limits: Limits) -> Measures:
    """The measures of a body of one of the kinds in `BINARY`, none of which is ever executed.

    Args:
        content: the body.
        kind: its content type.
        support: of histograms; None where the index has none in common.
        limits: what is too much.

    Raises:
        RefusedError: another kind, damaged, or over a limit.
        MeasureError: no measures.
        ReadError: a file of this kind, with something else in it.
    """
    if kind not in BINARY:
        raise RefusedError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"the content type {kind!r}; send application/json, or one of {', '.join(BINARY)}",
        )
    try:
        found = _READ[kind](content, support, limits)
    except (RefusedError, MeasureError, ReadError):
        raise
    except Exception as error:  # parsers meet damage with errors of every kind
        unnamed = str(error) and "object at 0x" not in str(error)
        reason = str(error).splitlines()[0] if unnamed else type(error).__name__
        raise RefusedError(_MALFORMED, f"{_NAME} is damaged or no whole {kind}: {reason}") from error
    limits.check("measures", len(found), "measures", _TOO_LARGE)
    limits.check("atoms", int(found.offsets[-1]), "atoms", _TOO_LARGE)
    return found


def _kind(one: MeasureBody, number: int) -> str:
    given = [name for name in ("points", "image", "id", "weights") if getattr(one, name) is not None]
    if len(given) != 1 and given != ["points", "weights"]:
        raise RefusedError(
            _MALFORMED,
            f"measure {number} has {' and '.join(given) or 'nothing'}; give points and weights, an image, weights of a "
            "histogram, or an id",
        )
    return given[0]


def _histograms(weights: np.ndarray, support: np.ndarray | None, limits: Limits) -> Measures:
    if support is None:
        raise RefusedError(_MALFORMED, "weights alone are of histograms, and this index holds none; give points too")
    limits.check("atoms", weights.size, "weights", _TOO_LARGE)
    return Measures.from_histograms(weights, support)


def _numbers(values: Any, what: str, axes: int) -> np.ndarray:
    try:
        array = np.array(values, dtype=np.float64)
    except ValueError:  # lists of other lengths
        array = np.empty(0)
    if array.ndim != axes:
        form = " of lists" * (axes - 1)
        raise RefusedError(_MALFORMED, f"{what}: this is no list{form} of numbers, all of one size")
    return array


def _of_image(content: bytes, support: np.ndarray | None, limits: Limits) -> Measures:
    from PIL import Image

    with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as image:
        limits.check("atoms", image.width * image.height, "pixels", _TOO_LARGE)
        return pictures(_NAME, grey(image)[None])


def _of_npy(content: bytes, support: np.ndarray | None, limits: Limits) -> Measures:
    array = _npy(io.BytesIO(content), len(content), limits)
    return _histograms(array, support, limits) if array.ndim == 2 and support is not None else pictures(_NAME, array)


def _of_npz(content: bytes, support: np.ndarray | None, limits: Limits) -> Measures:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        sizes = {entry.filename.removesuffix(".npy"): entry.file_size for entry in archive.infolist()}
        wanted = [name for name in ("images", "points", "sizes", "weights") if name in sizes]
        limits.check("body", sum(sizes[name] for name in wanted), "bytes in a .npz", _TOO_LARGE)
        arrays = {}
        for name in wanted:
            with archive.open(f"{name}.npy") as file:
                arrays[name] = _npy(io.BytesIO(file.read(sizes[name])), sizes[name], limits)
    if wanted == ["images"]:
        return pictures(_NAME, arrays["images"])
    if wanted[:2] == ["points", "sizes"]:
        return laid_end_to_end(_NAME, arrays["points"], arrays["sizes"], arrays.get("weights"))
    if wanted == ["weights"]:
        return _histograms(arrays["weights"], support, limits)
    raise RefusedError(
        _MALFORMED, f"{_NAME} has the keys {', '.join(sizes) or '(none)'}; expected {BINARY['application/x-npz']}"
    )


def _npy(file: io.BytesIO, size: int, limits: Limits) -> np.ndarray:
    """An array whose header is true: no more is ever taken for it than it has bytes."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    count = int(np.prod([int(side) for side in shape], dtype=object)) if shape else 1
    if dtype.hasobject or dtype.kind not in "biuf":
        raise RefusedError(_MALFORMED, f"{_NAME} has an array of {dtype}; send numbers")
    if count * dtype.itemsize != size - file.tell():
        raise RefusedError(
            _MALFORMED, f"{_NAME} has {size:,} bytes, which are not those of an array of {dtype} of shape {shape}"
        )
    limits.check("atoms", count, "numbers in an array", _TOO_LARGE)
    return np.frombuffer(file.getbuffer()[file.tell() :], dtype).reshape(shape, order="F" if fortran else "C")


def _of_arrow(content: bytes, support: np.ndarray | None, limits: Limits) -> Measures:
    import pyarrow as pa

    stream = content[8:] if content.startswith(b"ARROW1") else content  # what a file has before its index is a stream
    for message in pa.MessageReader.open_stream(stream):
        if message.type in ("record batch", "dictionary") and _compressed(message.metadata.to_pybytes()):
            raise RefusedError(_MALFORMED, f"{_NAME} is a compressed Arrow table; send it without compression")
    batches, rows = [], 0
    with pa.ipc.open_stream(stream) as reader:
        for batch in reader:
            rows += batch.num_rows
            limits.check("atoms", rows, "atoms", _TOO_LARGE)
            batch.validate(full=True)
            batches.append(batch)
        return rows_of_atoms(_NAME, pa.Table.from_batches(batches, reader.schema))


def _compressed(metadata: bytes) -> bool:
    """Whether the header of a message of Arrow, a flatbuffer (Message.fbs), names a codec: small may become huge then.

    A dictionary batch has a record batch in it, in field 1; that names its codec in field 3.
    """

    def field(table: int, number: int) -> int:
        fields = table - int(struct.unpack_from("<i", metadata, table)[0])
        (size,) = struct.unpack_from("<H", metadata, fields)
        place = 4 + 2 * number
        offset = struct.unpack_from("<H", metadata, fields + place)[0] if place < size else 0
        return table + offset if offset else 0

    def inner(place: int) -> int:
        return place + int(struct.unpack_from("<I", metadata, place)[0])

    message = inner(0)
    header = inner(field(message, 2))
    if metadata[field(message, 1)] == _DICTIONARY:
        header = inner(field(header, 1))
    return bool(field(header, 3))


_READ: dict[str, Callable[[bytes, np.ndarray | None, Limits], Measures]] = {
    "image/png": _of_image,
    "image/jpeg": _of_image,
    "application/x-npy": _of_npy,
    "application/x-npz": _of_npz,
    "application/vnd.apache.arrow.stream": _of_arrow,
    "application/vnd.apache.arrow.file": _of_arrow,
}

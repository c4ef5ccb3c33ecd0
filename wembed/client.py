"""Client: the verbs of an Embedder and an Index, asked of a service over HTTP; it takes neither torch nor POT."""

import io
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32, Float64

from wembed import errors
from wembed.errors import ServiceError, SettingError
from wembed.measures import Measure, Measures
from wembed.records import Distances, Entry, Id, Neighbors
from wembed.unusual import warn_of_unusual, warn_of_unusual_sides

if TYPE_CHECKING:
    import httpx
    import pyarrow

__all__ = ["Client"]

_NPZ = "application/x-npz"
_ARROW = "application/vnd.apache.arrow.stream"
_AGAIN = (503,)
_ATOMS = 500_000  # pixels or atoms in a body of many measures


class Client:
    """A service, asked as if its model and its index were here; of unusual measures it warns (`UnusualWarning`) too.

    Args:
        url: of the service, such as "http://127.0.0.1:8000".
        key: where the service takes keys.
        timeout: seconds to wait for an answer.
        retries: how often to ask again, a little later each time, where the service has too much to do.

    Raises:
        SettingError: no URL, or no key.

    Every verb raises errors of the kinds that it would raise here, and `ServiceError` where the service refuses, as it
    does more than one of its limits, or is not there.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        timeout: float = 60.0,
        retries: int = 5,
    ) -> None:
        try:
            import httpx
        except ModuleNotFoundError as error:
            raise SettingError("a client takes httpx, which `pip install 'wembed[client]'` brings") from error
        if key is not None and not (key.isascii() and key.isprintable() and key.strip()):
            raise SettingError("the key is empty or has characters that no key has; give what `wembed key` printed")
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._retries = retries
        try:
            self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout)
            known = self._http.base_url.scheme in ("http", "https")
        except (httpx.InvalidURL, UnicodeError, TypeError):
            known = False
        if not known:
            raise SettingError(f"url={url!r}; give one such as http://127.0.0.1:8000")

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let the connections go."""
        self._http.close()

    def info(self) -> dict[str, Any]:
        """What the service is: its model, the errors of that, and its limits."""
        return dict(self._asked("GET", "/v1/info").json())

    def transform(self, measures: Measures) -> Float32[np.ndarray, "n dim"]:
        """The vector of each measure; of many, asked for some at a time."""
        parts = [_table(self._post("/v1/embed", part, accept=_ARROW).content) for part in _parts(measures)]
        if not parts:
            return np.empty((0, self.info()["dim"]), dtype=np.float32)
        warn_of_unusual(np.concatenate([part.column("unusualness").to_numpy() for part in parts]))
        columns = [part.column("vector").combine_chunks() for part in parts]
        return np.concatenate([one.flatten().to_numpy().reshape(len(one), -1) for one in columns])

    def distance(
        self,
        a: Measures,
        b: Measures,
        *,
        interval: float | None = None,
        tolerance: float | None = None,
        budget: int | None = None,
        refine: bool | None = None,
        exact: bool = False,
    ) -> "Float64[np.ndarray, ' n'] | Distances":
        """Of a[i] and b[i]: the predicted ones, or with any option a record, as of `Embedder.distance`.

        With `exact` all of them are solved.
        """
        options = _given(interval=interval, tolerance=tolerance, budget=budget, refine=refine, exact=exact or None)
        return self._distances("/v1/distance", (a, b), options, (len(a),))

    def pairwise(
        self,
        a: Measures,
        b: Measures | None = None,
        *,
        interval: float | None = None,
        tolerance: float | None = None,
        budget: int | None = None,
        refine: bool | None = None,
        exact: bool = False,
    ) -> "Float64[np.ndarray, 'n m'] | Distances":
        """Of each a[i] and each b[j], or of a itself; as `Embedder.pairwise`. With `exact` all of them are solved."""
        options = _given(interval=interval, tolerance=tolerance, budget=budget, refine=refine, exact=exact or None)
        sides = (a,) if b is None else (a, b)
        return self._distances("/v1/pairwise", sides, options, (len(a), len(sides[-1])))

    def query(
        self,
        measures: Measures,
        k: int = 10,
        rerank: int = 0,
        *,
        recall: float | None = None,
        among: Iterable[Id] | None = None,
    ) -> Neighbors:
        """The k nearest measures of the index to each; as `Index.query`."""
        options = _given(k=k, rerank=rerank, recall=recall, among=None if among is None else _plain(list(among)))
        if among is None:
            found = self._post("/v1/neighbors", measures, options).json()
        else:  # ids may be too many for a URL
            body = options | {"measures": [_listed(measures, i) for i in range(len(measures))]}
            found = self._asked("POST", "/v1/neighbors", json=body).json()
        warn_of_unusual(np.array(found["unusualness"]))
        return Neighbors(np.array(found["ids"]), np.array(found["distances"]), np.array(found["solved"]))

    def barycenter(
        self, measures: Measures, weights: Any = None, *, method: str = "learned", normalize: bool = False
    ) -> Measures:
        """The Wasserstein barycenter; as `wembed.geometry.barycenter`."""
        if not len(measures):
            raise SettingError("there are no measures to find a barycenter of")
        options = _given(weights=_plain(weights), method=method, normalize=normalize)
        return _made(self._post("/v1/barycenter", measures, options).json())

    def interpolate(self, a: Measures, b: Measures, t: Any, *, method: str = "learned") -> Measures:
        """What lies on the way from a[i] to b[i], at each t; as `wembed.geometry.interpolate`."""
        files = {name: (name, _npz(side), _NPZ) for name, side in (("a", a), ("b", b))}
        options = {"t": [float(one) for one in np.atleast_1d(t)], "method": method}
        return _made(self._asked("POST", "/v1/interpolate", files=files, params=options).json())

    def add(
        self,
        measures: Measures,
        ids: Any = None,
        labels: Any = None,
        payloads: list[Any] | None = None,
        *,
        update: bool = False,
    ) -> np.ndarray:
        """Take measures into the index, or with `update` put them in the place of others; their ids.

        They are on the service's disk when this returns. It is asked once, and not again where no answer comes: with
        ids of your own you may ask again, and are told where they are there already.
        """
        named = None if labels is None else [None if one is None else str(one) for one in _plain(labels)]
        body = {"measures": [_listed(measures, i) for i in range(len(measures))], "update": update}
        body |= _given(ids=_plain(ids), labels=named, payloads=payloads)
        if not len(measures):
            return np.empty(0, dtype=np.int64)
        return np.array(self._asked("POST", "/v1/measures", json=body).json()["ids"])

    def remove(self, ids: Iterable[Id]) -> None:
        """Forget measures."""
        gone = _plain(list(ids))
        if gone:
            self._asked("DELETE", "/v1/measures", json={"ids": gone})

    def __getitem__(self, wanted: Id) -> Entry:
        """What the index holds of one measure."""
        (found,) = self._asked("GET", "/v1/measures", params={"id": str(wanted)}).json()["measures"]
        measure = Measure(np.array(found["points"], dtype=np.float64), np.array(found["weights"]))
        vector = np.array(found["vector"], dtype=np.float32)
        return Entry(found["id"], measure, vector, found["label"], found["payload"])

    def _distances(
        self, path: str, sides: tuple[Measures, ...], options: dict[str, Any], shape: tuple[int, ...]
    ) -> "np.ndarray | Distances":
        files = {name: (name, _npz(side), _NPZ) for name, side in zip("ab", sides, strict=False)}
        found = self._asked("POST", path, files=files, params=options, headers={"Accept": _ARROW})
        table = _table(found.content)

        def column(name: str) -> np.ndarray:
            return np.asarray(table.column(name).to_numpy(zero_copy_only=False).reshape(shape))

        unusualness = column("unusualness")
        warn_of_unusual_sides(unusualness, len(sides))
        if not options:
            return column("predicted")
        names = ("predicted", "estimate", "lower", "upper", "exact")
        arrays: dict[str, Any] = {name: column(name) for name in names}
        return Distances(**arrays, unusualness=unusualness, solved=int(found.headers["x-solved"]))

    def _post(
        self, path: str, measures: Measures, options: dict[str, Any] | None = None, accept: str = "application/json"
    ) -> "httpx.Response":
        headers = {"Content-Type": _NPZ, "Accept": accept}
        return self._asked("POST", path, content=_npz(measures), params=options or {}, headers=headers)

    def _asked(self, verb: str, path: str, **what: Any) -> "httpx.Response":
        import httpx

        if self._http.is_closed:
            raise ServiceError("this client has been closed; make another one")
        for attempt in range(self._retries + 1):
            try:
                found = self._http.request(verb, path, **what)
            except (TypeError, ValueError) as error:  # such as a payload that JSON has no form for
                raise SettingError(f"what is asked has no form as a request: {error}") from error
            except httpx.HTTPError as error:
                raise ServiceError(f"{self._http.base_url} did not answer: {error or type(error).__name__}") from error
            if found.status_code not in _AGAIN or attempt == self._retries:
                break
            time.sleep(_seconds(found.headers.get("retry-after", "1")) * 2**attempt / 4)
        if found.is_success:
            return found
        try:
            problem = found.json()["error"]
            kind, message = getattr(errors, problem["kind"], ServiceError), problem["message"]
        except (ValueError, KeyError, TypeError):
            kind, message = ServiceError, f"{self._http.base_url} answered {found.status_code} {found.reason_phrase}"
        ours = isinstance(kind, type) and issubclass(kind, errors.WembedError)
        raise kind(message) if ours else ServiceError(message)


def _made(found: dict[str, Any]) -> Measures:
    """Measures that a service has made: images as images, all else as clouds."""
    told = found["measures"]
    points = [np.array(one["points"], dtype=np.float64) for one in told]
    if told[0]["grid"] is None:
        return Measures.from_point_clouds(points, [np.array(one["weights"]) for one in told])
    images = np.zeros((len(told), *told[0]["grid"]))
    for image, places, one in zip(images, points, told, strict=True):
        image[tuple(places.astype(int).T)] = one["weights"]
    return Measures.from_images(images)


def _seconds(after: str) -> float:
    """Of a header Retry-After, which may have a date in place of them."""
    return float(after) if after.isdecimal() and len(after) < 3 else 1.0


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _plain(values: Any) -> Any:
    return None if values is None else [one.item() if isinstance(one, np.generic) else one for one in values]


def _parts(measures: Measures) -> Iterator[Measures]:
    """Of many measures some at a time, each a body that a service takes."""
    sizes = measures.sizes if measures.grid is None else np.full(len(measures), int(np.prod(measures.grid)))
    bodies = np.cumsum(sizes) // _ATOMS
    for body in np.unique(bodies).tolist():
        yield measures[bodies == body]


def _npz(measures: Measures) -> bytes:
    """Images as images, all else as points laid end to end."""
    file = io.BytesIO()
    if measures.grid is not None:
        np.savez(file, images=measures.histograms().reshape(len(measures), *measures.grid))
    else:
        np.savez(file, points=measures.points(), sizes=measures.sizes, weights=measures.weights)
    return file.getvalue()


def _listed(measures: Measures, number: int) -> dict[str, Any]:
    """One measure as JSON has it."""
    if measures.grid is not None and len(measures.grid) == 2:
        return {"image": measures[[number]].histograms().reshape(measures.grid).tolist()}
    one = measures[number]
    return {"points": one.support.tolist(), "weights": one.weights.tolist()}


def _table(content: bytes) -> "pyarrow.Table":
    import pyarrow as pa

    return pa.ipc.open_stream(content).read_all()

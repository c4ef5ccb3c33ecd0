"""The HTTP app: paths, bodies and answers around the verbs of a Service."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse
from starlette.routing import Route
from starlette.staticfiles import StaticFiles

from wembed.errors import MeasureError, ReadError, SettingError, WembedError
from wembed.measures import Measures
from wembed.records import Distances
from wembed.serve import schemas
from wembed.serve.answers import answer, failure, made, refusal
from wembed.serve.gate import Gate
from wembed.serve.keys import Key
from wembed.serve.limits import RefusedError
from wembed.serve.openapi import describe
from wembed.serve.requests import asked_of, removed_of, sides_of, wanted_of
from wembed.serve.service import NotWrittenError, Service

__all__ = ["create_app"]

_STATIC = Path(__file__).parent / "static"
_SAFE = {"Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; style-src 'self'"}
_ASKED_WRONGLY = (MeasureError, ReadError, SettingError)
_log = logging.getLogger("wembed.serve")


def create_app(service: Service, keys: tuple[Key, ...] | None = None, hosts: frozenset[str] | None = None) -> FastAPI:
    """An app that answers over HTTP, and closes the service when it ends.

    Args:
        service: what is asked.
        keys: those who may ask; None for everybody who reaches the port.
        hosts: names that it may be asked by, as the header Host has them; None for any.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.ready = True
        yield
        app.state.ready = False
        await asyncio.to_thread(service.close)

    app = FastAPI(title="wembed", version="1", docs_url=None, redoc_url=None, lifespan=lifespan)
    app.add_middleware(Gate, limits=service.limits, keys=keys, metrics=service.metrics, hosts=hosts)

    @app.exception_handler(WembedError)
    async def wrong(request: Request, error: WembedError) -> Response:
        if isinstance(error, RefusedError):
            return refusal(error, request.state.request_id)
        asked = isinstance(error, _ASKED_WRONGLY)
        status = HTTPStatus.UNPROCESSABLE_ENTITY if asked else HTTPStatus.INTERNAL_SERVER_ERROR
        return _failed(request, status, type(error).__name__, str(error))

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        return _failed(request, HTTPStatus(error.status_code), "HTTPException", str(error.detail), error.headers)

    @app.exception_handler(RequestValidationError)
    async def misasked(request: Request, error: RequestValidationError) -> Response:
        told = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        return _failed(request, HTTPStatus.UNPROCESSABLE_ENTITY, "SettingError", told)

    @app.exception_handler(NotWrittenError)
    async def full(request: Request, error: NotWrittenError) -> Response:
        _log.exception("request %s", request.state.request_id)
        return _failed(request, HTTPStatus.INSUFFICIENT_STORAGE, "OSError", str(error))

    @app.exception_handler(MemoryError)
    async def huge(request: Request, error: MemoryError) -> Response:
        message = "this takes more memory than there is; ask for less at a time"
        return _failed(request, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "MemoryError", message)

    @app.post("/v1/embed", response_model=schemas.Embedded)
    async def embed(request: Request) -> Response:
        """The vector of each measure."""
        measures, _ = await asked_of(request, service, schemas.Nothing, schemas.MeasuresBody)
        return answer(vars(await service.embed(measures)), _accepted(request), "vectors")

    @app.post("/v1/distance", response_model=schemas.Distances)
    async def distance(request: Request) -> Response:
        """The distance of the first measure of `a` and the first of `b`, and so on."""
        a, b, asked = await sides_of(request, service, schemas.DistanceOptions, schemas.DistanceBody)
        return _distances(await service.distance(a, _there(b), asked), asked, request)

    @app.post("/v1/pairwise", response_model=schemas.Distances)
    async def pairwise(request: Request) -> Response:
        """The distance of each measure of `a` and each of `b`, or of `a` itself."""
        a, b, asked = await sides_of(request, service, schemas.DistanceOptions, schemas.PairwiseBody)
        return _distances(await service.pairwise(a, b, asked), asked, request)

    @app.post("/v1/neighbors", response_model=schemas.Neighbors)
    async def neighbors(request: Request) -> Response:
        """The measures of the index that are nearest to each."""
        measures, asked = await asked_of(request, service, schemas.NeighborsOptions, schemas.NeighborsBody)
        return answer(await service.neighbors(measures, asked), _accepted(request))

    @app.post("/v1/barycenter", response_model=schemas.Made)
    async def barycenter(request: Request) -> Response:
        """The measure whose mean squared distance to the measures is least."""
        measures, asked = await asked_of(request, service, schemas.BarycenterOptions, schemas.BarycenterBody)
        return made(await service.barycenter(measures, asked), _accepted(request))

    @app.post("/v1/interpolate", response_model=schemas.Made)
    async def interpolate(request: Request) -> Response:
        """What lies on the way from the first measure of `a` to the first of `b`, and so on."""
        a, b, asked = await sides_of(request, service, schemas.InterpolateOptions, schemas.InterpolateBody)
        return made(await service.interpolate(a, _there(b), asked), _accepted(request))

    @app.post("/v1/measures", response_model=schemas.Added, status_code=HTTPStatus.CREATED)
    async def add(request: Request) -> Response:
        """Take measures into the index; they are on the disk when this is answered."""
        measures, asked = await asked_of(request, service, schemas.AddOptions, schemas.AddBody)
        return answer({"ids": await service.add(measures, asked)}, status=HTTPStatus.CREATED)

    @app.delete("/v1/measures", response_model=schemas.Removed)
    async def remove(request: Request) -> Response:
        """Forget the measures with these ids, which are in the query; many are in a body of JSON."""
        return answer({"removed": await service.remove(await removed_of(request, service))})

    @app.get("/v1/measures/{id:path}", response_model=schemas.Entry)
    async def entry(request: Request, id: str) -> Response:
        """A measure of the index, and what is known of it."""
        found = await service.entry(id)
        if found is None:
            message = f"there is no measure with the id {id!r} in this index"
            return _failed(request, HTTPStatus.NOT_FOUND, SettingError.__name__, message)
        return answer(found)

    @app.get("/v1/measures", response_model=schemas.Entries)
    async def entries(request: Request) -> Response:
        """Measures of the index, and what is known of them."""
        return answer({"measures": await service.entries(wanted_of(request))})

    @app.get("/v1/map", response_model=schemas.Chart)
    async def chart(method: str = "pca") -> Response:
        """The measures of the index on two axes: principal ones of the vectors, or by UMAP where that is installed."""
        return answer(vars(await service.chart(method)))

    @app.get("/v1/info", response_model=schemas.Info)
    async def info() -> dict[str, Any]:
        """The model, its errors, and the limits of this service."""
        return await service.info()

    @app.head("/healthz", include_in_schema=False)
    @app.get("/healthz")
    async def healthy() -> dict[str, str]:
        """It is there."""
        return {"status": "ok"}

    @app.head("/readyz", include_in_schema=False)
    @app.get("/readyz")
    async def ready(request: Request) -> dict[str, str]:
        """It takes requests."""
        if not request.app.state.ready:
            raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, "the service is ending")
        return {"status": "ok"}

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """What Prometheus reads."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    @app.head("/", include_in_schema=False)
    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        """A page to look at the collection."""
        return FileResponse(_STATIC / "index.html", headers=_SAFE)

    # FastAPI describes these, and Starlette alone is quicker to call them, as they read their requests by themselves.
    app.router.routes[:0] = [
        Route(f"/v1/{endpoint.__name__}", endpoint, methods=["POST"])
        for endpoint in (distance, embed, neighbors, pairwise)
    ]
    app.mount("/static", StaticFiles(directory=_STATIC), name="static")
    describe(app, lambda: service.collection.index)
    return app


def _there(b: Measures | None) -> Measures:
    if b is None:
        raise RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, "b: there are no measures to go with those of a")
    return b


def _accepted(request: Request) -> str:
    return ", ".join(request.headers.getlist("accept"))


def _distances(found: Distances, asked: schemas.DistanceOptions, request: Request) -> Response:
    """The predicted ones; and where more was asked, all that is known."""
    accepted = _accepted(request)
    if asked.plain:
        return answer({"predicted": found.predicted, "unusualness": found.unusualness}, accepted, "predicted")
    told = answer(found.arrays | {"solved": found.solved}, accepted, "estimate")
    told.headers["X-Solved"] = str(found.solved)
    return told


def _failed(
    request: Request, status: HTTPStatus, kind: str, message: str, headers: Mapping[str, str] | None = None
) -> Response:
    body = failure(kind, message, request.state.request_id)
    return Response(body, status, headers, "application/json")

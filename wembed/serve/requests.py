"""Requests -> measures, and what is asked of them."""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, TypeVar, cast

from fastapi import Request
from pydantic import BaseModel
from starlette.datastructures import QueryParams, UploadFile

from wembed.errors import WembedError
from wembed.measures import Measures
from wembed.serve.bodies import measures_of_bytes, measures_of_json, parsed
from wembed.serve.limits import RefusedError
from wembed.serve.schemas import MeasureBody, RemoveBody
from wembed.serve.service import Service

__all__ = ["asked_of", "removed_of", "sides_of", "wanted_of"]

_LONG = 1 << 18  # bytes of a body, from which on the thread that all requests share does not read it
_SHOWN = 5  # names of a query that an answer tells of
_FIELDS = 20  # of a form, which are read to tell that they belong elsewhere
_JSON = "application/json"
_FORM = "multipart/form-data"
_LISTS = ("among", "ids", "labels", "t", "weights")  # options that a query may give more than once

Options = TypeVar("Options", bound=BaseModel)
Found = TypeVar("Found")


async def asked_of(
    request: Request, service: Service, options: type[Options], body: type[Options]
) -> tuple[Measures, Options]:
    """The measures of a request, and what is asked of them: both in JSON; or measures alone, and options in the query.

    Args:
        request: as it came.
        service: knows the limits, and the measures that are asked for by id.
        options: what can be asked.
        body: the same, and `measures`.

    Raises:
        RefusedError: another content type, not what it says it is, or over a limit.
        MeasureError: no measures.
    """
    content, kind = await request.body(), _kind(request.headers.get("content-type"))

    def read() -> tuple[Measures, Options]:
        if kind == _JSON:
            _check_no_query(request)
            asked = parsed(body, content, service.limits)
            return _listed(cast(Any, asked).measures, service), asked
        return _filed(content, kind, service), parsed(options, _query(request.query_params), service.limits)

    return await _read({kind: content}, read)


async def removed_of(request: Request, service: Service) -> list[int | str]:
    """The ids that a request names, in its query or in its body.

    Raises:
        RefusedError: none, in both places, or more than a limit.
    """
    content = await request.body()
    if content:
        _check_no_query(request)
        ids = (await asyncio.to_thread(parsed, RemoveBody, content, service.limits)).ids
    else:
        ids = wanted_of(request)
    service.limits.check("measures", len(ids), "ids", HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    return ids


def wanted_of(request: Request) -> list[int | str]:
    """The ids that a query names.

    Raises:
        RefusedError: none.
    """
    ids: list[int | str] = [*request.query_params.getlist("id")]
    if not ids:
        raise RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, "id: give one at least, as in ?id=3&id=4")
    return ids


async def sides_of(
    request: Request, service: Service, options: type[Options], body: type[Options]
) -> tuple[Measures, Measures | None, Options]:
    """The two sides of what is asked, in JSON or in a form with a file for each; a body of another kind is one side.

    Raises:
        RefusedError: another content type, not what it says it is, or over a limit.
        MeasureError: no measures.
    """
    kind = _kind(request.headers.get("content-type"))
    parts = {} if kind == _FORM else {"a": (await request.body(), kind)}
    if kind == _FORM:
        async with request.form(max_files=2, max_fields=_FIELDS) as form:
            for name, file in form.multi_items():
                if not isinstance(file, UploadFile):
                    raise RefusedError(
                        HTTPStatus.UNPROCESSABLE_ENTITY,
                        f"the form has {name[:40]!r} in a field; options go into the query, as in ?interval=0.9",
                    )
                parts[name] = await file.read(), _kind(file.content_type)
        if "a" not in parts or not parts.keys() <= {"a", "b"}:
            raise RefusedError(
                HTTPStatus.UNPROCESSABLE_ENTITY, "a form has a file 'a' and, unless that is all, one 'b'"
            )

    def read() -> tuple[Measures, Measures | None, Options]:
        if kind == _JSON:
            _check_no_query(request)
            asked: Any = parsed(body, parts["a"][0], service.limits)
            return *_listed_sides(asked.a, asked.b, service), asked
        a, b = (_filed(*parts[name], service) if name in parts else None for name in ("a", "b"))
        assert a is not None
        return a, b, parsed(options, _query(request.query_params), service.limits)

    return await _read({kind: content for content, kind in parts.values()}, read)


def _listed(given: list[MeasureBody], service: Service) -> Measures:
    return service.placed(measures_of_json(given, service.known, service.support, service.limits))


def _listed_sides(
    a: list[MeasureBody], b: list[MeasureBody] | None, service: Service
) -> tuple[Measures, Measures | None]:
    """Both sides, where they are images in one go: of a single pair that takes half the time."""
    if b and a and b[0].image is not None and a[0].image is not None:
        try:
            together = _listed([*a, *b], service)
            return together[: len(a)], together[len(a) :]
        except WembedError:
            pass  # which side it is about is told below
    return _listed(a, service), None if b is None else _listed(b, service)


def _filed(content: bytes, kind: str, service: Service) -> Measures:
    return service.placed(measures_of_bytes(content, kind, service.support, service.limits))


def _check_no_query(request: Request) -> None:
    if request.query_params:
        given = ", ".join([*request.query_params][:_SHOWN])
        raise RefusedError(
            HTTPStatus.UNPROCESSABLE_ENTITY, f"the query has {given}; options go into the body where that is JSON"
        )


async def _read(parts: dict[str, bytes], read: Callable[[], Found]) -> Found:
    """Short JSON with the measures in it at once, all else in a thread: what is packed or kept may be large."""
    short = all(kind == _JSON and len(one) <= _LONG and b'"id"' not in one for kind, one in parts.items())
    return read() if short else await asyncio.to_thread(read)


def _kind(content_type: str | None) -> str:
    """Without what stands behind it, such as a charset."""
    return (content_type or "").partition(";")[0].strip().lower()


def _query(query: QueryParams) -> dict[str, Any]:
    return {name: query.getlist(name) if name in _LISTS else query[name] for name in query}

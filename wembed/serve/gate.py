"""Gate: what every request passes, on its way in and out: its id, key, limits, log line and numbers."""

import json
import logging
import re
import secrets
import time
from http import HTTPStatus

from starlette.datastructures import Headers, MutableHeaders
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wembed.serve.answers import refusal
from wembed.serve.keys import Key, scopes_of
from wembed.serve.limits import Limits, RefusedError
from wembed.serve.metrics import Metrics

__all__ = ["Gate"]

_OPEN = ("/healthz", "/readyz")  # asked by those who watch over the service, and never refused
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_log = logging.getLogger("wembed.serve")


def _path(scope: Scope) -> str:
    """The path as the app declares it, without what was in its place; "other" of one that is not there."""
    if "route" in scope:
        return str(getattr(scope["route"], "path_format", "other"))
    routes = getattr(scope.get("app"), "routes", ())
    matching = (route.path_format for route in routes if route.matches(scope)[0] is Match.FULL)
    return next(map(str, matching), "other")


class Gate:
    """Middleware around the whole app.

    Args:
        app: what answers.
        limits: of bodies, and of requests under way.
        keys: that are let in; None lets everybody in.
        metrics: where requests are counted.
    """

    def __init__(self, app: ASGIApp, limits: Limits, keys: tuple[Key, ...] | None, metrics: Metrics) -> None:
        self._app, self._limits, self._keys, self._metrics = app, limits, keys, metrics
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers, started, status = Headers(scope=scope), time.perf_counter(), 500
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id
        self._under_way += 1
        self._metrics.under_way.inc()

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        try:
            try:
                self._check(scope, headers)
            except RefusedError as error:
                await refusal(error, request_id)(scope, receive, sending)
            else:
                await self._app(scope, self._counted(receive), sending)
        finally:
            self._under_way -= 1
            self._metrics.under_way.dec()
            seconds = time.perf_counter() - started
            path = _path(scope)
            self._metrics.requests.labels(path, status).inc()
            self._metrics.seconds.labels(path).observe(seconds)
            if _log.isEnabledFor(logging.INFO):
                _log.info(
                    json.dumps(
                        {
                            "time": time.time(),
                            "request_id": request_id,
                            "method": scope["method"],
                            "path": path,
                            "status": status,
                            "milliseconds": round(seconds * 1e3, 3),
                        }
                    )
                )

    def _check(self, scope: Scope, headers: Headers) -> None:
        path = scope["path"]
        if path in _OPEN:
            return
        if self._keys is not None and path != "/" and not path.startswith("/static/"):  # the page asks for a key itself
            self._check_key(
                headers, "write" if path.startswith("/v1/measures") and scope["method"] != "GET" else "read"
            )
        if self._under_way > self._limits.queue:
            raise RefusedError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"{self._limits.queue:,} requests are under way, the limit 'queue'; come again in a second",
                "queue",
            )
        length = headers.get("content-length", "0")
        if length.isascii() and length.isdecimal() and len(length) < 20:
            self._check_body(int(length))

    def _check_key(self, headers: Headers, scope: str) -> None:
        kind, _, key = headers.get("authorization", "").partition(" ")
        scopes = scopes_of(key.strip(), self._keys or ()) if kind.lower() == "bearer" else frozenset[str]()
        if not scopes:
            raise RefusedError(
                HTTPStatus.UNAUTHORIZED, "this takes a key that the service knows, as Authorization: Bearer KEY"
            )
        if scope not in scopes:
            raise RefusedError(HTTPStatus.FORBIDDEN, f"this takes a key with the scope {scope!r}, and yours has none")

    def _check_body(self, count: int) -> None:
        self._limits.check("body", count, "bytes of a body", HTTPStatus.REQUEST_ENTITY_TOO_LARGE)

    def _counted(self, receive: Receive) -> Receive:
        """A body may be longer than it says, or not say how long it is."""
        count = 0

        async def counting() -> Message:
            nonlocal count
            message = await receive()
            count += len(message.get("body", b""))
            self._check_body(count)
            return message

        return counting

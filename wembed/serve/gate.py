"""Gate: what every request passes, on its way in and out: its id, key, limits, log line and numbers."""

import asyncio
import json
import logging
import re
import secrets
import time
from collections.abc import Iterable, Mapping
from http import HTTPStatus

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wembed.serve.answers import failure, refusal
from wembed.serve.keys import Key, scopes_of
from wembed.serve.limits import Limits, RefusedError
from wembed.serve.metrics import Metrics

__all__ = ["Gate"]

_GONE = 499  # as nginx has it: whoever asked has closed the connection
_BROKEN = "something went wrong here; the log of the service tells what, under this request id"
_OPEN = ("/healthz", "/readyz")  # asked by those who watch over the service, and never refused
_PORT = re.compile(":[0-9]*$")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_log = logging.getLogger("wembed.serve")


def _path(scope: Scope) -> str:
    """The path as the app declares it, without what was in its place; "other" of one that is not there."""
    if "route" in scope:
        return str(getattr(scope["route"], "path_format", "other"))
    routes = getattr(scope.get("app"), "routes", ())
    matching = (route.path_format for route in routes if route.matches(scope)[0] is Match.FULL)
    return next(map(str, matching), "other")


def _decoded(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Of several with one name the last: each is looked for often, and a search through all takes long."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}


class Gate:
    """Middleware around the whole app.

    Args:
        app: what answers.
        limits: of bodies, and of requests under way.
        keys: that are let in; None lets everybody in.
        metrics: where requests are counted.
        hosts: names that the service is asked by, and no others; None takes any. Without that a page of another site
            could send a browser here by a name of its own (DNS rebinding), where no keys stop it.
    """

    def __init__(
        self,
        app: ASGIApp,
        limits: Limits,
        keys: tuple[Key, ...] | None,
        metrics: Metrics,
        hosts: frozenset[str] | None = None,
    ) -> None:
        self._app, self._limits, self._keys, self._metrics, self._hosts = app, limits, keys, metrics, hosts
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers, started, status = _decoded(scope["headers"]), time.perf_counter(), 500
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id
        body = _Body(self, receive, headers)
        self._metrics.under_way.inc()
        begun = False

        async def sending(message: Message) -> None:
            nonlocal status, begun
            if message["type"] == "http.response.start":
                status, begun = message["status"], True
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            try:
                self._check(scope, headers)
            except RefusedError as error:
                await refusal(error, request_id)(scope, receive, sending)
            else:
                if not body.awaited:
                    body.count()
                await self._app(scope, body.receive, sending)
        except ClientDisconnect:  # nobody is there to be answered
            status = _GONE
        except Exception:
            _log.exception("request %s", request_id)
            if begun:
                raise
            told = failure("Exception", _BROKEN, request_id)
            await Response(told, status, media_type="application/json")(scope, receive, sending)
        finally:
            self._under_way -= body.counted
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

    def _check(self, scope: Scope, headers: Mapping[str, str]) -> None:
        path = scope["path"]
        if path in _OPEN:
            return
        self._check_host(headers)
        if self._keys is not None and path != "/" and not path.startswith("/static/"):  # the page asks for a key itself
            self._check_key(
                headers, "write" if path.startswith("/v1/measures") and scope["method"] != "GET" else "read"
            )
        self.check_queue()
        length = headers.get("content-length", "0")
        if length.isascii() and length.isdecimal() and len(length) < 20:
            self.check_body(int(length))

    def _check_key(self, headers: Mapping[str, str], scope: str) -> None:
        kind, _, key = headers.get("authorization", "").partition(" ")
        scopes = scopes_of(key.strip(), self._keys or ()) if kind.lower() == "bearer" else frozenset[str]()
        if not scopes:
            raise RefusedError(
                HTTPStatus.UNAUTHORIZED, "this takes a key that the service knows, as Authorization: Bearer KEY"
            )
        if scope not in scopes:
            raise RefusedError(HTTPStatus.FORBIDDEN, f"this takes a key with the scope {scope!r}, and yours has it not")

    def _check_host(self, headers: Mapping[str, str]) -> None:
        if self._hosts is None:
            return
        named = {"Host": headers.get("host", "")}
        if "origin" in headers:
            named["Origin"] = headers["origin"].partition("://")[2]
        for header, value in named.items():
            if _PORT.sub("", value.lower()).strip("[]") not in self._hosts:
                raise RefusedError(
                    HTTPStatus.FORBIDDEN,
                    f"this service is asked by the name {' or '.join(sorted(self._hosts))}, and the header {header} "
                    "has another; a service with keys takes any",
                )

    def check_body(self, count: int) -> None:
        """Refuse a body that is too long."""
        self._limits.check("body", count, "bytes of a body", HTTPStatus.REQUEST_ENTITY_TOO_LARGE)

    def check_queue(self) -> None:
        """Refuse one more request, where there are as many as are let in."""
        if self._under_way >= self._limits.queue:
            raise RefusedError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"{self._limits.queue:,} requests are under way, the limit 'queue'; come again in a second",
                "queue",
            )

    def count(self) -> None:
        """One more is under way."""
        self._under_way += 1

    @property
    def patience(self) -> float:
        """Seconds that a body may take."""
        return self._limits.upload


class _Body:
    """The body of a request on its way in. A request is under way once all of it is there, however slowly it came.

    It may be longer than it says, or not say how long it is.
    """

    def __init__(self, gate: Gate, receive: Receive, headers: Mapping[str, str]) -> None:
        self._gate, self._receive, self._bytes = gate, receive, 0
        self._until = asyncio.get_running_loop().time() + gate.patience
        self.awaited = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
        self.counted = 0

    def count(self) -> None:
        """The request is under way."""
        self._gate.count()
        self.counted = 1

    async def receive(self) -> Message:
        """What came next.

        Raises:
            RefusedError: it took too long, is too much, or comes when there is too much to do.
        """
        if not self.awaited:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._receive()
        except TimeoutError as error:
            raise RefusedError(
                HTTPStatus.REQUEST_TIMEOUT,
                f"the body was not there within {self._gate.patience:g} seconds, the limit 'upload'",
                "upload",
            ) from error
        self._bytes += len(message.get("body", b""))
        self._gate.check_body(self._bytes)
        if message["type"] == "http.request" and not message.get("more_body"):
            self.awaited = False
            self._gate.check_queue()
            self.count()
        return message

"""`wembed serve`: a Service and its app under uvicorn."""

import gc
import ipaddress
import logging
import socket
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import torch
import uvicorn

from wembed.errors import SettingError
from wembed.serve.app import create_app
from wembed.serve.collection import Collection
from wembed.serve.keys import read_keys
from wembed.serve.limits import Limits
from wembed.serve.service import Service

__all__ = ["run"]

_LAST = 60  # seconds that what was accepted may take once the service is to end
_SWITCH = 2e-3  # seconds until another thread has its turn: to take turns costs both, and answers wait no longer


def run(
    folder: Path,
    host: str,
    port: int,
    keys: Path | None,
    window: float,
    batch: int,
    limits: Sequence[str],
    quiet: bool,
    jobs: int,
) -> None:
    """Serve an index until the process is asked to end; what was accepted is finished.

    Raises:
        SettingError: an address that others reach without keys, one that is taken, or an unknown limit.
        ReadError, ArtifactError, LockedError: as `Collection` and `read_keys`.
    """
    allowed, known = _limits(limits), None if keys is None else read_keys(keys)
    if known is None and not _private(host):
        raise SettingError(
            f"--host {host} can be reached from elsewhere, and there are no keys; make one with "
            "`wembed key NAME --keys FILE` and give --keys FILE, or listen at 127.0.0.1"
        )
    listening = _listening(host, port)
    sys.setswitchinterval(_SWITCH)
    torch.set_num_threads(1)  # batches are small, and threads that wait for work take it from the one that answers
    with listening:
        collection = Collection(folder)
        gc.collect()
        gc.freeze()  # what is loaded stays: to look through it for garbage again and again would take 0.1 s each time
        hosts = None if known is not None else frozenset({"localhost", "127.0.0.1", "::1", host.lower()})
        app = create_app(Service(collection, allowed, window, batch, jobs), known, hosts)
        place = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"
        again = f", {collection.replayed:,} changes of them from the journal" if collection.replayed else ""
        print(f"{len(collection.index):,} measures{again} at {place}", file=sys.stderr)
        logging.basicConfig(level=logging.WARNING if quiet else logging.INFO, format="%(message)s", stream=sys.stderr)
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            log_level="error",
            server_header=False,
            timeout_graceful_shutdown=_LAST,
        )
        uvicorn.Server(config).run([listening])


def _limits(given: Sequence[str]) -> Limits:
    names, wanted = [field.name for field in fields(Limits)], dict[str, int]()
    for one in given:
        name, _, number = one.partition("=")
        if name not in names or not number.isdecimal():
            raise SettingError(f"--limit {one}; give NAME=NUMBER, with one of the names {', '.join(names)}")
        wanted[name] = int(number)
    return Limits(**wanted)


def _private(host: str) -> bool:
    """Whether no other machine can reach this address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listening(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=2048)
    except OSError as error:
        raise SettingError(f"--host {host} --port {port} cannot be listened at: {error.strerror or error}") from error

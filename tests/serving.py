"""A service on a free port of this machine, for as long as a test needs it."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from wembed.serve.app import create_app
from wembed.serve.collection import Collection
from wembed.serve.service import Service


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextmanager
def running(folder: Path, keys: Any = None) -> Iterator[str]:
    """The URL of a service of an index."""
    app = create_app(Service(Collection(folder), n_jobs=1), keys)
    config = uvicorn.Config(app, port=free_port(), log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{config.port}"
    server.should_exit = True
    thread.join()

"""One process on two cores: how many single distances a second, how soon, and does memory stay level?"""

import asyncio
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from common import arguments, record, spread

from wembed import Embedder, Index, Measures, TrainingSettings
from wembed.readers import digits

CONNECTIONS = 64
HOST = "127.0.0.1"
KINDS = (b"application/json", b"application/x-npy", b"application/x-npz", b"image/png", b"text/plain")
PATHS = [b"/v1/distance", b"/v1/embed", b"/v1/neighbors", b"/v1/pairwise", b"/v1/measures", b"/v1/info", b"/nothing"]

Requests = Iterator[bytes]


@contextmanager
def served(folder: Path) -> Iterator[tuple[int, int]]:
    """A service of an index: its port and its process."""
    program = [sys.executable, "-m", "wembed", "serve", str(folder), "--port", "0", "--quiet"]
    log = folder.with_name("log")
    with log.open("w") as told, subprocess.Popen(program, stderr=told) as process:
        try:
            while not (found := re.search(r" at http://.*:(\d+)$", log.read_text(), re.M)):
                assert process.poll() is None, log.read_text()
                time.sleep(0.1)
            port = int(found[1])
            while True:
                try:
                    httpx.get(f"http://{HOST}:{port}/readyz")
                    break
                except httpx.HTTPError:
                    time.sleep(0.05)
            yield port, process.pid
        finally:
            process.terminate()


def request(path: bytes, body: bytes, kind: bytes = b"application/json") -> bytes:
    head = b"POST %b HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n"
    return head % (path, kind, len(body)) + body


def bodies(unseen: Measures) -> list[bytes]:
    """A distance of two images in each, pixels from 0 to 255."""
    images = unseen.histograms().reshape(-1, 28, 28)
    pixels = np.round(images / images.max(axis=(1, 2), keepdims=True) * 255).astype(int).tolist()
    pairs = zip(pixels[::2], pixels[1::2], strict=False)
    return [json.dumps({"a": [{"image": a}], "b": [{"image": b}]}).encode() for a, b in pairs]


async def answered(reader: asyncio.StreamReader) -> int:
    """The status of the next answer, its body read."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head, re.I)
    if length:
        await reader.readexactly(int(length[1]))
    return int(head[9:12])


async def load(port: int, requests: Requests, count: int) -> tuple[float, np.ndarray, Counter[int]]:
    """Seconds in all, seconds of each, and statuses of so many requests, the next as soon as one is answered."""
    left, seconds, statuses = count, [], Counter[int]()

    async def connection() -> None:
        nonlocal left
        reader, writer = await asyncio.open_connection(HOST, port)
        while left > 0:
            left -= 1
            started = time.perf_counter()
            writer.write(next(requests))
            statuses[await answered(reader)] += 1
            seconds.append(time.perf_counter() - started)
        writer.close()

    started = time.perf_counter()
    await asyncio.gather(*(connection() for _ in range(CONNECTIONS)))
    return time.perf_counter() - started, np.array(seconds), statuses


async def garbage(port: int, good: list[bytes], count: int) -> Counter[str]:
    """What comes back to bytes that are hardly HTTP, to bodies that are damaged, and to bodies of another kind."""
    rng, found = np.random.default_rng(0), Counter[str]()
    for number in range(count):
        body = bytearray(good[number % len(good)])
        for place in rng.integers(len(body), size=rng.integers(1, 8)).tolist():
            body[place] = rng.integers(256)
        sent = bytearray(request(PATHS[rng.integers(len(PATHS))], bytes(body), KINDS[rng.integers(len(KINDS))]))
        if number % 3 == 0:
            for place in rng.integers(120, size=4).tolist():
                sent[place] = rng.integers(256)
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(sent)
        writer.write_eof()
        try:
            found[str(await asyncio.wait_for(answered(reader), 10))] += 1
        except (asyncio.IncompleteReadError, ConnectionError):
            found["connection closed"] += 1
        writer.close()
    return found


def megabytes(process: int) -> float:
    """Resident memory."""
    (line,) = (one for one in Path(f"/proc/{process}/status").read_text().splitlines() if one.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def explored(port: int, examples: int, seed: int) -> dict[str, Any]:
    """What schemathesis makes of the OpenAPI document: requests that should pass, and that should not."""
    program = shutil.which("schemathesis") or str(Path(sys.executable).with_name("schemathesis"))
    checks = "not_a_server_error,response_schema_conformance,status_code_conformance,content_type_conformance"
    options = ["--max-examples", str(examples), "--checks", checks, "--seed", str(seed), "--no-color"]
    done = subprocess.run(
        [program, "run", f"http://{HOST}:{port}/openapi.json", *options], capture_output=True, text=True
    )
    cases = re.search(r"([\d,]+) generated, ([\d,]+) passed", done.stdout)
    if done.returncode or not cases:
        raise SystemExit(done.stdout + done.stderr)
    generated, passed = (int(one.replace(",", "")) for one in cases.groups())
    return {"generated": generated, "passed": passed}


def main() -> None:
    chosen = arguments(__doc__ or "")
    measures, labels = digits()
    known, count = (300, 300) if chosen.smoke else (9_000, 20_000)
    training = TrainingSettings(steps=20) if chosen.smoke else None
    runs, total, spoilt, examples = (1, 600, 200, 3) if chosen.smoke else (3, 200_000, 10_000, 250)
    embedder = Embedder(encoder="quantiles", pairs=600 if chosen.smoke else 5_000, training=training, verbose=True)
    embedder.fit(measures[:known])
    good = bodies(measures[9_000:])
    requests = cycle([request(b"/v1/distance", body) for body in good])
    results: dict[str, Any] = {"connections": CONNECTIONS, "measures": known}
    chosen.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=chosen.work) as place:
        folder = Path(place) / "index"
        Index(embedder, measures[:known], labels=labels[:known]).save(folder)
        with served(folder) as (port, process):

            def ask(count: int) -> tuple[float, np.ndarray, Counter[int]]:
                return asyncio.run(load(port, requests, count))

            ask(count // 10)
            loads = [ask(count) for _ in range(runs)]
            marks: dict[str, Callable[[np.ndarray], float]] = {
                "median": lambda each: float(np.median(each)),
                "p95": lambda each: float(np.quantile(each, 0.95)),
                "p99": lambda each: float(np.quantile(each, 0.99)),
            }
            results["distance"] = {
                "requests_a_second": spread([len(each) / seconds for seconds, each, _ in loads]),
                **{
                    f"milliseconds_{name}": spread([1e3 * mark(each) for _, each, _ in loads])
                    for name, mark in marks.items()
                },
                "other_statuses_than_200": sum(sum(found.values()) - found[200] for _, _, found in loads),
            }
            explored(port, max(1, examples // 10), 0)  # every path is asked once, so that all it takes is there
            memory = {"after the loads": megabytes(process)}
            *_, statuses = ask(total)
            memory[f"after {total:,} more requests"] = megabytes(process)
            results["statuses_of_those"] = dict(statuses)
            results["malformed"] = {"sent": spoilt, "answers": dict(asyncio.run(garbage(port, good, spoilt)))}
            memory[f"after {spoilt:,} malformed ones"] = megabytes(process)
            results["schemathesis"] = explored(port, examples, 1)
            memory["after schemathesis"] = megabytes(process)
            results["megabytes"] = memory
            seconds, _, statuses = ask(count)
            results["afterwards"] = {"requests_a_second": count / seconds, "statuses": dict(statuses)}
    record("serve", __doc__ or "", results, smoke=chosen.smoke)


if __name__ == "__main__":
    main()

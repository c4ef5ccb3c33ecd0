"""The service answers what Python answers, whatever the body; refuses what is too much; and forgets nothing."""

import asyncio
import io
import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest
from fastapi.testclient import TestClient
from halved import SIDE, halved_digits
from PIL import Image
from serving import free_port, running

import wembed
from wembed import Embedder, Index, Measures
from wembed.cli import app as command_line
from wembed.errors import LockedError, MeasureError, SettingError
from wembed.geometry import barycenter, interpolate
from wembed.serve.app import create_app
from wembed.serve.batches import Batches, Encoded
from wembed.serve.collection import Collection
from wembed.serve.keys import add_key, read_keys, scopes_of
from wembed.serve.limits import Limits
from wembed.serve.service import Service

ARROW = "application/vnd.apache.arrow.stream"
FORM = b'--x\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\n1\r\n--x--'
Serve = Callable[..., TestClient]


@pytest.fixture(scope="module")
def model(run_folder: Path) -> Embedder:
    return wembed.load(run_folder / "model")


@pytest.fixture(scope="module")
def unseen(model: Embedder, some_digits: Measures) -> Measures:
    return some_digits[model.split_.test]


@pytest.fixture(scope="module")
def kept(model: Embedder, some_digits: Measures, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served") / "index"
    index = Index(model, some_digits[:60], labels=[f"digit {i}" for i in range(60)], payloads=[{"n": 0}] * 60)
    index.save(folder)
    return folder


@pytest.fixture
def folder(kept: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(kept, tmp_path / "index"))


@pytest.fixture
def serve(folder: Path) -> Iterator[Serve]:
    begun: list[TestClient] = []

    def start(keys: Any = None, hosts: Any = None, **settings: Any) -> TestClient:
        service = Service(Collection(folder), n_jobs=1, **settings)
        client = TestClient(create_app(service, keys, hosts), raise_server_exceptions=False)
        begun.append(client.__enter__())
        return begun[-1]

    yield start
    for client in begun:
        client.__exit__(None, None, None)


@pytest.fixture
def client(serve: Serve) -> TestClient:
    return serve()


def images(measures: Measures) -> np.ndarray:
    return measures.histograms().reshape(-1, SIDE, SIDE)


def listed(measures: Measures) -> list[dict[str, Any]]:
    return [{"image": image.tolist()} for image in images(measures)]


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def npz(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def arrow(measures: Measures, compression: str | None = None) -> bytes:
    owner, points = np.repeat(np.arange(len(measures)), measures.sizes), measures.points()
    table = pa.table({"measure": owner, "x1": points[:, 0], "x2": points[:, 1], "weight": measures.weights})
    file = io.BytesIO()
    with pa.ipc.new_stream(file, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table)
    return file.getvalue()


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.round(image / image.max() * 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def test_it_answers_what_python_answers(client: TestClient, model: Embedder, unseen: Measures, folder: Path) -> None:
    a, b = unseen[:5], unseen[5:10]
    body = {"a": listed(a), "b": listed(b)}
    vectors = client.post("/v1/embed", json={"measures": listed(a)}).json()
    np.testing.assert_allclose(vectors["vectors"], model.transform(a), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(vectors["unusualness"], model.unusualness(a), rtol=1e-3, atol=1e-3)
    plain = client.post("/v1/distance", json=body).json()
    np.testing.assert_allclose(plain["predicted"], model.distance(a, b), rtol=1e-5)
    assert plain.keys() == {"predicted", "unusualness"}
    sure = client.post("/v1/distance", json=body | {"interval": 0.8}).json()
    expected = model.distance(a, b, interval=0.8, refine=False)
    np.testing.assert_allclose(sure["lower"], expected.lower, rtol=1e-4)
    np.testing.assert_allclose(sure["upper"], expected.upper, rtol=1e-4)
    narrow = client.post("/v1/distance", json=body | {"tolerance": 1e-4}).json()
    exact = wembed.exact_distances(Measures.concatenate([a, b]), np.stack([np.arange(5), np.arange(5, 10)], axis=1))
    np.testing.assert_allclose(narrow["estimate"], exact, rtol=1e-9)
    assert narrow["solved"] == 5
    every = client.post("/v1/pairwise", json={"a": body["a"], "exact": True}).json()
    assert every["solved"] == 10
    np.testing.assert_allclose(np.array(every["estimate"]), np.array(every["estimate"]).T)
    both = client.post("/v1/pairwise", json=body | {"exact": True}).json()
    np.testing.assert_allclose(np.diag(both["estimate"]), exact, rtol=1e-9)
    np.testing.assert_allclose(
        client.post("/v1/pairwise", json=body).json()["predicted"], model.pairwise(a, b), rtol=1e-5
    )
    index = Index.load(folder)
    for asked in ({}, {"rerank": 20}, {"among": [4, 5, 6, 7]}):
        found = client.post("/v1/neighbors", json={"measures": body["a"], "k": 3} | asked).json()
        there = index.query(a, 3, **asked)
        assert found["ids"] == there.ids.tolist()
        np.testing.assert_allclose(found["distances"], there.distances, rtol=1e-4)
        assert found["labels"] == [[f"digit {i}" for i in row] for row in there.ids.tolist()]
    assert client.post("/v1/neighbors", json={"measures": body["a"][:1], "recall": 0.9}).json()["solved"][0] >= 10


def test_a_measure_is_the_same_in_every_form(client: TestClient, model: Embedder, unseen: Measures) -> None:
    some = unseen[:3]
    clouds = {"points": some.points(), "sizes": some.sizes, "weights": some.weights}
    bodies = [
        ("application/json", json.dumps({"measures": listed(some)}).encode()),
        (
            "application/json; charset=utf-8",
            json.dumps(
                {"measures": [{"points": m.support.tolist(), "weights": m.weights.tolist()} for m in some]}
            ).encode(),
        ),
        ("application/x-npy", npy(images(some))),
        ("application/x-npz", npz(images=images(some))),
        ("application/x-npz", npz(**clouds)),
        (ARROW, arrow(some)),
        ("application/vnd.apache.arrow.file", b"ARROW1\0\0" + arrow(some)),
    ]
    expected = model.encode(some)
    for kind, content in bodies:
        answer = client.post("/v1/embed", content=content, headers={"content-type": kind})
        np.testing.assert_allclose(answer.json()["vectors"], expected, rtol=1e-4, atol=1e-4)
    single = client.post("/v1/embed", content=png(images(some)[0]), headers={"content-type": "image/png"})
    np.testing.assert_allclose(single.json()["vectors"], expected[:1], rtol=0.05, atol=0.05)
    form = {"a": ("a", npz(**clouds), "application/x-npz"), "b": ("b", arrow(some), ARROW)}
    found = client.post("/v1/distance", files=form, params={"interval": 0.8}).json()
    np.testing.assert_allclose(found["predicted"], 0, atol=1e-3)
    asked = client.post(
        "/v1/neighbors",
        content=npy(images(some)),
        headers={"content-type": "application/x-npy"},
        params={"k": 2, "among": [8, 9]},
    )
    assert {*np.ravel(asked.json()["ids"]).tolist()} == {8, 9}


def test_answers_are_the_same_in_every_form(client: TestClient) -> None:
    body = {"a": [{"id": 1}, {"id": 2}, {"id": 3}]}
    plain = np.array(client.post("/v1/pairwise", json=body).json()["predicted"])
    found = client.post("/v1/pairwise", json=body, headers={"accept": "application/x-npy"})
    np.testing.assert_allclose(np.load(io.BytesIO(found.content)), plain)
    table = pa.ipc.open_stream(client.post("/v1/pairwise", json=body, headers={"accept": ARROW}).content).read_all()
    np.testing.assert_allclose(table["predicted"].to_numpy().reshape(3, 3), plain)
    assert table["column"].to_pylist() == [0, 1, 2] * 3
    vectors = {"measures": body["a"]}
    embedded = pa.ipc.open_stream(client.post("/v1/embed", json=vectors, headers={"accept": ARROW}).content).read_all()
    np.testing.assert_allclose(
        embedded["vector"].to_pylist(), client.post("/v1/embed", json=vectors).json()["vectors"], rtol=1e-6
    )
    near = client.post("/v1/neighbors", json=vectors | {"k": 2}, headers={"accept": ARROW})
    assert pa.ipc.open_stream(near.content).read_all()["ids"].to_pylist()[::2] == [1, 2, 3]
    refused = client.post("/v1/neighbors", json=vectors, headers={"accept": "application/x-npy"})
    assert refused.status_code == 406


def test_the_examples_of_the_document_run(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    tried = []
    for path, verbs in document["paths"].items():
        if "post" in verbs:
            example = verbs["post"]["requestBody"]["content"]["application/json"]["example"]
            answer = client.post(path, json=example)
            assert answer.is_success, answer.text
            tried.append(path)
    asking = ["/v1/embed", "/v1/distance", "/v1/pairwise", "/v1/neighbors"]
    assert tried == [*asking, "/v1/barycenter", "/v1/interpolate", "/v1/measures"]
    for path in ("/v1/info", "/healthz", "/readyz", "/metrics", "/v1/measures/0"):
        assert client.get(path).status_code == 200


def test_requests_at_the_same_time_are_encoded_together_and_answered_apart(
    serve: Serve, model: Embedder, unseen: Measures
) -> None:
    client = serve(window=0.05)
    bodies = [{"measures": [one]} for one in listed(unseen[:20])]
    bodies[7] = {"measures": [{"points": [[1.0, 2.0, 3.0]]}]}
    bodies[9] = {"measures": [{"points": [[1e38, 1e38], [-1e38, 0.0]]}]}
    with ThreadPoolExecutor(20) as threads:
        answers = list(threads.map(lambda body: client.post("/v1/embed", json=body), bodies))
    assert [answer.status_code for answer in answers] == [422 if i in (7, 9) else 200 for i in range(20)]
    assert "dimension" in answers[7].json()["error"]["message"]
    assert "too far out" in answers[9].json()["error"]["message"]
    expected = model.encode(unseen[:20])
    for i in set(range(20)) - {7, 9}:
        np.testing.assert_allclose(answers[i].json()["vectors"][0], expected[i], rtol=1e-4, atol=1e-5)
    text = client.get("/metrics").text
    calls = float(text.split("wembed_batch_measures_count ")[1].split()[0])
    assert calls < 30  # those with the one that has no vector are encoded one by one again


@pytest.mark.parametrize(("size", "calls"), [(4, [1, 4, 4, 1]), (1, [1] * 10), (100, [1, 9])])
def test_batches_are_as_large_as_told(size: int, calls: list[int]) -> None:
    seen, busy = list[int](), threading.Event()
    measures = Measures.from_point_clouds([[[0.0, 0.0]]])

    def encode(batch: Measures) -> Encoded:
        busy.wait(5)
        return Encoded(batch.centroids().astype(np.float32), np.zeros(len(batch)))

    async def ask() -> list[Encoded]:
        with ThreadPoolExecutor(1) as thread:
            batches = Batches(encode, thread, window=0, size=size, seen=seen.append)
            tasks = [asyncio.create_task(batches.encode(measures)) for _ in range(10)]
            await asyncio.sleep(0.05)
            busy.set()
            return await asyncio.gather(*tasks)

    assert [len(found.vectors) for found in asyncio.run(ask())] == [1] * 10
    assert seen == calls


def test_who_asks_again_once_answered_goes_along_with_those_who_waited() -> None:
    seen, busy = list[int](), threading.Event()
    measures = Measures.from_point_clouds([[[0.0, 0.0]]])

    def encode(batch: Measures) -> Encoded:
        busy.wait(5)
        return Encoded(batch.centroids().astype(np.float32), np.zeros(len(batch)))

    async def ask() -> None:
        with ThreadPoolExecutor(1) as thread:
            batches = Batches(encode, thread, window=0.1, seen=seen.append)
            first = asyncio.create_task(batches.encode(measures))
            while not seen:
                await asyncio.sleep(0.01)
            waits = asyncio.create_task(batches.encode(measures))
            await asyncio.sleep(0.01)
            busy.set()
            await first
            await asyncio.gather(waits, batches.encode(measures))

    asyncio.run(ask())
    assert seen == [1, 2]


@pytest.mark.parametrize(
    ("limits", "path", "body", "status", "name"),
    [
        ({"body": 100}, "embed", {"measures": [{"points": [[1, 2]] * 50}]}, 413, "body"),
        ({"measures": 2}, "embed", {"measures": [{"points": [[1, 2]]}] * 3}, 413, "measures"),
        ({"atoms": 4}, "embed", {"measures": [{"points": [[1, 2]] * 5}]}, 413, "atoms"),
        ({"atoms": 8}, "embed", {"measures": [{"image": [[1, 0, 0]] * 3}]}, 413, "atoms"),
        ({"atoms": 8}, "embed", {"measures": [{"id": 3}]}, 413, "atoms"),
        ({"pairs": 8}, "pairwise", {"a": [{"id": 1}, {"id": 2}, {"id": 3}]}, 422, "pairs"),
        ({"pairs": 8}, "neighbors", {"measures": [{"id": 3}]}, 422, "pairs"),
        ({"solves": 2}, "pairwise", {"a": [{"id": 1}, {"id": 2}, {"id": 3}], "exact": True}, 422, "solves"),
        ({"solves": 2}, "pairwise", {"a": [{"id": 1}, {"id": 2}, {"id": 3}], "tolerance": 0.1}, 422, "solves"),
        ({"solves": 2}, "distance", {"a": [{"id": 1}], "b": [{"id": 2}], "refine": True}, 422, "solves"),
        ({"solves": 9}, "neighbors", {"measures": [{"id": 3}], "rerank": 10}, 422, "solves"),
        ({"solved_atoms": 9}, "distance", {"a": [{"id": 1}], "b": [{"id": 2}], "exact": True}, 422, "solved_atoms"),
    ],
)
def test_over_a_limit_it_is_named(
    serve: Serve, limits: dict[str, int], path: str, body: dict[str, Any], status: int, name: str
) -> None:
    client = serve(limits=Limits(**limits))
    answer = client.post(f"/v1/{path}", json=body)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["limit"] == name
    assert f"{name!r} of {limits[name]:,}" in answer.json()["error"]["message"]
    assert client.get("/v1/info").json()["limits"][name] == limits[name]


def test_a_body_that_does_not_say_how_long_it_is_is_counted(serve: Serve) -> None:
    def long() -> Iterator[bytes]:
        yield from [b" " * 60] * 5

    client = serve(limits=Limits(body=100))
    answer = client.post("/v1/embed", content=long(), headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["limit"]) == (413, "body")


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("application/x-npy", npy(np.ones((1, 3, 3)))[:-1]),
        ("application/x-npy", npy(np.ones((1, 3, 3))).replace(b"(1, 3, 3)", b"(9, 9, 9)")),
        ("application/x-npy", npy(np.array(["a"]))),
        ("application/x-npz", npz(images=np.ones((1, 3, 3)))[:-30]),
        ("application/x-npz", npz(weights=np.ones(3))),
        ("application/x-npz", npz(points=np.ones((3, 2)), sizes=np.array([2]))),
        (ARROW, arrow(Measures.from_point_clouds([[[1.0, 2.0]]]), "zstd")),
        (ARROW, b"nothing of the kind"),
        ("image/png", png(np.ones((4, 4)))[:-40]),
        ("image/png", b"GIF89a"),
        ("application/json", b"{"),
        ("application/json", b'{"measures": []}'),
        ("application/json", b'{"measures": [{}]}'),
        ("application/json", b'{"measures": [{"points": [[1, 2], [3]]}]}'),
        ("application/json", b'{"measures": [{"points": [["1", "2"]]}]}'),
        ("application/json", b'{"measures": [{"points": [[1, NaN]]}]}'),
        ("application/json", b'{"measures": [{"points": [[1, 2]], "weights": [-1]}]}'),
        ("application/json", b'{"measures": [{"points": [[1, 2]], "image": [[1]]}]}'),
        ("application/json", b'{"measures": [{"points": [[1, 2]]}, {"id": 3}]}'),
        ("application/json", b'{"measures": [{"id": 12345}]}'),
        ("application/json", b'{"measures": [{"image": [[0, 0]]}]}'),
        ("application/json", b'{"measures": [{"points": [[1, 2]]}], "more": 1}'),
    ],
)
def test_what_is_no_measure_is_refused_in_a_sentence(client: TestClient, kind: str, content: bytes) -> None:
    answer = client.post("/v1/embed", content=content, headers={"content-type": kind})
    assert answer.status_code == 422, answer.text
    assert len(answer.json()["error"]["message"]) > 20


def test_a_file_that_unpacks_to_much_is_refused_before_it_does(serve: Serve) -> None:
    file = io.BytesIO()
    np.savez_compressed(file, images=np.zeros((1, 4000, 4000)))
    client = serve(limits=Limits(body=1 << 20))
    answer = client.post("/v1/embed", content=file.getvalue(), headers={"content-type": "application/x-npz"})
    assert (answer.status_code, answer.json()["error"]["limit"]) == (413, "body")


def test_garbage_is_never_an_error_of_ours(client: TestClient, unseen: Measures) -> None:
    rng = np.random.default_rng(0)
    good = [
        ("application/json", json.dumps({"measures": listed(unseen[:1]), "k": 3}).encode()),
        ("application/x-npy", npy(images(unseen[:1]))),
        ("application/x-npz", npz(images=images(unseen[:1]))),
        (ARROW, arrow(unseen[:1])),
        ("image/png", png(images(unseen)[0])),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\n1\r\n--x--',
        ),
    ]
    paths = ["/v1/embed", "/v1/neighbors", "/v1/measures", "/v1/distance", "/v1/pairwise"]
    for _ in range(400):
        kind, content = good[rng.integers(len(good))]
        spoilt = bytearray(content)
        for place in rng.integers(len(spoilt), size=rng.integers(1, 6)).tolist():
            spoilt[place] = rng.integers(256)
        answer = client.post(paths[rng.integers(len(paths))], content=bytes(spoilt), headers={"content-type": kind})
        assert answer.status_code < 500, answer.text
    assert client.get("/healthz").status_code == 200


def test_more_requests_than_the_queue_takes_are_asked_to_come_again(serve: Serve, unseen: Measures) -> None:
    client = serve(limits=Limits(queue=2), window=0.3)
    with ThreadPoolExecutor(6) as threads:
        asked = [threads.submit(client.post, "/v1/embed", json={"measures": listed(unseen[:1])}) for _ in range(6)]
        time.sleep(0.1)
        assert client.get("/healthz").status_code == 200
        answers = [one.result() for one in asked]
    refused = [answer for answer in answers if answer.status_code == 503]
    assert 0 < len(refused) < 6
    assert refused[0].headers["retry-after"] == "1"
    assert refused[0].json()["error"]["limit"] == "queue"


def test_keys_let_in_those_who_have_one(serve: Serve, tmp_path: Path, unseen: Measures) -> None:
    file = tmp_path / "keys"
    reads = add_key(file, "anna", frozenset({"read"}))
    writes = add_key(file, "bert", frozenset({"read", "write"}))
    assert reads not in file.read_text()
    assert file.stat().st_mode & 0o077 == 0
    keys = read_keys(file)
    assert (scopes_of(reads, keys), scopes_of("another", keys)) == ({"read"}, frozenset())
    client = serve(keys)
    body = {"measures": listed(unseen[:1])}

    def status(path: str, key: str | None) -> int:
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        return client.post(path, json=body, headers=headers).status_code

    assert [status("/v1/embed", key) for key in (None, "another", reads, writes)] == [401, 401, 200, 200]
    assert [status("/v1/measures", key) for key in (None, reads, writes)] == [401, 403, 201]
    assert client.delete("/v1/measures?id=1", headers={"authorization": f"Bearer {reads}"}).status_code == 403
    assert client.get("/metrics").status_code == 401
    assert client.get("/healthz").status_code == 200
    with pytest.raises(SettingError, match="has a key of 'anna' already"):
        add_key(file, "anna", frozenset({"read"}))


def test_measures_come_and_go_and_stay(client: TestClient, serve: Serve, unseen: Measures, folder: Path) -> None:
    added = client.post(
        "/v1/measures", json={"measures": listed(unseen[:2]), "labels": ["x", None], "payloads": [{"a": 1}, 2]}
    )
    assert (added.status_code, added.json()) == (201, {"ids": [60, 61]})
    assert client.post("/v1/neighbors", json={"measures": listed(unseen[:1]), "k": 1}).json()["ids"] == [[60]]
    known = client.get("/v1/measures/60").json()
    assert (known["label"], known["payload"]) == ("x", {"a": 1})
    again = client.post("/v1/measures", json={"measures": listed(unseen[:1]), "ids": [60]})
    assert again.status_code == 422
    assert "is there already" in again.json()["error"]["message"]
    changed = client.post("/v1/measures", json={"measures": listed(unseen[5:6]), "ids": [60], "update": True})
    assert changed.json() == {"ids": [60]}
    assert client.get("/v1/measures/60").json()["label"] == "x"
    assert client.delete("/v1/measures?id=61&id=7").json() == {"removed": 2}
    assert client.get("/v1/measures/61").status_code == 404
    assert client.delete("/v1/measures?id=61").status_code == 422
    client.__exit__(None, None, None)
    index = Index.load(folder)
    assert (60 in index, 61 in index, 7 in index, len(index)) == (True, False, False, 60)
    assert not (folder / "journal").exists()
    np.testing.assert_allclose(index[60].measure.weights, unseen[5].weights)


def crashed(folder: Path) -> Path:
    """What a crash would leave at this moment."""
    return Path(shutil.copytree(folder, folder.with_name(f"crash-{time.monotonic_ns()}")))


def test_what_was_confirmed_is_there_after_a_crash(folder: Path, unseen: Measures, model: Embedder) -> None:
    vectors = model.encode(unseen)
    with Collection(folder) as collection:
        collection.add(unseen[:2], vectors[:2], labels=["x", "y"])
        collection.add(unseen[2:4], vectors[2:4], [100, 101], payloads=[1, None])
        collection.remove([60, 0])
        collection.add(unseen[4:5], vectors[4:5], [61], update=True)
        collection.add(unseen[5:6], vectors[5:6], [0])
        collection.add(unseen[6:7], vectors[6:7])
        collection.remove([102])
        before, left = collection.index, crashed(folder)
        with pytest.raises(wembed.ArtifactError, match="start `wembed serve` on this index once"):
            Index.load(left).save(left)
        collection.save()  # and before the journal is gone
        half = crashed(folder)
        shutil.copy(left / "journal", half / "journal")
    for broken in (left, half):
        with Collection(broken) as again:
            assert again.replayed == 7
            assert sorted(again.index.ids.tolist()) == sorted(before.ids.tolist())
            for one in (61, 100, 0):
                assert again.index[one].label == before[one].label
                assert again.index[one].payload == before[one].payload
                np.testing.assert_array_equal(again.index[one].vector, before[one].vector)
                np.testing.assert_array_equal(again.index[one].measure.weights, before[one].measure.weights)
            assert again.add(unseen[7:8], vectors[7:8]).tolist() == [103]
        with Collection(broken) as third:
            assert third.replayed == 0
            assert 103 in third.index


def test_a_long_journal_is_taken_into_the_index(folder: Path, unseen: Measures, model: Embedder) -> None:
    vectors = model.encode(unseen)
    with Collection(folder, most_journal=8_000) as collection:
        sizes = []
        for i in range(10):
            collection.add(unseen[i : i + 1], vectors[i : i + 1])
            sizes.append((folder / "journal").stat().st_size if (folder / "journal").exists() else 0)
        assert max(sizes) <= 8_000
        assert 0 in sizes
    assert len(Index.load(folder)) == 70


def test_an_index_that_cannot_be_written_loses_nothing(
    folder: Path, unseen: Measures, model: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(index: Index, folder: Path) -> None:
        raise OSError(28, "No space left on device")

    vectors = model.encode(unseen)
    with Collection(folder, most_journal=1_000) as collection:
        with monkeypatch.context() as patch:
            patch.setattr(Index, "save", full)
            assert collection.add(unseen[:1], vectors[:1]).tolist() == [60]
        left = crashed(folder)
    with Collection(left) as again:
        assert (again.replayed, 60 in again.index) == (1, True)


def test_a_change_that_cannot_be_written_is_none(
    client: TestClient, unseen: Measures, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("wembed.serve.journal.os.fsync", full)
        answer = client.post("/v1/measures", json={"measures": listed(unseen[:1])})
    assert answer.status_code == 507
    assert "No space left" in answer.json()["error"]["message"]
    assert client.get("/v1/info").json()["measures"] == 60
    assert client.post("/v1/measures", json={"measures": listed(unseen[:1])}).json() == {"ids": [60]}


def test_nobody_else_writes_what_is_served(client: TestClient, folder: Path, unseen: Measures) -> None:
    other = Index.load(folder)
    other.add(unseen[:1])
    with pytest.raises(LockedError, match="or serves it"):
        other.save(folder)
    with pytest.raises(LockedError):
        Collection(folder)


def test_the_log_tells_of_requests_and_not_of_measures(
    client: TestClient, unseen: Measures, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "wembed.serve")
    answer = client.post("/v1/embed", json={"measures": listed(unseen[:1])}, headers={"x-request-id": "mine-1"})
    assert answer.headers["x-request-id"] == "mine-1"
    odd = client.post("/v1/embed", content=b"{secret", headers={"x-request-id": "a b"})
    assert odd.headers["x-request-id"] != "a b"
    lines = [json.loads(record.message) for record in caplog.records if record.name == "wembed.serve"]
    assert lines[0]["request_id"] == "mine-1"
    assert {key for line in lines for key in line} == {
        "time", "request_id", "method", "path", "status", "milliseconds"
    }  # fmt: skip
    assert "secret" not in caplog.text


def test_the_log_names_the_path_of_what_is_refused(
    serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    add_key(tmp_path / "keys", "anna", frozenset({"read"}))
    caplog.set_level(logging.INFO, "wembed.serve")
    client = serve(read_keys(tmp_path / "keys"))
    client.delete("/v1/measures?id=1")
    client.get("/v1/measures/secret")
    client.get("/secret")
    lines = [json.loads(record.message) for record in caplog.records if record.name == "wembed.serve"]
    assert [line["path"] for line in lines] == ["/v1/measures", "/v1/measures/{id}", "other"]


@pytest.fixture
def url(folder: Path) -> Iterator[str]:
    with running(folder) as url:
        yield url


def test_the_client_has_the_verbs_of_the_embedder(url: str, model: Embedder, unseen: Measures, folder: Path) -> None:
    with wembed.Client(url) as client:
        a, b = unseen[:4], unseen[4:8]
        np.testing.assert_allclose(client.transform(a), model.transform(a), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(client.distance(a, b), model.distance(a, b), rtol=1e-5)
        np.testing.assert_allclose(client.pairwise(a), model.pairwise(a), rtol=1e-5, atol=1e-3)
        here, there = (one.pairwise(a, b, interval=0.8, refine=False) for one in (model, client))
        np.testing.assert_allclose(there.upper, here.upper, rtol=1e-4)
        solved = client.distance(a, b, exact=True)
        assert solved.exact.all()
        assert solved.solved == 4
        assert client.query(a, 3).ids.tolist() == Index.load(folder).query(a, 3).ids.tolist()
        assert client.add(a, labels=["p", None, "q", "r"], payloads=[{"x": 1}] * 4).tolist() == [60, 61, 62, 63]
        assert (client[60].label, client[60].payload) == ("p", {"x": 1})
        np.testing.assert_allclose(client[60].measure.weights, a[0].weights)
        client.remove([60, 61])
        assert client.info()["measures"] == 62
        with pytest.raises(SettingError, match="no measure with the id 60"):
            client[60]
        with pytest.raises(SettingError, match="give as many"):
            client.distance(a, b[:2])
        with pytest.raises(MeasureError, match="dimension"):
            client.transform(Measures.from_point_clouds([[[1.0, 2.0, 3.0]]]))
    with (
        wembed.Client("http://127.0.0.1:9", retries=0) as nobody,
        pytest.raises(wembed.ServiceError, match="not answer"),
    ):
        nobody.info()


def test_the_client_asks_for_many_in_parts(
    url: str, model: Embedder, unseen: Measures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wembed.client._ATOMS", 3 * SIDE * SIDE)
    sizes: list[int] = []
    post = wembed.Client._post

    def posted(self: wembed.Client, path: str, measures: Measures, *options: Any, **more: Any) -> httpx.Response:
        sizes.append(len(measures))
        return post(self, path, measures, *options, **more)

    monkeypatch.setattr(wembed.Client, "_post", posted)
    with wembed.Client(url) as client:
        np.testing.assert_allclose(client.transform(unseen[:8]), model.transform(unseen[:8]), rtol=1e-4, atol=1e-5)
        assert sum(sizes) == 8
        assert max(sizes) == 3
        assert client.transform(unseen[:0]).shape == (0, model.dim_)
        ids = client.add(Measures.concatenate([unseen[:1]] * 9), ids=range(10**14, 10**14 + 9))
        many = [*range(59), *ids.tolist()] * 90  # more than a URL has room for
        assert {*ids.tolist()} <= {*client.query(unseen[:1], 10, among=many).ids[0].tolist()}  # and one that is alike
        client.remove(many)
        assert client.info()["measures"] == 1


def test_ids_are_kept_as_they_are_or_refused(serve: Serve, model: Embedder, unseen: Measures, folder: Path) -> None:
    Index(model, unseen[:2], ids=["a/b?c#%é", "d"]).save(folder)
    client = serve()
    assert client.get("/v1/measures/a%2Fb%3Fc%23%25%C3%A9").json()["id"] == "a/b?c#%é"
    assert client.get("/v1/measures/e/f").status_code == 404
    for one in ("x\0", "", "x" * 201, "a\nb", 5, None):
        body = {"measures": listed(unseen[:2]), "ids": ["new", one]}
        assert client.post("/v1/measures", json=body).status_code == 422, one
    for one in (5, "5"):
        assert client.post("/v1/embed", json={"measures": [{"id": one}]}).status_code == 422
    number = client.post("/v1/measures", json={"measures": listed(unseen[:1]), "ids": [5]})
    assert "the ids of this index are strings" in number.json()["error"]["message"]
    for wrong in (["x\0"], [""], ["x" * 201], ["a", 5]):
        with pytest.raises(SettingError, match=r"printable characters|some ids are strings"):
            Index(model, unseen[: len(wrong)], ids=wrong)


def test_options_are_nowhere_lost(client: TestClient, unseen: Measures) -> None:
    wrong = client.post("/v1/neighbors?k=2", json={"measures": listed(unseen[:1])})
    assert (wrong.status_code, wrong.json()["error"]["message"][:15]) == (422, "the query has k")
    assert client.post("/v1/distance?exact=true", json={"a": [{"id": 1}], "b": [{"id": 2}]}).status_code == 422
    certain = client.post("/v1/neighbors", json={"measures": listed(unseen[:1]), "recall": 1})
    assert "recall: Input should be less than 1" in certain.json()["error"]["message"]


def test_images_of_another_size_are_refused(client: TestClient) -> None:
    wrong = client.post("/v1/neighbors", json={"measures": [{"image": [[0, 1], [1, 1]]}]})
    assert wrong.status_code == 422
    assert "images are of 2 x 2 pixels, and those of the index of 14 x 14" in wrong.json()["error"]["message"]
    assert client.post("/v1/embed", json={"measures": [{"points": [[0, 1], [1, 1]]}]}).status_code == 200
    assert client.post("/v1/embed", json={"measures": [{"weights": [0, 1]}]}).status_code == 422


@pytest.fixture(scope="module")
def histograms(tmp_path_factory: pytest.TempPathFactory) -> tuple[Embedder, Measures, Path]:
    """A model under a cost matrix, histograms, and an index of them."""
    rng = np.random.default_rng(0)
    support = rng.standard_normal((15, 2))
    matrix = np.abs(support[:, None] - support).sum(axis=-1)
    measures = Measures.from_histograms(rng.exponential(1.0, (90, 15)) * (rng.random((90, 15)) < 0.7), support)
    model = Embedder(matrix, order=1, pairs=400, training=wembed.TrainingSettings(steps=5), n_jobs=1).fit(measures)
    folder = tmp_path_factory.mktemp("histograms") / "index"
    Index(model, measures[:60]).save(folder)
    return model, measures[60:], folder


def test_histograms_under_a_cost_matrix_are_asked_about_in_every_form(
    histograms: tuple[Embedder, Measures, Path],
) -> None:
    model, measures, folder = histograms
    expected = model.distance(measures[:3], measures[3:6])
    exact = wembed.exact_distances(measures, [(0, 3), (1, 4), (2, 5)], model.cost, n_jobs=1)
    dense = measures.histograms()
    clouds = Measures.from_point_clouds([one.support for one in measures], [one.weights for one in measures])
    with running(folder) as url, wembed.Client(url) as client:
        for given in (measures, clouds):
            np.testing.assert_allclose(client.distance(given[:3], given[3:6]), expected, rtol=1e-5)
            found = client.distance(given[:3], given[3:6], exact=True)
            np.testing.assert_allclose(found.estimate, exact)
        assert client.query(measures[:3], 5).ids.tolist() == Index.load(folder).query(measures[:3], 5).ids.tolist()
        vectors = model.transform(measures[:3])
        bodies = [
            {"json": {"measures": [{"weights": row.tolist()} for row in dense[:3]]}},
            {
                "json": {
                    "measures": [{"points": m.support.tolist(), "weights": m.weights.tolist()} for m in measures[:3]]
                }
            },
            {"content": npy(dense[:3]), "headers": {"content-type": "application/x-npy"}},
            {"content": npz(weights=dense[:3]), "headers": {"content-type": "application/x-npz"}},
        ]
        for body in bodies:
            found = httpx.post(f"{url}/v1/embed", **body).json()
            np.testing.assert_allclose(found["vectors"], vectors, rtol=1e-4, atol=1e-5)
        ids = client.add(measures[:2])
        assert client.query(measures[:1], 1).ids[0, 0] == ids[0]
        document = httpx.get(f"{url}/openapi.json").json()
        for path, verbs in document["paths"].items():
            if "post" in verbs:
                told = verbs["post"]["requestBody"]["content"]["application/json"]
                assert ("example" in told) == (path not in ("/v1/barycenter", "/v1/interpolate"))
                assert "example" not in told or httpx.post(f"{url}{path}", json=told["example"]).is_success
        with pytest.raises(
            MeasureError, match=r"measure 1 has a point at \[7.0, 7.0\], which is none of the 15 points"
        ):
            client.transform(Measures.from_point_clouds([measures[0].support, [[7.0, 7.0]]]))
        with pytest.raises(MeasureError, match="dimension 3, and the common support 2"):
            client.transform(Measures.from_point_clouds([[[7.0, 7.0, 1.0]]]))


def test_what_the_docs_say_of_it_runs(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wembed.readers.digits", halved_digits)
    page = (Path(__file__).parents[1] / "docs" / "serving.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(compile(code.replace("http://127.0.0.1:8000", url), "serving.md", "exec"), {})
    document = httpx.get(f"{url}/openapi.json").json()["paths"]
    told = {(verb.lower(), path) for verb, path in re.findall(r"`(POST|GET|DELETE) (/[^?`]*)", page)}
    told = {(verb, re.sub(r"/\d+$", "/{id}", path)) for verb, path in told} - {("get", "/openapi.json")}
    assert told == {(verb, path) for path, verbs in document.items() for verb in verbs}
    limits = httpx.get(f"{url}/v1/info").json()["limits"]
    assert all(f"| `{name}` | {most:,} |" in page for name, most in limits.items())


def started(folder: Path, port: int, *options: str) -> "subprocess.Popen[bytes]":
    program = [sys.executable, "-m", "wembed", "serve", str(folder), "--port", str(port), "--jobs", "1", *options]
    process = subprocess.Popen(program, stderr=subprocess.DEVNULL)
    for _ in range(600):
        try:
            httpx.get(f"http://127.0.0.1:{port}/readyz")
            return process
        except httpx.HTTPError:
            assert process.poll() is None
            time.sleep(0.05)
    raise AssertionError("the service did not start")


def test_a_killed_service_has_what_it_confirmed_and_an_ended_one_finishes(folder: Path, unseen: Measures) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    process = started(folder, port)
    with wembed.Client(url) as client:
        client.add(unseen[:2], labels=["kept", None])
        process.kill()
        process.wait()
    process = started(folder, port)
    with wembed.Client(url) as client, ThreadPoolExecutor(8) as threads:
        assert client[60].label == "kept"
        pairs = [threads.submit(client.pairwise, unseen[:20], exact=True) for _ in range(8)]
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        assert all(one.result().exact.all() for one in pairs)
        assert process.wait(20) == -signal.SIGTERM
    assert len(Index.load(folder)) == 62


def test_without_the_extra_it_says_which(folder: Path) -> None:
    block = "import sys; sys.modules['uvicorn'] = None; from wembed.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", block, "serve", str(folder)], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.strip() == "error: this takes uvicorn, which `pip install 'wembed[serve]'` brings"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "0.0.0.0"], "there are no keys"),
        (["--keys", "nowhere"], "cannot be read as a file of keys"),
        (["--limit", "boddy=3"], "with one of the names body, measures"),
        (["--port", "TAKEN"], "cannot be listened at: Address already in use"),
    ],
)
def test_wrong_options_are_told_before_anything_is_served(folder: Path, arguments: list[str], said: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        given = [argument.replace("TAKEN", str(taken.getsockname()[1])) for argument in arguments]
        with pytest.raises(wembed.WembedError, match=said):
            command_line(["serve", str(folder), *given], standalone_mode=False)


def test_a_full_disk_spoils_nothing_that_comes_later(folder: Path, unseen: Measures, model: Embedder) -> None:
    """A write that stops halfway leaves no part behind, not even when files are closed."""
    vectors, write, room = model.encode(unseen), os.write, [700]

    def short(handle: int, part: Any) -> int:
        if not room[0]:
            raise OSError(28, "No space left on device")
        done = write(handle, bytes(part[: room[0]]))
        room[0] -= done
        return done

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wembed.serve.journal.os.write", short)
        collection = Collection(folder)
        with pytest.raises(OSError, match="No space"):
            collection.add(unseen[:1], vectors[:1], [400])
        room[0] = 10**9
        collection.add(unseen[:2], vectors[:2], [401, 402])
        room[0] = 700
        with pytest.raises(OSError, match="No space"):
            collection.add(unseen[2:3], vectors[2:3], [403])
        room[0] = 10**9
        collection.remove([401])
    collection.index.release()
    with Collection(crashed(folder)) as again:
        assert again.replayed == 2
        assert [one in again.index for one in (400, 401, 402, 403)] == [False, False, True, False]


def test_a_support_is_in_the_journal_once(folder: Path, unseen: Measures, model: Embedder) -> None:
    vectors = model.encode(unseen)
    collection = Collection(folder)
    sizes = []
    for i in range(3):
        collection.add(unseen[i : i + 1], vectors[i : i + 1], [100 + i])
        sizes.append((folder / "journal").stat().st_size)
    assert sizes[2] - sizes[1] < sizes[0] / 2
    expected = [collection.index[100 + i].measure for i in range(3)]
    collection.index.release()
    with Collection(crashed(folder)) as again:
        for i, one in enumerate(expected):
            np.testing.assert_array_equal(again.index[100 + i].measure.support, one.support)
        assert again.index.grid == (SIDE, SIDE)


@pytest.mark.parametrize("bad", ["true", '"7"', "null", "[1]", "{}"])
def test_a_number_is_a_number(client: TestClient, bad: str) -> None:
    body = f'{{"measures": [{{"image": [[1, {bad}], [2, 3]]}}]}}'
    refused = client.post("/v1/embed", content=body, headers={"content-type": "application/json"})
    assert refused.status_code == 422
    assert "measures.0.image.0.1: Input should be a valid" in refused.json()["error"]["message"]


def test_many_wrong_things_are_refused_as_soon_as_one(client: TestClient) -> None:
    """Strings are never laid out in an array as wide as the longest, and the first problem is told."""
    long = json.dumps(["x" * 100_000, *["y"] * 50_000])
    body = f'{{"measures": [{{"points": [[0, 1]], "weights": {long}}}]}}'
    began = time.perf_counter()
    refused = client.post("/v1/embed", content=body, headers={"content-type": "application/json"})
    assert refused.status_code == 422
    assert refused.json()["error"]["message"].count("Input should be") == 1
    assert time.perf_counter() - began < 1


def test_what_is_asked_for_by_id_counts_before_it_is_fetched(serve: Serve, unseen: Measures) -> None:
    atoms = int(unseen[:1].sizes[0])
    client = serve(limits=Limits(atoms=20 * atoms))
    client.post("/v1/measures", json={"measures": listed(unseen[:1]), "ids": [99]}).raise_for_status()
    body = {"measures": [{"id": 99}] * 21}
    assert client.post("/v1/embed", json=body).json()["error"]["limit"] == "atoms"
    assert client.post("/v1/embed", json={"measures": [{"id": 99}] * 20}).status_code == 200
    lists = {"measures": [{"points": [[]] * (20 * atoms)}]}
    assert client.post("/v1/embed", json=lists).json()["error"]["limit"] == "atoms"


def test_solves_are_counted_whatever_asks_for_them(serve: Serve, folder: Path, unseen: Measures) -> None:
    largest = int(Index.load(folder).measures.sizes.max())
    client = serve(limits=Limits(solves=10))
    many = {"measures": listed(unseen[:5]), "k": 3, "recall": 0.9}
    refused = client.post("/v1/neighbors", json=many)
    assert (refused.status_code, refused.json()["error"]["limit"]) == (422, "solves")
    for limits in (Limits(solved_atoms=largest - 1), Limits(work=1_000)):
        client.__exit__(None, None, None)
        client = serve(limits=limits)
        small = {"measures": [{"points": [[3.0, 3.0], [9.0, 4.0]]}], "k": 1, "rerank": 60}
        name = client.post("/v1/neighbors", json=small).json()["error"]["limit"]
        assert name == ("work" if limits.work == 1_000 else "solved_atoms")


def test_ids_that_are_no_ids_are_not_there(client: TestClient, unseen: Measures) -> None:
    for wanted in ("9" * 5_000, "-" + "9" * 30, "1_0", "٣"):
        assert client.get(f"/v1/measures/{wanted}").status_code == 404
        assert client.get("/v1/measures", params={"id": wanted}).status_code == 422
        assert client.request("DELETE", "/v1/measures", params={"id": wanted}).status_code == 422
    last = 2**63 - 1
    added = client.post("/v1/measures", json={"measures": listed(unseen[:2]), "ids": [last, -3]})
    assert added.json() == {"ids": [last, -3]}
    assert client.get("/v1/measures/-3").json()["id"] == -3
    assert client.post("/v1/measures", json={"measures": listed(unseen[2:4])}).json() == {"ids": [60, 61]}
    assert client.delete("/v1/measures?id=60&id=060&id=-3").json() == {"removed": 2}
    both = client.request("DELETE", "/v1/measures?id=61", json={"ids": [61]})
    assert both.status_code == 422


def test_a_payload_is_given_back_whatever_it_is(client: TestClient, unseen: Measures) -> None:
    payload = {"n": 2**70, "s": "\u2028", "f": 0.1}
    client.post("/v1/measures", json={"measures": listed(unseen[:1]), "payloads": [payload]}).raise_for_status()
    assert client.get("/v1/measures/60").json()["payload"] == payload


def test_only_its_own_names_are_asked_for(serve: Serve) -> None:
    client = serve(hosts=frozenset({"localhost", "127.0.0.1"}))
    assert client.get("/v1/info", headers={"host": "LocalHost:8000"}).status_code == 200
    assert client.get("/healthz", headers={"host": "any"}).status_code == 200
    own = {"host": "127.0.0.1:8000", "origin": "http://127.0.0.1:8000"}
    assert client.get("/v1/info", headers=own).status_code == 200
    for wrong in ({"host": "evil.example"}, {**own, "origin": "https://evil.example"}, {**own, "origin": "null"}):
        assert client.delete("/v1/measures?id=7", headers=wrong).status_code == 403
    assert client.get("/v1/measures/7", headers=own).status_code == 200


def test_a_body_that_does_not_come_holds_up_nobody(folder: Path) -> None:
    port = free_port()
    process = started(folder, port, "--limit", "upload=2", "--limit", "queue=2")
    begun = b"POST /v1/embed HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{"
    with ExitStack() as open_ones:
        open_ones.callback(process.kill)
        stalled = [open_ones.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(4)]
        *first, late = stalled
        for one in first:
            one.sendall(begun)
        assert httpx.get(f"http://127.0.0.1:{port}/v1/info").status_code == 200
        for one in first:
            with one.makefile("rb") as answer:
                assert answer.readline().startswith(b"HTTP/1.1 408")
        late.sendall(begun)
        time.sleep(0.2)
        process.terminate()
        assert process.wait(15) is not None


def test_an_error_of_ours_has_the_id_of_the_request(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Any) -> Any:
        raise ValueError("secret")

    monkeypatch.setattr("wembed.serve.service.Service.info", broken)
    answer = client.get("/v1/info", headers={"x-request-id": "abc"})
    assert (answer.status_code, answer.headers["x-request-id"]) == (500, "abc")
    assert answer.json()["error"]["request_id"] == "abc"
    assert "secret" not in answer.text
    monkeypatch.undo()
    assert client.head("/healthz").status_code == client.head("/").status_code == 200
    wished = {"accept": "application/x-npy, application/json"}
    body = {"measures": [{"id": 1}], "k": 1}
    assert client.post("/v1/neighbors", json=body, headers=wished).json()["ids"] == [[1]]


def test_the_client_says_what_it_cannot_ask(url: str, unseen: Measures) -> None:
    for wrong in ("http://[::1", "ftp://a", "http://a:b"):
        with pytest.raises(SettingError, match="give one such as"):
            wembed.Client(wrong)
    for wrong in ("schlüssel", "", " "):
        with pytest.raises(SettingError, match="the key is empty or has characters"):
            wembed.Client(url, wrong)
    closed = wembed.Client(url)
    closed.close()
    with pytest.raises(wembed.ServiceError, match="this client has been closed"):
        closed.info()
    with wembed.Client(url) as client:
        with pytest.raises(SettingError, match="no form as a request"):
            client.add(unseen[:1], payloads=[{1, 2}])
        client.remove([])
        assert client.add(unseen[:0]).tolist() == []
        (named,) = client.add(unseen[:1], labels=[7])
        assert client[named].label == "7"
        client.remove([named])


@pytest.fixture(scope="module")
def decoding(model: Embedder, some_digits: Measures, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of an index whose model has a decoder."""
    place = tmp_path_factory.mktemp("decoding")
    model.save(place / "model")
    own = wembed.load(place / "model").fit_decoder(some_digits[model.split_.train], steps=40, mixtures=20)
    Index(own, some_digits[:60]).save(place / "index")
    return place / "index"


@pytest.fixture
def making(decoding: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Service(Collection(decoding), n_jobs=1, limits=Limits(solves=30)))) as client:
        yield client


@pytest.mark.parametrize("method", ["learned", "polish", "exact"])
def test_what_it_makes_is_what_python_makes(making: TestClient, decoding: Path, unseen: Measures, method: str) -> None:
    model = Index.load(decoding).embedder
    shares = [0.25, 0.5, 0.25]
    body = {"measures": listed(unseen[:3]), "weights": shares, "method": method}
    if method == "exact":
        assert making.post("/v1/barycenter", json=body).json()["error"]["limit"] == "solves"
    else:
        found = making.post("/v1/barycenter", json=body).json()
        sent = Measures.from_images(images(unseen[:3]))  # rounding decides which of many optimal couplings is found
        made = barycenter(model, sent, shares, method=method)
        np.testing.assert_allclose(found["vectors"], made.vectors, atol=1e-4)
        np.testing.assert_allclose(found["measures"][0]["points"], made.measures[0].support, atol=0.01)
        np.testing.assert_allclose(found["measures"][0]["weights"], made.measures[0].weights, atol=1e-5)
    asked = {"a": listed(unseen[:2]), "b": listed(unseen[2:4]), "t": [0, 0.5], "method": method}
    told = making.post("/v1/interpolate", json=asked).json()
    half = making.post("/v1/interpolate", json=asked | {"t": 0.5}).json()
    np.testing.assert_allclose(half["vectors"], told["vectors"][1::2], atol=0.02 * model.mean_distance_)
    way = interpolate(model, unseen[:2], unseen[2:4], [0, 0.5], method=method)
    assert len(told["measures"]) == len(way.measures) == 4
    assert told["measures"][0]["grid"] == ([SIDE, SIDE] if method == "learned" else None)
    answered = Measures.from_point_clouds(*([one[of] for one in told["measures"]] for of in ("points", "weights")))
    expected = Measures.from_flat(way.measures.points(), way.measures.weights, way.measures.sizes)
    pairs = [(i, i + 4) for i in range(4)]  # couplings of decoded atoms may differ where vectors do by their rounding
    off = wembed.exact_distances(Measures.concatenate([answered, expected]), pairs)
    assert (off.mean() if method == "polish" else off.max()) < 0.03 * model.mean_distance_
    table = pa.ipc.open_stream(making.post("/v1/interpolate", json=asked, headers={"accept": ARROW}).content).read_all()
    assert table.column_names == ["measure", "x1", "x2", "weight"]
    for name, known in (("x1", answered.points()[:, 0]), ("x2", answered.points()[:, 1]), ("weight", answered.weights)):
        np.testing.assert_allclose(table[name], known, atol=1e-5)
    if method != "polish":  # where couplings differ, so does the number of atoms
        assert len(table) == way.measures.sizes.sum()
    assert making.get("/v1/info").json()["decoder"] == "image"


def test_what_it_cannot_make_is_told(making: TestClient, client: TestClient, unseen: Measures) -> None:
    one = listed(unseen[:2])
    for path, body, said in (
        ("barycenter", {"measures": one, "weights": [0.5, 0.2]}, "weights sum to 0.7"),
        ("barycenter", {"measures": one, "weights": [0.5]}, "give a number for each of 2"),
        ("barycenter", {"measures": one, "weights": [2, -1]}, "there is a weight of -1"),
        ("barycenter", {"measures": one, "method": "fast"}, "choose one of"),
        ("interpolate", {"a": one, "b": one[:1]}, "give as many"),
        ("interpolate", {"a": one, "b": one, "t": [1.5]}, "give a number of"),
        ("interpolate", {"a": one, "b": one, "t": []}, "give a number of"),
        ("interpolate", {"a": one}, "Field required"),
    ):
        refused = making.post(f"/v1/{path}", json=body)
        assert refused.status_code == 422
        assert re.search(said, refused.json()["error"]["message"])
    none = client.post("/v1/barycenter", json={"measures": one})
    assert (none.status_code, "wembed decoder" in none.json()["error"]["message"]) == (422, True)
    images = {"measures": one, "normalize": True, "weights": [1, 2]}
    made = making.post("/v1/barycenter", json=images, headers={"accept": "application/x-npy"})
    assert np.load(io.BytesIO(made.content)).shape == (1, SIDE, SIDE)


def test_the_client_makes_measures(decoding: Path, unseen: Measures) -> None:
    model = Index.load(decoding).embedder
    with running(decoding) as url, wembed.Client(url) as client:
        made = client.barycenter(unseen[:3], [2, 1, 1], normalize=True)
        expected = barycenter(model, unseen[:3], [0.5, 0.25, 0.25]).measures
        np.testing.assert_allclose(made.histograms(), expected.histograms(), atol=1e-5)
        way = client.interpolate(unseen[:2], unseen[2:4], [0.25, 0.75], method="exact")
        expected = interpolate(model, unseen[:2], unseen[2:4], [0.25, 0.75], method="exact").measures
        np.testing.assert_allclose(way.points(), expected.points())
        with pytest.raises(SettingError, match="weights sum to"):
            client.barycenter(unseen[:2], [1, 1])

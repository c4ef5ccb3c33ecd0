"""The command line: what it prints, and that bad input is a sentence and exit code 2."""

import csv
import json
import re
import shutil
import sys
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import typer
from halved import SIDE, halved_digits
from PIL import Image

import wembed
from wembed import cli
from wembed.geometry import class_means, geodesic_pca
from wembed.learned import Candidate
from wembed.learning import curve
from wembed.learning.training import TrainingSettings


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command."""
    before = sys.argv
    sys.argv = ["wembed", *map(str, arguments)]
    try:
        with pytest.raises(SystemExit) as stopped:
            cli.main()
    finally:
        sys.argv = before
    out, err = capsys.readouterr()
    return int(stopped.value.code or 0), out, err


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, some_digits: wembed.Measures) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    images = some_digits.histograms().reshape(-1, SIDE, SIDE)
    np.save(folder / "digits.npy", images)
    np.save(folder / "a.npy", images[:3])
    np.save(folder / "b.npy", images[3:6])
    np.save(folder / "one.npy", images[:1])
    (folder / "blank.txt").write_text("a\n \nb\n")
    return folder


@pytest.fixture(scope="module")
def fitted_run(folder: Path) -> Path:
    before = sys.argv
    sys.argv = [
        "wembed",
        "fit",
        str(folder / "digits.npy"),
        "--out",
        str(folder / "run"),
        "--pairs",
        "800",
        "--steps",
        "30",
        "--encoder",
        "linear",
    ]
    try:
        with pytest.raises(SystemExit) as stopped:
            cli.main()
    finally:
        sys.argv = before
    assert stopped.value.code == 0
    return folder / "run"


def test_fit_leaves_distances_a_model_and_its_errors(fitted_run: Path) -> None:
    assert wembed.DistanceStore(fitted_run / "distances").complete
    assert not wembed.load(fitted_run / "model").verbose
    model = json.loads((fitted_run / "model" / "model.json").read_text())
    assert 0 < model["errors_on_unseen"]["errors"]["wembed"]["relative_error"] < 0.2
    assert not (fitted_run / "training.safetensors").exists()


def test_a_fit_says_why_it_had_so_many_pairs(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ("--steps", 2, "--encoder", "quantiles")
    code, _, err = run(capsys, "fit", folder / "digits.npy", "--out", tmp_path / "run", "--pairs", 400, *few)
    assert code == 0, err
    assert re.search(
        r"\d+ pairs, because so many pairs were asked for: .*; what more would bring, a fit in rounds", err
    )
    listed = np.stack([np.arange(299, 0, -1), np.arange(298, -1, -1)], axis=1)
    measures = wembed.read(folder / "digits.npy")
    for pairs, why in ((listed, "so many are in the store"), ("all", "there are no more")):
        some = measures if pairs is listed else measures[:40]
        store = wembed.precompute(some, tmp_path / why, pairs, n_jobs=1)
        embedder = wembed.Embedder(training=TrainingSettings(steps=2), encoder="quantiles", n_jobs=1)
        assert embedder.fit(some, distances=store).learning_curve_.stopped == why


def test_short_vectors_with_a_residual(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ("--pairs", 400, "--steps", 5, "--jobs", 1, "--encoder", "linear")
    data, out = folder / "digits.npy", tmp_path / "run"
    code, _, err = run(capsys, "fit", data, "--out", out, *few, "--residual")
    assert code == 2
    assert "a residual takes --dim 2 or more, of which one number is its length; here is none" in err
    assert "Traceback" not in err
    code, _, err = run(capsys, "fit", data, "--out", out, *few, "--dim", 8, "--residual")
    assert code == 0
    assert "8 numbers a vector, the first a residual" in err
    embedder = wembed.load(out / "model")
    assert (embedder.dim, embedder.residual) == (8, True)
    code, _, err = run(capsys, "embed", out, folder / "a.npy", "--out", tmp_path / "a.npy")
    assert code == 0
    assert embedder.residuals is not None
    assert f"by the width {embedder.residuals.width:.9g} and the 5 numbers after it" in err
    few_digits = wembed.read(folder / "a.npy")
    np.testing.assert_allclose(embedder.between(np.load(tmp_path / "a.npy")), embedder.pairwise(few_digits))


@pytest.mark.parametrize(
    ("encoder", "told", "worse_than_none"),
    [
        (
            ("linear", "--dim", 5_000),
            r"The encoder has no more than \d+ numbers: --dim 5,000 leaves them as they are",
            False,
        ),
        (("dwe", "--steps", 1), "The mean distance would be nearer to that of most pairs than this model is", True),
    ],
)
def test_fit_says_where_vectors_are_as_long_as_they_get_and_where_a_model_is_worse_than_none(
    encoder: tuple, told: str, worse_than_none: bool, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(capsys, "fit", folder / "digits.npy", "--out", tmp_path, "--pairs", 400, "--encoder", *encoder)
    assert code == 0
    assert re.search(told, err)
    assert ("The mean distance would be nearer" in err) == worse_than_none


def test_fit_again_solves_nothing(fitted_run: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {file: file.stat().st_mtime_ns for file in (fitted_run / "distances").glob("*.parquet")}
    same = ("--pairs", 800, "--steps", 30, "--encoder", "linear")
    code, _, err = run(capsys, "fit", folder / "digits.npy", "--out", fitted_run, *same)
    assert code == 0
    assert f"the model before, in {fitted_run / 'model'}, is replaced" in err
    assert {file: file.stat().st_mtime_ns for file in (fitted_run / "distances").glob("*.parquet")} == before


def test_few_measures_have_few_pairs_and_no_recall_and_that_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    points = np.random.default_rng(0).normal(size=(40, 3, 2))
    np.savez(tmp_path / "clouds.npz", points=points.reshape(-1, 2), sizes=np.full(40, 3), weights=np.ones(120))
    steps = ("--steps", 3, "--encoder", "quantiles", "--jobs", 1)
    code, _, err = run(capsys, "fit", tmp_path / "clouds.npz", "--out", tmp_path / "run", "--pairs", 5_000, *steps)
    assert code == 0, err
    assert re.search(r"[\d,]+ pairs of the 5,000 that were asked for: parts of the collection hold no more", err)
    assert "because parts of the collection hold no more of the 5,000 that were asked for" in err
    assert "the training measures have hardly any other pairs, so only more measures would bring more" in err
    assert "would tell" not in err
    assert "replaced" not in err
    assert re.search(r"no recall@10: that takes more than 20 unseen measures, and there are \d", err)


@pytest.mark.parametrize(("measures", "said"), [(60, False), (320, True)])
def test_fit_recommends_the_encoder_that_it_did_not_take_where_that_is_quicker(
    measures: int, said: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Candidate, "is_closer", lambda one, *_: one.learned.encoding.kind == "linear")
    points = np.random.default_rng(0).normal(size=(measures * 3, 2))
    data = tmp_path / "points.csv"
    data.write_text("measure,x1,x2\n" + "".join(f"{i // 3},{x},{y}\n" for i, (x, y) in enumerate(points)))
    code, _, err = run(capsys, "fit", data, "--out", tmp_path / "run", "--pairs", 200, "--steps", 2, "--jobs", 1)
    assert code == 0, err
    assert "encoder linear, " in err
    assert ("--encoder quantiles may encode quicker" in err) == said
    assert ("may encode quicker" in err) == said


def test_fit_names_what_comes_next_and_nothing_that_would_be_refused(
    fitted_run: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    places = rng.uniform([40, 0], [60, 20], (80 * 3, 2))
    data, out = tmp_path / "places.csv", tmp_path / "run"
    data.write_text("measure,x1,x2\n" + "".join(f"{i // 3},{x},{y}\n" for i, (x, y) in enumerate(places)))
    globe = ("--metric", "great-circle-degrees", "--order", 1, "--pairs", 200, "--steps", 2, "--jobs", 1)
    code, _, err = run(capsys, "fit", data, "--out", out, *globe)
    assert code == 0, err
    assert f"Next: wembed distance {out} A B, or wembed index {out} {data} --out INDEX\n" in err
    code, _, err = run(capsys, "decoder", out, data)
    assert code == 2
    assert "clouds are decoded in flat space alone" in err
    same = ("--pairs", 800, "--steps", 30, "--encoder", "linear")
    code, _, err = run(capsys, "fit", folder / "digits.npy", "--out", fitted_run, *same)
    assert code == 0, err
    assert f"for barycenters and more, wembed decoder {fitted_run} {folder / 'digits.npy'}" in err


def test_fit_in_rounds_tells_what_they_brought(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curve, "_FIRST", 200)
    monkeypatch.setattr(curve, "_PAYS", -1.0)
    few = ("--steps", 30, "--encoder", "quantiles")
    rounds = ("--out", folder / "rounds", *few, "--target-error", 1e-6, "--pairs", 800)
    code, _, err = run(capsys, "fit", folder / "digits.npy", *rounds)
    assert code == 0, err
    assert "validation error" in err
    assert re.search(r"pairs, because there are hardly more pairs to solve: [\d.]+% on validation measures; twice", err)
    assert "numbers a vector" in err
    assert "to encode a measure" in err
    assert "a fit like this one pays from about" in err
    assert re.search(r"All 300 distances of a measure to these are solved exactly in [\d.]+ ms", err)
    assert len(wembed.DistanceStore(folder / "rounds" / "distances")) > 700
    assert len(wembed.load(folder / "rounds" / "model").learning_curve_.rounds) == 2
    code, _, err = run(capsys, "fit", folder / "digits.npy", "--out", folder / "rounds", "--max-seconds", 0)
    assert code == 2
    assert "--max-seconds 0.0; give a number above 0" in err


def test_fit_takes_the_pairs_that_are_there_and_adds_to_them(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out, few = folder / "digits.npy", folder / "taken", ("--steps", 2, "--encoder", "quantiles")
    command = ("precompute", data, "--out", out / "distances", "--pairs", 300, "--draw", "random", "--seed", 3)
    assert run(capsys, *command)[0] == 0
    before = wembed.DistanceStore(out / "distances")
    code, _, err = run(capsys, "fit", data, "--out", out, *few)
    assert code == 0
    assert "was drawn with --seed 3; --seed 0 sets the training alone" in err.replace("\n", " ")
    assert wembed.DistanceStore(out / "distances").manifest == before.manifest
    assert run(capsys, "fit", data, "--out", out, *few, "--pairs", 500)[0] == 0
    after = wembed.DistanceStore(out / "distances")
    assert (len(before), len(after)) == (300, 500)
    np.testing.assert_array_equal(after.distances[:300], before.distances)
    listed = np.stack([np.arange(299, 0, -1), np.arange(298, -1, -1)], axis=1)
    wembed.precompute(wembed.read(data), folder / "listed" / "distances", listed, n_jobs=1)
    assert run(capsys, "fit", data, "--out", folder / "listed", *few)[0] == 0


def test_precompute_keeps_what_exact_distances_gives(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(
        capsys,
        "precompute",
        folder / "a.npy",
        "--out",
        folder / "three",
        "--pairs",
        "all",
        "--order",
        1,
        "--metric",
        "cityblock",
    )
    assert code == 0
    assert "3 exact distances" in err
    store = wembed.DistanceStore(folder / "three")
    cost = wembed.GroundCost("cityblock", 1)
    exact = wembed.exact_distances(wembed.read(folder / "a.npy"), store.pairs, cost, n_jobs=1)
    np.testing.assert_array_equal(store.distances, exact)


def test_distance_answers_for_files_the_model_has_not_seen(
    fitted_run: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, "distance", fitted_run, folder / "a.npy", folder / "b.npy", "--exact")
    assert code == 0
    rows = list(csv.DictReader(StringIO(out)))
    expected = wembed.load(fitted_run / "model").distance(wembed.read(folder / "a.npy"), wembed.read(folder / "b.npy"))
    np.testing.assert_allclose([float(row["predicted"]) for row in rows], expected, rtol=1e-5)
    assert all(abs(float(row["predicted"]) / float(row["exact"]) - 1) < 0.3 for row in rows)


def test_distance_says_how_far_off_it_may_be_and_solves_what_is_open(
    fitted_run: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def asked(*options: object) -> tuple[list[dict[str, str]], str]:
        code, out, err = run(capsys, "distance", fitted_run, folder / "a.npy", folder / "b.npy", *options)
        assert code == 0, err
        return list(csv.DictReader(StringIO(out))), err

    rows, err = asked("--interval", 0.8, "--exact")
    assert "0 of 3 pairs were solved" in err
    for row in rows:
        assert float(row["lower"]) <= float(row["estimate"]) <= float(row["upper"])
        assert row["is_exact"] == "0"
    rows, err = asked("--tolerance", 1e-9, "--budget", 2, "--exact")
    assert "2 of 3 pairs were solved" in err
    solved = [row for row in rows if row["is_exact"] == "1"]
    assert len(solved) == 2
    assert all(row["estimate"] == row["exact"] == row["lower"] == row["upper"] for row in solved)
    (open_,) = (row for row in rows if row["is_exact"] == "0")
    assert open_["exact"] != open_["estimate"]
    assert {row["exact"] for row in rows} == {row["exact"] for row in asked("--tolerance", 1e-9, "--exact")[0]}


def test_a_measure_and_itself_are_known_exactly(
    fitted_run: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, "distance", fitted_run, folder / "a.npy", folder / "a.npy", "--tolerance", 0.02)
    assert code == 0
    assert "0 of 3 pairs were solved" in err
    assert [(row["estimate"], row["is_exact"]) for row in csv.DictReader(StringIO(out))] == [("0", "1")] * 3


@pytest.mark.filterwarnings("always")
def test_strange_measures_are_warned_of_in_a_sentence(
    fitted_run: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(folder / "noise.npy", np.random.default_rng(0).random((2, SIDE, SIDE)))
    code, _, err = run(capsys, "distance", fitted_run, folder / "noise.npy", folder / "one.npy")
    assert code == 0
    assert "warning: 2 of 2 measures of a are unlike those that the model" in err
    assert "UnusualWarning" not in err


def test_calibrate_sets_the_intervals_by_other_measures(
    fitted_run: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(fitted_run / "model", tmp_path / "run" / "model")
    fresh, _ = halved_digits()
    np.save(folder / "fresh.npy", fresh[300:370].histograms().reshape(-1, SIDE, SIDE))
    pair = (folder / "a.npy", folder / "b.npy", "--interval", 0.9)
    before = run(capsys, "distance", tmp_path / "run", *pair)[1]
    code, _, err = run(capsys, "calibrate", tmp_path / "run", folder / "fresh.npy", "--pairs", 300)
    assert code == 0, err
    assert "Intervals are calibrated on 35 measures: those of 90 % hold 90 % of unseen pairs, give or take 10.1" in err
    after = run(capsys, "distance", tmp_path / "run", *pair)[1]
    assert [row.split(",")[1] for row in after.splitlines()] == [row.split(",")[1] for row in before.splitlines()]
    assert [row.split(",")[3] for row in after.splitlines()] != [row.split(",")[3] for row in before.splitlines()]


def test_query_keeps_a_promise_and_counts_what_it_took(
    fitted_run: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(capsys, "index", fitted_run, folder / "digits.npy", "--out", folder / "promised")[0] == 0
    answers = {}
    for way in (("--recall", 0.9), ("--certified",)):
        code, out, err = run(capsys, "query", folder / "promised", folder / "one.npy", "-k", 4, "--json", *way)
        assert code == 0, err
        assert "pairs were solved for a query in the mean" in err
        answers[way[0]] = json.loads(out)
        assert answers[way[0]]["exact"]
        assert 4 <= answers[way[0]]["solved"] <= 300
    assert answers["--certified"]["ids"][0] == 0
    code, _, err = run(capsys, "query", folder / "promised", folder / "one.npy", "--recall", 0.9, "--certified")
    assert code == 2
    assert "give one of them" in err


def test_evaluate_writes_a_report(fitted_run: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = folder / "names.txt"
    names.write_text("\n".join(f"digit {i % 3}" for i in range(300)))
    few = ("--pairs", 60, "--queries", 1, "--html", folder / "report.html")
    code, _, err = run(capsys, "evaluate", fitted_run, folder / "digits.npy", *few, "--labels", names)
    assert code == 0, err
    assert "Intervals of 90% hold" in err
    page = (folder / "report.html").read_text()
    assert "digit 2" in page
    assert "When not to trust this model" in page
    assert (folder / "report_pictures" / "scatter.png").exists()
    names.write_text("one")
    code, _, err = run(capsys, "evaluate", fitted_run, folder / "digits.npy", *few, "--labels", names)
    assert code == 2
    assert "expected one for each of 300 measures" in err
    code, _, err = run(capsys, "evaluate", fitted_run, folder / "digits.npy", "--html", folder / "report.pdf")
    assert code == 2
    assert "give a file that ends in .html" in err


def test_one_measure_is_compared_with_many(fitted_run: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "distance", fitted_run, folder / "one.npy", folder / "b.npy")
    assert code == 0
    assert len(out.splitlines()) == 4


def test_embed_index_and_query_agree_with_the_python_api(
    fitted_run: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measures, embedder = wembed.read(folder / "digits.npy"), wembed.load(fitted_run / "model")
    assert run(capsys, "embed", fitted_run, folder / "digits.npy", "--out", folder / "v.npy")[0] == 0
    np.testing.assert_array_equal(np.load(folder / "v.npy"), embedder.transform(measures))
    assert run(capsys, "index", fitted_run, folder / "digits.npy", "--out", folder / "index")[0] == 0
    code, out, _ = run(capsys, "query", folder / "index", folder / "a.npy", "-k", 3, "--json")
    assert code == 0
    found = wembed.Index(embedder, measures).query(wembed.read(folder / "a.npy"), k=3)
    assert [json.loads(line)["ids"] for line in out.splitlines()] == found.ids.tolist()
    code, out, _ = run(capsys, "query", folder / "index", folder / "a.npy", "-k", 3, "--rerank", 5)
    assert code == 0
    assert out.splitlines()[0] == "query,rank,id,exact"
    assert len(out.splitlines()) == 10


def test_an_index_by_a_graph_is_asked_for_by_name(
    fitted_run: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = ("index", fitted_run, folder / "digits.npy", "--out", folder / "graph", "--method")
    code, _, err = run(capsys, *made, "hnsw")
    assert code == 0
    assert "300 measures in" in err
    assert ", hnsw;" in err
    code, out, _ = run(capsys, "query", folder / "graph", folder / "a.npy", "-k", 3)
    assert code == 0
    assert [row["id"] for row in csv.DictReader(StringIO(out)) if row["rank"] == "1"] == ["0", "1", "2"]
    code, _, err = run(capsys, *made, "tree")
    assert code == 2
    assert "error: --method 'tree'; choose one of auto, flat, hnsw" in err


def test_measures_are_added_changed_and_removed_by_id(
    fitted_run: Path, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, ids, labels, payloads = (folder / name for name in ("kept", "ids.txt", "labels.txt", "payloads.jsonl"))
    ids.write_text("one\ntwo\nthree\n")
    labels.write_text("first\nsecond\nthird\n")
    payloads.write_text('{"n": 1}\nnull\n[3]\n')
    known = ("--ids", ids, "--labels", labels)
    assert run(capsys, "index", fitted_run, folder / "a.npy", "--out", made, *known, "--payloads", payloads)[0] == 0
    assert wembed.Index.load(made)["three"].payload == [3]
    ids.write_text("four\nfive\nsix\n")
    code, _, err = run(capsys, "add", made, folder / "b.npy", *known)
    assert (code, "3 measures added, ids four, ..., six; 6 in" in err) == (0, True)
    code, _, err = run(capsys, "add", made, folder / "b.npy", *known)
    assert (code, "the id 'four' is there already" in err) == (2, True)
    assert run(capsys, "remove", made, "two", "six")[0] == 0
    code, out, _ = run(capsys, "query", made, folder / "b.npy", "-k", 1)
    rows = list(csv.DictReader(StringIO(out)))
    assert [row["id"] for row in rows][:2] == ["four", "five"]
    assert [row["label"] for row in rows][:2] == ["first", "second"]
    ids.write_text("five\none\nthree\n")
    code, _, err = run(capsys, "add", made, folder / "b.npy", "--ids", ids, "--update")
    assert (code, "3 measures changed" in err) == (0, True)
    arguments = ("query", made, folder / "b.npy", "-k", 1, "--among", ids, "--json")
    answers = [json.loads(line) for line in run(capsys, *arguments)[1].splitlines()]
    assert [one["ids"] for one in answers] == [["five"], ["one"], ["three"]]
    assert [one["labels"] for one in answers] == [["second"], ["first"], ["third"]]
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    table = run(capsys, "query", made, folder / "b.npy", "-k", 1)[1]
    assert "│ label" in table or "label" in table.splitlines()[1]
    assert run(capsys, "query", made, folder / "b.npy", "-k", 1, "--csv")[1].startswith("query,rank,id,label,predicted")
    for arguments, said in (
        (("remove", made), "give the ids"),
        (("remove", made, "seven"), "no measure with the id 'seven'"),
        (("add", made, folder / "b.npy", "--update"), "give these with --ids"),
        (("add", made, folder / "b.npy"), "ids of this index are strings"),
        (("query", made, folder / "b.npy", "--csv", "--json"), "give one of them"),
        (("add", made, folder / "b.npy", "--payloads", labels), "JSON on each line"),
    ):
        code, _, err = run(capsys, *arguments)
        assert (code, said in err) == (2, True)


def test_evaluate_looks_at_the_unseen_part_alone(
    fitted_run: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = folder / "scatter.png"
    arguments = ("--pairs", 50, "--queries", 1, "--json", "--picture", picture)
    code, out, _ = run(capsys, "evaluate", fitted_run, folder / "digits.npy", *arguments)
    assert code == 0
    assert json.loads(out)["measures"] == 30
    assert picture.read_bytes().startswith(b"\x89PNG")
    code, _, err = run(capsys, "evaluate", fitted_run, folder / "digits.npy", "--pairs", 50, "--queries", 1)
    assert code == 0
    assert "30 unseen measures (it has seen the other 270)" in err
    assert re.search(r"recall@10 among \d+, queries: 1\b", err)
    code, _, err = run(capsys, "evaluate", fitted_run, folder / "digits.npy", "--pairs", 50, "--queries", 1_000)
    assert code == 0, err
    unseen = len(wembed.load(fitted_run).split_.test)
    assert f"recall@10 among {unseen}, queries: {unseen}" in err


@pytest.fixture(scope="module")
def decoding_run(fitted_run: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = Path(shutil.copytree(fitted_run, tmp_path_factory.mktemp("decoding") / "run"))
    before = sys.argv
    sys.argv = [
        "wembed",
        "decoder",
        str(place),
        str(folder / "digits.npy"),
        "--steps",
        "30",
        "--mixtures",
        "50",
        "--jobs",
        "1",
    ]
    try:
        with pytest.raises(SystemExit) as stopped:
            cli.main()
    finally:
        sys.argv = before
    assert stopped.value.code == 0
    return place


def drawn(file: Path) -> np.ndarray:
    """The picture, which is not of one colour."""
    picture = np.asarray(Image.open(file).convert("L"))
    assert picture.std() > 5
    return picture


def test_barycenters_are_drawn_and_kept(
    decoding_run: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "labels.txt").write_text("b\na\na\n")
    labels = ["--labels", tmp_path / "labels.txt", "--save", tmp_path / "means"]
    command = ["barycenter", decoding_run, folder / "a.npy", "--out", tmp_path / "means.png", *labels]
    assert run(capsys, *command)[0] == 0
    drawn(tmp_path / "means.png")
    made, measures = wembed.read(tmp_path / "means"), wembed.read(folder / "a.npy")
    _, expected = class_means(wembed.load(decoding_run), measures, ["b", "a", "a"])
    np.testing.assert_allclose(made.histograms(), expected.measures.histograms(), atol=1e-6)
    code, _, err = run(capsys, *command[:4], tmp_path / "one.svg", "--method", "polish", "--jobs", 1)
    assert (code, "The barycenter of 3 measures, polish" in err) == (0, True)
    assert (tmp_path / "one.svg").read_text().startswith("<?xml")


def test_the_way_from_one_to_another_is_drawn(
    decoding_run: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ends = [folder / "a.npy", folder / "digits.npy", "--first", 2, "--last", 5]
    command = ["interpolate", decoding_run, *ends, "--out", tmp_path / "strip.png", "--jobs", 1]
    code, _, err = run(capsys, *command, "--steps", 4, "--save", tmp_path / "way")
    exact = wembed.exact_distances(wembed.read(folder / "digits.npy"), [(2, 5)])[0]
    assert (code, f"it is {exact:.4g} long" in err) == (0, True)
    assert len(wembed.read(tmp_path / "way")) == 4
    wide = drawn(tmp_path / "strip.png").shape[1]
    assert run(capsys, *command, "--steps", 8)[0] == 0
    assert drawn(tmp_path / "strip.png").shape[1] > 1.5 * wide


def test_without_a_decoder_the_exact_way_is_drawn(
    fitted_run: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["interpolate", fitted_run, folder / "a.npy", folder / "b.npy", "--out", tmp_path / "strip.png"]
    code, _, err = run(capsys, *command, "--steps", 3, "--save", tmp_path / "way")
    assert (code, "has no decoder, so the learned way is missing" in err) == (0, True)
    drawn(tmp_path / "strip.png")
    assert wembed.read(tmp_path / "way").grid is None


def test_principal_geodesics_are_drawn_and_told(
    decoding_run: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["geodesics", decoding_run, folder / "digits.npy", "--out", tmp_path / "walks.png"]
    code, out, _ = run(capsys, *command, "--components", 2)
    assert code == 0
    drawn(tmp_path / "walks.png")
    rows = list(csv.DictReader(StringIO(out)))
    expected = geodesic_pca(wembed.load(decoding_run), wembed.read(folder / "digits.npy"), 2)
    np.testing.assert_allclose([float(row["explained"]) for row in rows], expected.explained, rtol=1e-4)
    np.testing.assert_allclose([float(row["standard_deviation"]) for row in rows], expected.deviations, rtol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["barycenter", "RUN", "a.npy", "--out", "m.png"], "no decoder; give it one with .*`wembed decoder`"),
        (["barycenter", "TAUGHT", "a.npy", "--out", "m.txt"], "pictures are written as"),
        (["barycenter", "TAUGHT", "a.npy", "--out", "m.png", "--method", "fast"], "--method 'fast'; choose one of"),
        (["interpolate", "TAUGHT", "a.npy", "b.npy", "--last", 3, "--out", "m.png"], "--last 3: .* holds 3 measures"),
        (["geodesics", "TAUGHT", "a.npy", "--components", 3, "--out", "m.png"], "give at most 2"),
        (["geodesics", "TAUGHT", "one.npy", "--out", "m.png"], "two measures at least"),
        (["geodesics", "TAUGHT", "a.npy", "--out", "m.png", "--save", "one.npy"], "is a file; measures are kept"),
        (["geodesics", "TAUGHT", "a.npy", "--out", "m.png", "--save", "TAUGHT"], "holds other things than measures"),
        (["barycenter", "TAUGHT", "a.npy", "--out", "m.png", "--labels", "blank.txt"], "has no label in line 2"),
    ],
)
def test_what_cannot_be_made_is_a_sentence(
    fitted_run: Path,
    decoding_run: Path,
    folder: Path,
    arguments: list[object],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places: dict[object, object] = {"RUN": fitted_run, "TAUGHT": decoding_run}
    places |= {name: folder / name for name in ("a.npy", "b.npy", "one.npy", "m.png", "m.txt", "blank.txt")}
    code, _, err = run(capsys, *(places.get(one, one) for one in arguments))
    assert code == 2
    assert re.search(said, err)
    assert "Traceback" not in err


def test_ids_of_another_kind_are_told(
    fitted_run: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = tmp_path / "index"
    assert run(capsys, "index", fitted_run, folder / "a.npy", "--out", made)[0] == 0
    code, _, err = run(capsys, "remove", made, "1", "x")
    assert code == 2
    assert "the ids of this index are whole numbers, and 'x' is none" in err


def test_one_unseen_measure_among_learned_ones_is_refused(
    fitted_run: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    split = wembed.load(fitted_run / "model").split_
    images = np.load(folder / "digits.npy")
    np.save(folder / "mostly-learned.npy", images[[*split.train[:3], split.test[0]]])
    code, _, err = run(capsys, "evaluate", fitted_run, folder / "mostly-learned.npy")
    assert code == 2
    assert "the model has seen 3 of these 4 measures" in err


def test_precompute_says_why_there_are_fewer_pairs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(folder / "fewer.npy", np.load(folder / "digits.npy")[:30])
    code, _, err = run(capsys, "precompute", folder / "fewer.npy", "--out", folder / "fewer", "--pairs", "5,000")
    assert code == 0
    assert "Fewer than 5,000: pairs stay within train, validation and test measures" in err


def bad_inputs(folder: Path, fitted_run: Path) -> dict[str, tuple[tuple[object, ...], str]]:
    def saved(name: str, array: np.ndarray) -> Path:
        np.save(folder / name, array)
        return folder / name

    empty = folder / "empty.npy"
    empty.write_bytes(b"")
    truncated = folder / "truncated.npy"
    truncated.write_bytes((folder / "digits.npy").read_bytes()[:3000])
    other = folder / "other.pdf"
    other.write_bytes(b"%PDF-1.7 nothing")
    clouds = folder / "clouds.csv"
    clouds.write_text("measure,x1,x2,x3\n0,1,2,3\n0,1,2,4\n1,0,0,0\n")
    nan = saved("nan.npy", np.full((2, 4, 4), np.nan))
    out = ("--out", folder / "nothing")
    return {
        "NaN": (("fit", nan, *out), "NaN"),
        "negative": (("fit", saved("negative.npy", -np.ones((2, 4, 4))), *out), "negative"),
        "no mass": (("fit", saved("massless.npy", np.zeros((2, 4, 4))), *out), "sum to 0"),
        "empty file": (("fit", empty, *out), "empty.npy"),
        "truncated": (("fit", truncated, *out), "truncated.npy"),
        "another kind": (("fit", other, *out), "other.pdf"),
        "nowhere": (("fit", folder / "nowhere.npy", *out), "nowhere.npy"),
        "too few": (("fit", folder / "a.npy", *out), "too few to split"),
        "unknown metric": (("fit", folder / "digits.npy", *out, "--metric", "magic"), "unknown metric 'magic'"),
        "metric file": (("fit", folder / "digits.npy", *out, "--metric", folder / "no.npy"), "no.npy"),
        "order": (("fit", folder / "digits.npy", *out, "--order", 0.5), "order is 0.5"),
        "encoder": (("fit", folder / "digits.npy", *out, "--encoder", "magic"), "choose one of"),
        "device": (("fit", folder / "digits.npy", *out, "--device", "cuda:77"), "cuda:77"),
        "pairs": (("precompute", folder / "a.npy", *out, "--pairs", "many"), "--pairs many"),
        "another dimension": (
            ("distance", fitted_run, clouds, clouds),
            "dimension 3; this model was fitted on dimension 2",
        ),
        "another dimension than the other": (
            ("distance", fitted_run, folder / "a.npy", clouds),
            f"{clouds}: the measures have dimension 3",
        ),
        "latitude": (
            ("fit", clouds, *out, "--metric", "great-circle"),
            f"{clouds}: great-circle takes points (latitude, longitude); these have 3 axes",
        ),
        "lengths": (
            ("distance", fitted_run, folder / "a.npy", folder / "digits.npy"),
            f"a.npy holds 3 measures and {folder / 'digits.npy'} 300; give as many, or a single one",
        ),
        "no model": (("distance", folder, folder / "a.npy", folder / "a.npy"), "holds no model"),
        "no index": (("query", folder, folder / "a.npy"), "holds no index"),
        "no process": (("precompute", folder / "a.npy", *out, "--pairs", "all", "--jobs", 0), "--jobs 0; give"),
        "no process for nothing": (
            ("distance", fitted_run, folder / "a.npy", folder / "b.npy", "--jobs", 0),
            "--jobs 0",
        ),
        "no pair": (
            ("evaluate", fitted_run, folder / "digits.npy", "--pairs", 0),
            "--pairs 0; give a whole number of at least 1",
        ),
        "no share": (("distance", fitted_run, folder / "a.npy", folder / "b.npy", "--interval", 1), "--interval 1.0;"),
        "too few to calibrate": (
            ("calibrate", fitted_run, saved("new.npy", np.roll(np.load(folder / "a.npy"), 1, axis=2))),
            "3 measures, of which 0 were learned from and 0 repeat another, are too few to calibrate on: 3 are left",
        ),
        "picture": (
            ("evaluate", fitted_run, folder / "digits.npy", "--picture", folder / "x.xyz"),
            ".png, .svg or .pdf",
        ),
        "picture nowhere": (
            ("evaluate", fitted_run, folder / "digits.npy", "--picture", folder / "no" / "x.png"),
            "there is no folder",
        ),
        "suffix": (("embed", fitted_run, folder / "a.npy", "--out", folder / "v.txt"), ".npy"),
        "out is a file": (("precompute", folder / "a.npy", "--out", empty, "--pairs", "all"), "is a file"),
    }


@pytest.mark.parametrize(
    "which",
    [
        "NaN",
        "negative",
        "no mass",
        "empty file",
        "truncated",
        "another kind",
        "nowhere",
        "too few",
        "unknown metric",
        "metric file",
        "order",
        "encoder",
        "device",
        "pairs",
        "another dimension",
        "another dimension than the other",
        "latitude",
        "lengths",
        "no model",
        "no index",
        "no process",
        "no process for nothing",
        "no pair",
        "no share",
        "too few to calibrate",
        "picture",
        "picture nowhere",
        "suffix",
        "out is a file",
    ],
)
def test_bad_input_is_a_sentence_and_exit_code_2(
    which: str, folder: Path, fitted_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, said = bad_inputs(folder, fitted_run)[which]
    code, out, err = run(capsys, *arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert said in err
    assert "Traceback" not in err


def test_a_wrong_flag_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "fit", "--magic")[0] == 2
    code, _, err = run(capsys, "precompute", "data.npy", "--out", "store", "--seed", -1)
    assert code == 2
    assert "--seed" in err


def test_an_interruption_says_that_nothing_is_lost(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("wembed.transport.precompute.solve_blocks", interrupt)
    code, _, err = run(capsys, "precompute", folder / "a.npy", "--out", folder / "broken", "--pairs", "all")
    assert code == 130
    assert "the same command goes on" in err
    monkeypatch.setattr("wembed.readers.read", interrupt)
    code, _, err = run(capsys, "embed", folder / "run", folder / "a.npy", "--out", folder / "v.npy")
    assert code == 130
    assert err.strip() == "Interrupted, and nothing was changed."


@pytest.mark.parametrize(
    "command", ["quickstart", "precompute", "fit", "calibrate", "evaluate", "embed", "distance", "index", "query"]
)
def test_every_option_has_a_help_text(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, command, "--help")[0] == 0
    described = typer.main.get_command(cli.app).commands[command]  # type: ignore[attr-defined]
    assert described.help
    assert [p.name for p in described.params if not p.help and p.name != "help"] == []


def test_the_help_of_the_metric_says_which_column_is_the_latitude() -> None:
    (metric,) = (p for p in typer.main.get_command(cli.app).commands["fit"].params if p.name == "metric")  # type: ignore[attr-defined]
    assert "x1 is the latitude, x2 the longitude" in metric.help
    assert "a degree is 111.195 km" in metric.help

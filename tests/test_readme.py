"""The README against the benchmarks' records, the code and the command line."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
from halved import halved_digits

from wembed import readers

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()


def benchmark(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_are_those_that_the_benchmarks_recorded() -> None:
    readme = benchmark("readme")
    for name in readme.TABLES:
        text = (ROOT / name).read_text()
        assert readme.generated(name, text) == text


def test_what_it_says_of_the_table_of_kinds_is_so() -> None:
    readme = benchmark("readme")
    results, leads = readme.recorded("accuracy")["results"], list(readme.leads())
    behind = {(task, name, mark) for task, name, mark, _, _ in leads}
    assert not any(by > error for *_, by, error in leads)
    for task, found in results.items():
        for name, marks in found["methods"].items():
            method, _, where = name.partition(" on ")
            own = found["methods"].get(f"wembed on {where}" if where else "wembed")
            if method == "floor" or method.startswith("wembed"):
                continue
            if round(own["relative_error"]["median"], 4) > round(marks["relative_error"]["median"], 4):  # as it shows
                assert (task, name, "relative_error") in behind
            if "recall_at_10" in marks and own["recall_at_10"]["median"] < marks["recall_at_10"]["median"]:
                assert (task, name, "recall_at_10") in behind
    regions, endings = (results[f"{kind} on the globe, W_1"]["methods"] for kind in ("regions", "endings of names"))
    told = [endings[name]["relative_error"]["median"] for name in ("centroids", "linear OT, 256 atoms", "wembed")]
    assert f"{regions['centroids']['relative_error']['median']:.2%}" == "0.03%"
    slices, own = (regions[name]["relative_error"]["median"] for name in ("sliced Wasserstein", "wembed"))
    assert f"smaller median, {slices:.4%} for {own:.4%}," in " ".join(TEXT.split()).replace(" %", "%")
    sentence = f"it is {told[0]:.0%} off, linear OT {told[1]:.0%}, and what wembed learns {told[2]:.1%}."
    assert sentence.replace("%", " %") in (ROOT / "docs" / "choosing.md").read_text()


@pytest.mark.filterwarnings("ignore::wembed.UnusualWarning")
def test_the_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    smaller = code
    for large, small in {"20_000": "600", "queries=5": "queries=1", "9_000": "480", "[:99]": "[:40]"}.items():
        assert large in smaller
        smaller = smaller.replace(large, small)
    measures, labels = halved_digits()
    monkeypatch.setattr(readers, "digits", lambda: (measures[:600], labels[:600]))
    monkeypatch.chdir(tmp_path)
    exec(compile(smaller, "README.md", "exec"), {"__name__": "readme"})
    assert "relative_error" in capsys.readouterr().out
    assert (tmp_path / "digits-model" / "model.json").exists()


def test_every_command_is_described_and_every_description_is_a_command() -> None:
    from wembed.cli import app

    described = set(re.findall(r"^\| `wembed (\w+)", TEXT, re.MULTILINE))
    assert described == {command.callback.__name__ for command in app.registered_commands if command.callback}


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{file.name}" for file in (ROOT / "docs").glob("*.md"))])
def test_files_that_it_links_to_exist(page: str) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", (ROOT / page).read_text()):
        assert ((ROOT / page).parent / target).exists(), target

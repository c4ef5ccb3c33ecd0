"""Write the tables of README and docs from what the benchmarks recorded; with --check, only say whether they agree."""

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
ROUNDING = 1e-9


def recorded(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return content


def cell(value: dict[str, float] | None, form: str) -> str:
    """Median, and the range where there is one."""
    if value is None:
        return "-"
    low, middle, high = (format(value[key], form) for key in ("min", "median", "max"))
    return middle if low == high else f"{middle} ({low} to {high})"


def accuracy() -> str:
    results = recorded("digits")["results"]
    rows = [
        "| method | relative error | MSE of W_2^2 | recall@10 | among 300 | among 100 "
        "| 1 % to 99 % of predicted/exact | fit, s |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, found in results["methods"].items():
        ratios = f"{found['ratio_p01']['median']:.3f} to {found['ratio_p99']['median']:.3f}"
        cells = [
            cell(found["relative_error"], ".2%"),
            cell(found["mse"], ".3g"),
            cell(found.get("recall_at_10"), ".3f"),
            cell(found.get("recall_at_10_among_300"), ".3f"),
            cell(found.get("recall_at_10_among_100"), ".3f"),
            ratios,
            cell(found.get("fit_seconds"), ".0f"),
        ]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


def error_and_recall(marks: dict[str, Any] | None) -> str:
    if marks is None:
        return "-"
    return f"{marks['relative_error']['median']:.2%}, {marks['recall_at_10']['median']:.3f}"


def kinds() -> str:
    """Relative error and recall of each method, a row for each kind of measures."""
    results = recorded("accuracy")["results"]
    names = [
        "wembed",
        "DWE",
        "Wormhole",
        "linear OT, 64 atoms",
        "linear OT, 256 atoms",
        "sliced Wasserstein",
        "RG",
        "Gelbrich",
    ]
    names += ["centroids", "floor"]
    rows = [f"| unseen measures of | encoder, numbers | {' | '.join(names)} |", "|---|---|" + "--:|" * len(names)]
    for task, found in results.items():
        everywhere = found["methods"]
        for where in sorted({name.removeprefix("wembed") for name in everywhere if re.match(r"wembed( on |$)", name)}):
            cells = [error_and_recall(everywhere.get(name + where)) for name in names]
            head = f"| {task}{where} | {found['encoder']}, {found['numbers_a_vector']:,} |"
            rows.append(f"{head} {' | '.join(cells)} |")
    return "\n".join(rows)


def leads() -> Iterator[tuple[str, str, str, float, float]]:
    """Task, method and mark, where another method than wembed is ahead, by how much, and the standard error of that."""
    for task, found in recorded("accuracy")["results"].items():
        for name, less in found.get("less_than_wembed", {}).items():
            for mark, sign in (("relative_error", 1), ("recall_at_10", -1)):
                by = sign * less[mark]["mean"]
                if by > ROUNDING:
                    yield task, name, mark, by, less[mark]["standard_error"]


def ahead() -> str:
    """Where another method has the smaller error, or finds more: by how much, and how much of that may be chance."""
    rows = ["| unseen measures of | method | mark | ahead by | standard error of that |", "|---|---|---|--:|--:|"]
    told = {"relative_error": ("relative error", ".4%"), "recall_at_10": ("recall@10", ".4f")}
    for task, name, mark, by, error in leads():
        method, on, where = name.partition(" on ")
        label, form = told[mark]
        rows.append(f"| {task}{on}{where} | {method} | {label} | {by:{form}} | {error:{form}} |")
    return "\n".join(rows)


def left_out() -> str:
    """Errors within classes that were left out of training, and of a model that saw the other half of each."""
    found = recorded("accuracy")["results"]["doodles, W_2"]["methods"]
    rows = ["| doodles of | left out | the other half of the class seen |", "|---|--:|--:|"]
    for name, marks in found.items():
        if name.startswith("wembed, left out, on half of "):
            seen = found[name.replace("left out", "seen")]
            rows.append(f"| {name.rpartition('/')[2]} | {error_and_recall(marks)} | {error_and_recall(seen)} |")
    return "\n".join(rows)


def lengths_of(found: dict[str, Any], kind: str) -> dict[int, str]:
    """The methods that are wembed with vectors of some length and kind, and its own choice last, by their length."""
    asked = [name for name in found["methods"] if re.fullmatch(rf"wembed, [\d,]+ numbers{kind}", name)]
    lengths = {int(name.split()[1].replace(",", "")): name for name in asked}
    return dict(sorted(lengths.items())) | {found["numbers_a_vector"]: "wembed"} if lengths else {}


def lengths() -> str:
    """Errors of vectors of some length, plain and with a residual."""
    rows = [
        "| unseen measures of | numbers a vector | MB for a million | plain | with a residual |",
        "|---|--:|--:|--:|--:|",
    ]
    for task, found in recorded("accuracy")["results"].items():
        plain, residual = (lengths_of(found, kind) for kind in ("", " with a residual"))
        for length, name in plain.items():
            both = [error_and_recall(found["methods"][one]) for one in (name, residual[length])]
            cells = both if both[0] != both[1] else [both[0], "-"]
            rows.append(f"| {task} | {length:,} | {4 * length:,} | {' | '.join(cells)} |")
    return "\n".join(rows)


def encode() -> str:
    """What encoding takes of each kind of measures, by the encoder that learned from them."""
    rows = ["| measures | atoms, in the mean | encoder | ms to encode one |", "|---|--:|---|--:|"]
    for task, found in recorded("accuracy")["results"].items():
        milliseconds = 1000 * found["methods"]["wembed"]["seconds_a_measure"]["median"]
        rows.append(f"| {task} | {found['mean_atoms']:.0f} | {found['encoder']} | {milliseconds:.2g} |")
    return "\n".join(rows)


def rounds() -> str:
    rows = [
        "| wish | seconds | pairs | relative error | recall@10 | validation error | pays from, measures "
        "| pairs solved a second |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    forms = {
        "seconds": ",.0f",
        "pairs": ",.0f",
        "relative_error": ".2%",
        "recall_at_10": ".3f",
        "validation_error": ".2%",
        "break_even": ",.0f",
    }
    for wish, found in recorded("rounds")["results"]["wishes"].items():
        solved = sorted(1 / curve["seconds_a_pair"] for curve in found["curves"])
        solving = {"min": solved[0], "median": solved[len(solved) // 2], "max": solved[-1]}
        cells = [*(cell(found[key], form) for key, form in forms.items()), cell(solving, ",.0f")]
        rows.append(f"| {wish} | {' | '.join(cells)} |")
    return "\n".join(rows)


def speed() -> str:
    exact, fast = recorded("exact")["results"], recorded("speed")["results"]
    solves = exact["solves_per_second"]
    rows = [
        "| what | figure |",
        "|---|--:|",
        *(f"| exact distances a second: {name} | {value:,.0f} |" for name, value in solves.items()),
        f"| wembed over the bare solver, raster order | {cell(exact['wembed_over_bare_raster_order'], '.2f')} |",
        f"| wembed over the bare solver, wembed's order | {cell(exact['wembed_over_bare_same_order'], '.2f')} |",
        f"| two cores over one | {cell(exact['two_cores_over_one'], '.2f')} |",
        f"| images encoded a second, one core | {cell(fast['encoded_per_second_one_core'], ',.0f')} |",
        "| the same, with a look at how unusual they are (`transform`), one core "
        f"| {cell(fast['transformed_per_second_one_core'], ',.0f')} |",
        f"| distances between vectors a second | {cell(fast['distances']['distances_per_second'], ',.0f')} |",
        f"| the same, over the bare matrix product | {cell(fast['distances']['share_of_matrix_product'], '.2f')} |",
        f"| `wembed quickstart`, s | {fast['quickstart_seconds']:,.0f} |",
        f"| `import wembed`, s | {cell(fast['import_seconds'], '.3f')} |",
        *(f"| peak memory, MB: {step} | {value:,.0f} |" for step, value in fast["peak_megabytes"].items()),
    ]
    return "\n".join(rows)


def scale() -> str:
    found = recorded("scale")["results"]
    pairs, measures = found["write"]["pairs"], found["build"]["measures"]
    steps = {
        "plan": f"draw {found['plan']['pairs']:,} pairs and cut them into blocks",
        "write": f"write a store of {pairs:,} pairs ({found['write']['megabytes_on_disk'] / 1e3:.1f} GB)",
        "read": "go through it with `DistanceStore.batches`, checksums included",
        "query": "the mean of its distances by DuckDB",
        "build": f"{measures:,} images of 100 atoms, {found['build']['bytes_per_atom']:.0f} bytes an atom",
        "map": f"open them again by memory map ({found['map']['megabytes_not_mapped']:,.0f} MB of it not mapped)",
    }
    rows = ["| what | seconds | peak memory, MB |", "|---|--:|--:|"]
    for step, what in steps.items():
        rows.append(f"| {what} | {found[step]['seconds']:,.1f} | {found[step]['peak_megabytes']:,.0f} |")
    return "\n".join(rows)


_LAST = {"most_solved": ",", "seconds_a_query": ".2g"}


def intervals() -> str:
    """Coverage and width of intervals of 90 %, a row for each kind of measures and way."""
    results = recorded("trust")["results"]
    rows = [
        "| unseen measures | by | inside | lowest and highest fifth of distance | width, in median errors "
        "| error of the prediction | of the estimate | within 2 % when asked to | solved for that |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, found_of in ((name, found) for name, found in results.items() if "intervals" in found):
        for way, found in found_of["intervals"].items():
            fifths = [found[f"coverage_fifth_{part}"]["median"] for part in range(1, 6)]
            cells = [
                cell(found["coverage"], ".1%"),
                f"{min(fifths):.1%}, {max(fifths):.1%}",
                cell(found["median_width_over_median_error"], ".2f"),
                *(f"{found[key]['median']:.2%}" for key in ("relative_error", "relative_error_of_estimate")),
                *(cell(found[key], ".1%") for key in ("within_tolerance", "solved_for_tolerance")),
            ]
            rows.append(f"| {name} | {way} | {' | '.join(cells)} |")
    return "\n".join(rows)


def bounds() -> str:
    found = recorded("trust")["results"]["bounds"]
    rows = {
        f"largest violation over {found['pairs']:,} pairs, pixels": f"{max(found['largest_violation'], 0):.1g}",
        "lower over exact, median": f"{found['median_lower_over_exact']:.3f}",
        "upper over exact, median": f"{found['median_upper_over_exact']:.3f}",
        "upper over lower, median": f"{found['median_upper_over_lower']:.3f}",
        f"all pairs of {found['measures_timed']} digits, {found['mean_atoms']:.0f} atoms each, one core: times faster "
        "than solving": f"{found['times_faster']:.0f}",
    }
    return "\n".join(["| what | figure |", "|---|--:|", *(f"| {what} | {value} |" for what, value in rows.items())])


def neighbours() -> str:
    found = recorded("trust")["results"].get("neighbours", {"ways": {}})["ways"]
    rows = ["| way | recall@10 | solved a query | at most | seconds a query |", "|---|--:|--:|--:|--:|"]
    for way, marks in found.items():
        most, seconds = (format(marks[key], form) if key in marks else "-" for key, form in _LAST.items())
        rows.append(f"| {way} | {marks['recall_at_10']:.3f} | {marks['solved_a_query']:,.0f} | {most} | {seconds} |")
    return "\n".join(rows)


def unusual() -> str:
    found = recorded("trust")["results"]["unusual"]["kinds"]
    rows = [
        "| measures | AUROC against unseen digits | above 1 | from 2.5 on | a warning |",
        "|---|--:|--:|--:|---|",
    ]
    for name, marks in found.items():
        auroc = f"{marks['auroc']:.3f}" if "auroc" in marks else "-"
        warned = "yes" if marks["warned_of_together"] else "no"
        rows.append(f"| {name} | {auroc} | {marks['above_1']:.1%} | {marks['warned_of']:.1%} | {warned} |")
    return "\n".join(rows)


def copies() -> str:
    rows = [
        "| noise, pixels | mean distance | inside, vectors alone | inside, references | a warning |",
        "|--:|--:|--:|--:|---|",
    ]
    for noise, marks in recorded("trust")["results"]["unusual"]["copies"].items():
        inside = " | ".join(f"{marks[f'coverage, {way}']:.0%}" for way in ("vectors alone", "references"))
        warned = "yes" if marks["warned_of"] else "no"
        rows.append(f"| {noise} | {marks['mean_distance']:.2f} | {inside} | {warned} |")
    return "\n".join(rows)


def geometry() -> str:
    found = {name: one for name, one in recorded("geometry")["results"].items() if name != "together"}
    rows = [f"| | {' | '.join(found)} |", "|---|" + "--:|" * len(found)]

    def row(what: str, told: Callable[[dict[str, Any]], str]) -> None:
        rows.append(f"| {what} | {' | '.join(told(one) for one in found.values())} |")

    row("measures: known, unseen", lambda one: f"{one['known']:,}, {one['unseen']:,}")
    row("mean distance of two", lambda one: f"{one['reconstruction']['mean_distance']:.2f}")
    row(
        "unseen measures and what their vectors decode to, W_2: mean, 95th percentile",
        lambda one: f"{one['reconstruction']['mean']:.2f}, {one['reconstruction']['p95']:.2f}",
    )
    row("decoded a second", lambda one: f"{one['decoded_per_second']:,.0f}")
    row("seconds to learn the decoder", lambda one: f"{one['decoder_seconds']:.0f}")
    rows += [
        "",
        "| barycenter | objective over that of POT: mean, highest | seconds | times faster than POT |",
        "|---|--:|--:|--:|",
    ]
    for name, one in found.items():
        first = next(iter(one["barycenters"].values()))["seconds"]
        for way, marks in one["barycenters"].items():
            over = f"{marks['objective_over_pots']:.3f}, {marks['highest']:.3f}"
            rows.append(f"| {name}, {way} | {over} | {marks['seconds']:.3g} | {first / marks['seconds']:.1f} |")
    ways = list(next(iter(found.values()))["interpolations"])
    rows += [
        "",
        f"| W_2 to the first over t W_2, to the second over (1 - t) W_2 | {' | '.join(found)} |",
        "|---|" + "--:|" * len(found),
    ]
    for way in ways:
        marks = [one["interpolations"].get(way) for one in found.values()]
        cells = ["" if one is None else f"{one['to_a']:.3f}, {one['to_b']:.3f}" for one in marks]
        rows.append(f"| {', t = '.join(way.rsplit(', ', 1))} | {' | '.join(cells)} |")
    return "\n".join(rows)


def together() -> str:
    """Decoders trained along with the encoder, a row for each weight of their loss."""
    rows = [
        "| `reconstruction` | relative error of unseen pairs | recall@10 | W_2 to what is decoded, pixels |",
        "|--:|--:|--:|--:|",
    ]
    for weight, marks in recorded("geometry")["results"]["together"]["weights"].items():
        forms = (("relative_error", ".2%"), ("recall_at_10", ".3f"), ("decoded", ".2f"))
        rows.append(f"| {float(weight):g} | {' | '.join(cell(marks[name], form) for name, form in forms)} |")
    return "\n".join(rows)


def index() -> str:
    """Search by a graph and without one, a row for each number of vectors."""
    rows = [
        "| vectors | graph built, s | peak memory, MB | one query, ms: median, 95th percentile | each of 1,000, ms | "
        "recall@10 | without a graph: one query, ms | each of 1,000, ms |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for size, found in recorded("index")["results"]["sizes"].items():
        built, asked, flat = (found[step] for step in ("build", "ask", "flat"))
        cells = [
            f"{int(size):,}",
            f"{built['seconds']:,.0f}",
            f"{max(built['peak_megabytes'], asked['peak_megabytes_of_queries']):,.0f}",
            f"{asked['milliseconds_median']:.2f}, {asked['milliseconds_p95']:.2f}",
            f"{asked['milliseconds_each_of_many']:.2f}",
            f"{asked['recall_at_10']:.3f}",
            f"{flat['milliseconds_median']:.2f}",
            f"{flat['milliseconds_each_of_many']:.2f}",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def serve() -> str:
    """The service under load, and what else it was sent."""
    found = recorded("serve")["results"]
    one, bad, explored = found["distance"], found["malformed"], found["schemathesis"]
    memory = ", ".join(f"{megabytes:,.0f} {when}" for when, megabytes in found["megabytes"].items())
    broken = sum(count for status, count in bad["answers"].items() if status.startswith("5"))
    rows = [
        "| what | figure |",
        "|---|--:|",
        f"| requests a second, {found['connections']} connections | {cell(one['requests_a_second'], ',.0f')} |",
        *(
            f"| milliseconds until an answer: {name} | {cell(one[f'milliseconds_{key}'], '.0f')} |"
            for name, key in (("median", "median"), ("95th percentile", "p95"), ("99th percentile", "p99"))
        ),
        f"| answers that were errors | {one['other_statuses_than_200']} |",
        f"| malformed requests; of these answered with an error of the service | {bad['sent']:,}; {broken} |",
        "| requests made up by schemathesis from the OpenAPI document; answered as that says | "
        f"{explored['generated']:,}; {explored['passed']:,} |",
        f"| memory, MB | {memory} |",
    ]
    return "\n".join(rows)


TABLES: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {
        "accuracy": accuracy,
        "rounds": rounds,
        "kinds": kinds,
        "ahead": ahead,
        "speed": speed,
        "scale": scale,
    },
    "docs/choosing.md": {"encode": encode, "left-out": left_out, "lengths": lengths, "index": index},
    "docs/geometry.md": {"geometry": geometry, "together": together},
    "docs/serving.md": {"serve": serve},
    "docs/trust.md": {
        "intervals": intervals,
        "copies": copies,
        "bounds": bounds,
        "neighbours": neighbours,
        "unusual": unusual,
    },
}


def generated(name: str, text: str) -> str:
    """A page with every table between its markers made anew."""
    for table, make in TABLES[name].items():
        between = re.compile(rf"(<!-- {table} -->\n).*?(<!-- end of {table} -->)", re.DOTALL)
        if not between.search(text):
            raise SystemExit(f"{name} has no place for the table {table!r}")
        made = make()
        text = between.sub(lambda found, made=made: f"{found[1]}{made}\n{found[2]}", text)  # type: ignore[misc]
    return text


def main() -> None:
    for name in TABLES:
        file = ROOT / name
        text = file.read_text()
        if "--check" not in sys.argv:
            file.write_text(generated(name, text))
        elif generated(name, text) != text:
            raise SystemExit(f"{name} and benchmarks/results disagree; run python benchmarks/readme.py")


if __name__ == "__main__":
    main()

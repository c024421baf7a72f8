"""How `compressnet bench` tells what it measured: rows, tables, a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from compressnet.results.speed import milliseconds, ratio_text

from .. import console

if TYPE_CHECKING:
    from compressnet.analysis.bench import Facts, Plan
    from compressnet.analysis.machine import Machine
    from compressnet.analysis.timing import Comparison
    from compressnet.side import Side

FORMAT = 1
_OPTIONAL = ("parameters", "file MB", "peak MB", "p99", "p10", "p90")  # what goes first on a narrow screen
_RATES = {"megapixel": "MP/s", "token": "tokens/s", "step": "steps/s", "sample": "samples/s"}


class Compared(NamedTuple):
    """Cases that were timed together.

    Attributes:
        numbers: of the cases in the plan.
        names: of each number, as `timed` calls it.
    """

    numbers: Sequence[int]
    names: Mapping[int, str]
    timed: Comparison


def names(plan: Plan, numbers: Sequence[int]) -> dict[int, str]:
    """A short name a case: the side, and what differs between cases of that side."""
    sides = [side.text for side in plan.sides()]
    cases = [plan.cases[number] for number in numbers]
    varying = [key for key in ("backend", "dtype", "cpu") if len({getattr(case, key) for case in cases}) > 1]
    plain = []
    for case in cases:
        side = sides[case.side]
        alike = f" ({sides[: case.side + 1].count(side)})" if sides.count(side) > 1 else ""
        plain.append(" ".join([side + alike, *(getattr(case, key) for key in varying)]))
    return dict(zip(numbers, plain, strict=True))


def title(plan: Plan, numbers: Sequence[int]) -> str:
    """What the cases of a group have in common."""
    case = plan.cases[numbers[0]]
    return f"{case.mode}, {_threads(case.threads)}"


def document(
    plan: Plan,
    host: Machine,
    cpu: Mapping[str, Any],
    probe: Mapping[str, float] | None,
    processes: int,
    facts: Mapping[int, Facts],
    peaks: Mapping[int, int | None],
    compared: Sequence[Compared],
) -> dict[str, Any]:
    """All that was measured, on what, for `--json` and `--compare`."""
    from compressnet.analysis.timing import warnings
    from compressnet.kernels.library import built

    rows, lines = [], []
    for group in compared:
        rows += [_row(plan, number, group, facts[number], peaks.get(number)) for number in group.numbers]
        lines += [f"{title(plan, group.numbers)}: {line}" for line in warnings(group.timed)]
    return {
        "format": FORMAT,
        "machine": host.as_dict(),
        "cpu_settings": dict(cpu),
        "matmul_probe": probe,
        "kernels": built(),
        "processes": processes,
        "load": [group.timed.load for group in compared],
        "rows": rows,
        "warnings": lines,
    }


def _row(plan: Plan, number: int, group: Compared, facts: Facts, peak: int | None) -> dict[str, Any]:
    case, timing = plan.cases[number], group.timed[group.names[number]]
    side = plan.sides()[case.side]
    return {
        "name": timing.name,
        "side": side.text,
        "occurrence": [other.text for other in plan.sides()][: case.side + 1].count(side.text),
        "args": side.arguments(),
        "mode": case.mode,
        "backend": case.backend,
        "dtype": case.dtype,
        "threads": case.threads,
        "cpu": case.cpu,
        "batch": plan.batch,
        "channels_last": plan.channels_last,
        "clock": group.timed.clock,
        **facts.as_dict(),
        "file_bytes": _file_bytes(side, case.backend, facts),
        "peak_bytes": peak,
        "median_ms": 1e3 * timing.median,
        "p10_ms": 1e3 * timing.p10,
        "p90_ms": 1e3 * timing.p90,
        "p99_ms": 1e3 * timing.p99,
        "spread": timing.spread,
        "per_second": facts.amount / timing.median,
        "first_ms": 1e3 * timing.first_seconds,
        "warmup_runs": timing.warmup_runs,
        "stable": timing.stable,
        "against": group.timed.baseline,
        "ratio": {"value": timing.ratio.value, "low": timing.ratio.low, "high": timing.ratio.high},
        "seconds": list(timing.seconds),
    }


def _file_bytes(side: Side, backend: str, facts: Facts) -> int:
    """Of the weights file, or of one that would hold what runs: no file holds a folded network."""
    is_file = side.is_stored and backend != "folded"
    return side.weights_path().stat().st_size if is_file else facts.tensor_bytes


def show(report: Mapping[str, Any]) -> None:
    """The tables, one for each mode and number of threads, and what they were measured on."""
    from compressnet.analysis.machine import Machine
    from compressnet.kernels.library import NONE_BUILT
    from compressnet.report.figures import many

    host = Machine.from_dict(report["machine"])
    count = many(host.logical, "processor")
    console.print_text(f"{host.name}, {count}, torch {host.torch}, oneDNN {host.onednn}")
    if report["processes"] == 1:
        console.print_text(
            "one process: intervals do not include the variation between processes (--processes)"
        )
    else:
        console.print_text(f"measured in {report['processes']} processes")
    for name, settings in report["cpu_settings"].items():
        console.print_text(f"CPU settings {name}: {_settings_text(settings)}")
    if probe := report["matmul_probe"]:
        console.print_text(
            f"fast matmul here: {probe['speedup']:.2f}x, error {probe['error_fast']:.1e} "
            f"(exact: {probe['error_exact']:.1e})"
        )
    console.print_text(f"kernels: {', '.join(report['kernels']) or NONE_BUILT}")
    groups: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for row in report["rows"]:
        groups.setdefault((row["mode"], row["threads"]), []).append(row)
    for rows, load in zip(groups.values(), report["load"], strict=True):
        _show_group(rows, load)


def _show_group(rows: Sequence[Mapping[str, Any]], load: Sequence[float] | None) -> None:
    first = rows[0]
    unit = _RATES.get(first["unit"], f"{first['unit']}/s")
    columns = [
        "",
        "median ms",
        "p10",
        "p90",
        "p99",
        unit,
        "peak MB",
        "file MB",
        "parameters",
        "times as fast [95 %]",
    ]
    cells = [
        [
            row["name"],
            *(milliseconds(row[f"{key}_ms"]) for key in ("median", "p10", "p90", "p99")),
            f"{row['per_second']:#,.4g}".rstrip("."),
            _megabytes(row["peak_bytes"]),
            _megabytes(row["file_bytes"]),
            f"{row['parameters']:,}",
            "1" if row is first else ratio_text(row["ratio"]),
        ]
        for row in rows
    ]
    clock = ", processor time" if first["clock"] == "cpu" else ""
    busy = f", load {load[0]:.1f} to {load[1]:.1f}" if load else ""
    shape = _shapes(rows)
    threads = _threads(first["threads"])
    passes = f"{len(first['seconds'])} passes"
    console.print_table(
        f"{first['mode']}, {shape}, {threads}, {passes}{clock}{busy}", columns, cells, optional=_OPTIONAL
    )
    if any(row["peak_bytes"] is not None for row in rows):
        console.print_text("peak MB: above weights and inputs, with glibc's own malloc")
    for row in rows:
        if row["side"].startswith("operator:"):
            console.print_text(
                f"{row['name']}: on a photograph, on which iterations depend; networks: on noise"
            )
        if row["runs_as"] != row["backend"]:
            console.print_text(f"{row['name']}: {row['backend']} runs it as {row['runs_as']}")
        if row["first_ms"] > max(1e3, 10 * row["median_ms"]):
            console.print_text(f"{row['name']}: first call {row['first_ms'] / 1e3:.1f} s, counted apart")


def draw(plan: Plan, report: Mapping[str, Any]) -> bytes:
    """A PNG: the recorded metric, where all sides have one of the same data, else parameters over latency.

    Of several modes and numbers of threads it shows the first mode with the most threads.
    """
    from compressnet.analysis.plot import Point, scatter

    mode, threads = report["rows"][0]["mode"], max(row["threads"] for row in report["rows"])
    rows = [row for row in report["rows"] if (row["mode"], row["threads"]) == (mode, threads)]
    recorded = {side.text: recorded_metric(side) for side in plan.sides()}
    kinds = {(metric.label, metric.direction, metric.of) if metric else None for metric in recorded.values()}
    exact = all(row["dtype"] == "float32" for row in rows)  # which is what the metric was measured in
    shared = kinds.pop() if len(kinds) == 1 and exact else None
    points = []
    for row in rows:
        metric = recorded[row["side"]]
        y = metric.value if shared and metric else row["parameters"]
        points.append(Point(row["name"], row["median_ms"], row["p10_ms"], row["p90_ms"], y))
    label, direction = shared[:2] if shared else ("parameters", "lower")
    shape = _shapes(rows)
    return scatter(points, label, direction, f"{mode}, {shape}, {_threads(threads)}")


class Recorded(NamedTuple):
    """What the training of a network wrote down about it.

    Attributes:
        label, direction: the metric, and which way it is better.
        value: on the validation data.
        of: task, its arguments and data: figures of different ones share no axis.
    """

    label: str
    direction: Literal["lower", "higher"]
    value: float
    of: str


def recorded_metric(side: Side) -> Recorded | None:
    """The metric of the very checkpoint that is timed; None where none was recorded."""
    from compressnet import registry

    if not side.is_stored:
        return None
    architecture = side.architecture()
    name, better = registry.find("task", architecture.task).best  # type: ignore[attr-defined]
    value = _evaluated(side, name)
    if value is None:
        return None
    of = json.dumps([architecture.task, architecture.task_args, architecture.data], sort_keys=True)
    return Recorded(f"{name} on validation data", "higher" if better == "max" else "lower", value, of)


def _evaluated(side: Side, metric: str) -> float | None:
    from compressnet.run import Run
    from compressnet.subject import zoo_card

    if side.subject.kind == "zoo":
        card = zoo_card(side.subject.name)["training"]
        return float(card["curve"][-1][1]) if card.get("metric") == metric and card.get("curve") else None
    if side.subject.kind != "run" or side.subject.path is None:
        return None
    step = int(side.weights_path().parent.name.removeprefix("step-"))
    found = [
        row.get(metric) for row in Run.open(side.subject.path).metrics("evaluation") if row["step"] == step
    ]
    return float(found[-1]) if found and isinstance(found[-1], int | float) else None


def _shapes(rows: Sequence[Mapping[str, Any]]) -> str:
    texts = [" + ".join("x".join(map(str, shape)) for shape in row["inputs"]) for row in rows]
    return " and ".join(dict.fromkeys(texts))


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"


def _megabytes(count: int | None) -> str:
    return "-" if count is None else f"{count / 1e6:.2f}" if count < 1e7 else f"{count / 1e6:,.0f}"


def _settings_text(settings: Mapping[str, Any]) -> str:
    from compressnet.training.cpu_settings import Settings

    return Settings.from_dict(settings).text

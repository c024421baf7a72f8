"""How `compressnet bench` tells what it measured: rows, tables, a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from . import console

if TYPE_CHECKING:
    from compressnet.analysis.bench import Facts, Plan
    from compressnet.analysis.machine import Machine
    from compressnet.analysis.timing import Comparison
    from compressnet.side import Side

FORMAT = 1
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

    rows, lines = [], []
    for group in compared:
        rows += [_row(plan, number, group, facts[number], peaks.get(number)) for number in group.numbers]
        lines += [f"{title(plan, group.numbers)}: {line}" for line in warnings(group.timed)]
    return {
        "format": FORMAT,
        "machine": host.as_dict(),
        "cpu_settings": dict(cpu),
        "matmul_probe": probe,
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
        "file_bytes": side.weights_path().stat().st_size if side.is_stored else facts.tensor_bytes,
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


def show(report: Mapping[str, Any]) -> None:
    """The tables, one for each mode and number of threads, and what they were measured on."""
    from compressnet.analysis.machine import Machine

    host = Machine.from_dict(report["machine"])
    console.print_text(f"{host.name}, {host.logical} processors, torch {host.torch}, oneDNN {host.onednn}")
    if report["processes"] == 1:
        console.print_text("one process: intervals do not know how much processes differ (see --processes)")
    else:
        console.print_text(f"measured in {report['processes']} processes")
    for name, settings in report["cpu_settings"].items():
        console.print_text(f"CPU settings {name}: {_settings_text(settings)}")
    if probe := report["matmul_probe"]:
        console.print_text(
            f"fast matmul here: {probe['speedup']:.2f}x, error {probe['error_fast']:.1e} "
            f"(exact: {probe['error_exact']:.1e})"
        )
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
            f"{row['per_second']:,.4g}",
            _megabytes(row["peak_bytes"]),
            _megabytes(row["file_bytes"]),
            f"{row['parameters']:,}",
            "1" if row is first else ratio_text(row["ratio"]),
        ]
        for row in rows
    ]
    clock = ", processor time" if first["clock"] == "cpu" else ""
    busy = f", load {load[0]:.1f} to {load[1]:.1f}" if load else ""
    shape = " + ".join("x".join(map(str, shape)) for shape in first["inputs"])
    threads = _threads(first["threads"])
    console.print_table(f"{first['mode']}, {shape}, {threads}{clock}{busy}", columns, cells)
    for row in rows:
        if row["first_ms"] > max(1e3, 10 * row["median_ms"]):
            console.print_text(f"{row['name']}: first call {row['first_ms'] / 1e3:.1f} s, counted apart")


def draw(plan: Plan, report: Mapping[str, Any]) -> bytes:
    """A PNG: the recorded metric, where all sides have the same one, else parameters over latency.

    Of several modes and numbers of threads it shows the first mode with the most threads.
    """
    from compressnet.analysis.plot import Point, scatter

    mode, threads = report["rows"][0]["mode"], max(row["threads"] for row in report["rows"])
    rows = [row for row in report["rows"] if (row["mode"], row["threads"]) == (mode, threads)]
    recorded = {side.text: recorded_metric(side) for side in plan.sides()}
    metrics = {metric[:2] for metric in recorded.values() if metric}
    shared = metrics.pop() if len(metrics) == 1 and all(recorded.values()) else None
    points = []
    for row in rows:
        metric = recorded[row["side"]]
        y = metric[2] if shared and metric else row["parameters"]
        points.append(Point(row["name"], row["median_ms"], row["p10_ms"], row["p90_ms"], y))
    label, direction = shared or ("parameters", "lower")
    shape = " + ".join("x".join(map(str, shape)) for shape in rows[0]["inputs"])
    return scatter(points, label, direction, f"{mode}, {shape}, {_threads(threads)}")


def recorded_metric(side: Side) -> tuple[str, Literal["lower", "higher"], float] | None:
    """What its training wrote down: the metric, which way it is better, the best value on validation data."""
    from compressnet import registry, subject
    from compressnet.run import Run

    if not side.is_stored:
        return None
    value: float | None = None
    if side.subject.kind == "run" and side.subject.path is not None:
        value = Run.open(side.subject.path).facts.get("best")
    if side.subject.kind == "zoo":
        value = subject.zoo_card(side.subject.name)["training"]["curve"][-1][1]
    if not isinstance(value, int | float):
        return None
    name, better = registry.find("task", side.architecture().task).best  # type: ignore[attr-defined]
    return f"{name} on validation data", "higher" if better == "max" else "lower", float(value)


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"


def ratio_text(ratio: Mapping[str, float]) -> str:
    """`1.30x [1.28, 1.33]`."""
    return f"{ratio['value']:.2f}x [{ratio['low']:.2f}, {ratio['high']:.2f}]"


def milliseconds(value: float) -> str:
    """Three digits behind the point below 10 ms, else one."""
    return f"{value:.3f}" if value < 10 else f"{value:,.1f}"


def _megabytes(count: int | None) -> str:
    return "-" if count is None else f"{count / 1e6:.2f}" if count < 1e7 else f"{count / 1e6:,.0f}"


def _settings_text(settings: Mapping[str, Any]) -> str:
    from compressnet.training.cpu_settings import Settings

    return Settings.from_dict(settings).text

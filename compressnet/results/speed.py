"""Recorded benchmarks, and the section of RESULTS.md that is made from them.

bench --record NAME -> results/NAME.json (what `bench --json` prints, and how to repeat it) -> "Speed"
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from compressnet import registry, signature
from compressnet.results.records import markdown, record_path, store, symbolic, without_places

_KIND = "speed"
_MODES = ("forward", "forward+backward", "train-step", "stream-step")  # in this order in tables
_HEAD = ("input", "mode", "threads", "CPU settings", "times as fast [95 %]", "load", "record")
_INTRODUCTION = """\
## Speed

Medians of interleaved passes. The interval of a ratio takes into account that rounds are correlated and that
processes differ: where it holds 1, no difference was shown. Inputs of sequences are steps x batch x width, of
images batch x channels x height x width. The load is that of the system before and after."""


def is_speed(record: Mapping[str, Any]) -> bool:
    """Whether a record is a benchmark (else it is an evaluation)."""
    return record.get("kind") == _KIND


def write_record(
    folder: Path, name: str, report: Mapping[str, Any], command: str, *, overwrite: bool = False
) -> Path:
    """Write a benchmark with everything that it depends on.

    Args:
        report: what `bench --json` prints.
        command: the command line, in which data roots become symbols.

    Raises:
        UsageError: not a plain name.
        CompressnetError: it exists and is not to be overwritten, or cannot be written.
    """
    from compressnet.analysis.machine import Machine
    from compressnet.training.train import commit, versions

    path = record_path(folder, name, overwrite=overwrite)
    record = {
        "name": name,
        "kind": _KIND,
        "command": symbolic(command),
        "date": datetime.now(UTC).date().isoformat(),
        "device": Machine.from_dict(report["machine"]).name,
        "versions": versions(),
        "commit": commit(),
        **without_places(report),
    }
    store(path, record, overwrite=overwrite)
    return path


def sections(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """A heading, a table for each two networks that were compared, and the commands; none without records."""
    records = list(filter(is_speed, records))
    tables: dict[tuple[_Network, ...], list[_Line]] = {}
    for record in records:
        for line in _lines(record):
            tables.setdefault(line.networks, []).append(line)
    if not records:
        return []
    parts = [_INTRODUCTION, *(_table(networks, lines) for networks, lines in sorted(tables.items()))]
    commands = "\n".join(_facts(record) for record in records)
    return [*parts, f"### How these were measured\n\n{commands}"]


def ratio_text(ratio: Mapping[str, float]) -> str:
    """`1.30x [1.28, 1.33]`."""
    return f"{ratio['value']:.2f}x [{ratio['low']:.2f}, {ratio['high']:.2f}]"


def milliseconds(value: float) -> str:
    """Three digits behind the point below 10 ms, else one."""
    return f"{value:.3f}" if value < 10 else f"{value:,.1f}"


class _Network(NamedTuple):
    """A side as it is typed, and in which way it ran where that is not the usual one: "c bfloat16"."""

    side: str
    way: str

    @property
    def text(self) -> str:
        return f"{self.side} {self.way}".rstrip()

    @property
    def short(self) -> str:
        """Without the arguments of a model or layer."""
        name = self.side.partition(":")[0]
        known = {*registry.MODELS, *registry.LAYERS} - {*registry.REGISTRIES}  # operator:NAME is no layer
        return f"{name} {self.way}".rstrip() if name in known else self.text


class _Line(NamedTuple):
    """A row of a table.

    Attributes:
        networks: the one, and what it is compared with.
        key: to sort by.
        cells: of `_HEAD`, with a column of milliseconds for each network before the ratio.
    """

    networks: tuple[_Network, ...]
    key: tuple[Any, ...]
    cells: list[str]


def _lines(record: Mapping[str, Any]) -> Iterator[_Line]:
    """Of each group of rows that ran interleaved all but the first, with which they are compared."""
    groups: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for row in record["rows"]:
        groups.setdefault((row["mode"], row["threads"]), []).append(row)
    for rows, load in zip(groups.values(), record["load"], strict=True):
        first = rows[0]
        for row in rows[1:] or rows:
            pair = (row,) if row is first else (row, first)
            settings = list(dict.fromkeys(one["cpu"] for one in pair))
            cells = [
                " + ".join("x".join(map(str, shape)) for shape in row["inputs"]),
                row["mode"] + (", processor time" if row["clock"] == "cpu" else ""),
                str(row["threads"]),
                " against ".join(settings),
                *(milliseconds(one["median_ms"]) for one in reversed(pair)),
                f"**{ratio_text(row['ratio'])}**" if len(pair) == 2 else "-",
                f"{load[0]:.1f} to {load[1]:.1f}" if load else "not known",
                f"[{record['name']}](results/{record['name']}.json)",
            ]
            key = (row["inputs"], _MODES.index(row["mode"]), row["threads"], settings)
            yield _Line(tuple(_network(one, len(settings) > 1) for one in pair), key, cells)


def _network(row: Mapping[str, Any], with_settings: bool) -> _Network:
    way = [f"({row['occurrence']})"] if row["occurrence"] > 1 else []
    way += [row[key] for key, usual in (("backend", "eager"), ("dtype", "float32")) if row[key] != usual]
    return _Network(row["side"], " ".join([*way, *([row["cpu"]] if with_settings else [])]))


def _table(networks: Sequence[_Network], lines: Sequence[_Line]) -> str:
    short = _shorts(networks)
    head = [*_HEAD[:4], *(f"{name} ms" for name in reversed(short)), *_HEAD[4:]]
    table = markdown(head, [line.cells for line in sorted(lines, key=lambda line: line.key)])
    typed = " against ".join(f"`{network.text}`" for network in networks)
    return f"### {' against '.join(short)}\n\n{typed}\n\n{table}"


def _shorts(networks: Sequence[_Network]) -> list[str]:
    """A name for each that tells them apart: of two of one kind with the first argument that differs."""
    names = [network.short for network in networks]
    if len(set(names)) == len(names):
        return names
    given = [signature.read_named(network.side)[1] for network in networks]
    for key in sorted({key for arguments in given for key in arguments}):
        values = [arguments.get(key) for arguments in given]
        if len({str(value) for value in values}) == len(values):
            return [f"{name}, {key} {value}" for name, value in zip(names, values, strict=True)]
    return [network.text for network in networks]


def _facts(record: Mapping[str, Any]) -> str:
    """One line: how to repeat it, on what it ran, when."""
    machine = record["machine"]
    settings = "; ".join(
        f"CPU settings {name}: matmul {used['matmul']}, malloc {'tuned' if used['malloc'] else 'default'}"
        for name, used in record["cpu_settings"].items()
    )
    passes = sorted({len(row["seconds"]) for row in record["rows"]})
    counted = f"{passes[0]} to {passes[-1]}" if len(passes) > 1 else str(passes[0])
    count = record["processes"]
    parts = [
        f"`{record['command']}`",
        f"{record['device']}, {machine['logical']} processor{'s' if machine['logical'] > 1 else ''}, "
        f"torch {machine['torch']}",
        settings,
        f"C kernels: {', '.join(record['kernels']) or 'none'}",
        f"{counted} passes in {count} process{'es' if count > 1 else ''}",
        f"{record['date']}, commit {record['commit'] or 'not known'}",
    ]
    if record["warnings"]:
        parts.append(f"warnings: {len(record['warnings'])}, in the record")
    return f"- {record['name']}: {'; '.join(parts)}"

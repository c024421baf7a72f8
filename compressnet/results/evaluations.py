"""Recorded evaluations of everything but images: one table for each task and data, seeds side by side.

    results/NAME.json with a `task` -> "Language modelling on ptb, test", one row a record, means over seeds

Published figures stand in a column of their own: entries of published.json that name the same recipe.
"""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from compressnet.card import title
from compressnet.results.records import markdown

_IMAGES = (
    "image_operator",
    "image_translation",
    "conditioned_operator",
)  # have pages of their own, with every image
_LEFT_OUT = ("loss",)  # perplexity says the same
_DIGITS = {
    "perplexity": 2,
    "bits_per_character": 3,
    "accuracy": 4,
    "false_accepts_per_hour": 1,
    "threshold": 2,
    "hits": 0,
    "wrong_words": 0,
    "words": 0,
    "hours": 2,
    "delay_ms": 0,
}

Record = Mapping[str, Any]


def is_other(record: Record) -> bool:
    """Whether a record is for these tables."""
    return record.get("task") is not None and record["task"] not in _IMAGES


def described(architecture: Any) -> dict[str, Any]:
    """What a record says of task and network: their names and the arguments that fit into a line."""
    if architecture is None or (architecture.task in _IMAGES and "condition" not in architecture.model_args):
        return {}
    arguments = {key: value for key, value in architecture.model_args.items() if not isinstance(value, list)}
    return {"task": architecture.task, "model_args": arguments}


def summary(records: Sequence[Record], published: Sequence[Record], *, seeds: bool = True) -> list[str]:
    """A heading and a table for each task, data and split.

    Args:
        seeds: a row for each; False: only their mean, where there are several.
    """
    return [_table(names, group, published, seeds) for names, group in _groups(records)]


def published_for(recipe: str | None, published: Sequence[Record], data: str | None = None) -> Record | None:
    """Others' figure of what a recipe reproduces; None: none is known.

    Args:
        data: the name of the data set that was measured on; None: the recipe's own.
    """
    known = (entry for entry in published if recipe and entry.get("recipe") == recipe)
    return next((entry for entry in known if data in (None, entry.get("data") or data)), None)


def details(records: Sequence[Record]) -> list[str]:
    """How each row was made: commands, data, weights, validation on the way."""
    return [
        f"## {_title(names)}: how it was measured\n\n" + "\n".join(map(_facts, group))
        for names, group in _groups(records)
    ]


def _groups(records: Sequence[Record]) -> list[tuple[tuple[str, str, str], list[Record]]]:
    groups: dict[tuple[str, str, str], list[Record]] = {}
    for record in filter(is_other, records):
        groups.setdefault((record["task"], title(record["data"]), record["split"]), []).append(record)
    return sorted(groups.items())


def _title(names: tuple[str, str, str]) -> str:
    task, data, split = names
    return f"{task.replace('_', ' ').capitalize()} on {data}, {split}"


def _table(
    names: tuple[str, str, str], records: Sequence[Record], published: Sequence[Record], seeds: bool
) -> str:
    metrics = [key for key in records[0]["metrics"] if key not in _LEFT_OUT]
    head = ["record", "network", "parameters", "MACs", "seed", *metrics, "published", "trained"]
    rows = []
    notes: list[str] = []
    groups = list(_by_recipe(records))
    plain = Counter(_network(group[0]) for _, group in groups)
    for recipe, group in groups:
        theirs = published_for(recipe, published, group[0]["data"]["name"])
        if theirs and theirs["what"] not in notes:
            notes.append(theirs["what"])
        alike = plain[_network(group[0])] > 1  # only what their commands set tells them apart
        single = [_row(record, metrics, theirs, notes, alike) for record in group]
        if seeds or len(group) == 1:
            rows += single
        if len(group) > 1:
            rows.append(_mean(group, metrics, single[0]))
    footnotes = "".join(
        f"\n\n[^{_label(records[0])}-{number}]: {text}" for number, text in enumerate(notes, 1)
    )
    return f"### {_title(names)}\n\n{markdown(head, rows)}{footnotes}"


def _by_recipe(records: Sequence[Record]) -> Iterator[tuple[str, list[Record]]]:
    """Records that differ in the seed alone, together."""
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        network = record["model"], *sorted((key, str(value)) for key, value in record["model_args"].items())
        edits = json.dumps(record.get("edits") or [], sort_keys=True)  # rewritten, it is another network
        key = (record.get("recipe"), network, record["data"].get("fold"), _settings(record), edits)
        groups.setdefault(key, []).append(record)
    for (recipe, *_), group in groups.items():
        yield recipe, sorted(group, key=lambda record: record["seed"])


def _label(record: Record) -> str:
    """Of footnotes: a page may have tables of one task on several sets."""
    words = (record["task"], record["data"].get("set"))
    return "-".join(re.sub(r"\W+", "_", str(word)).lower() for word in words if word)


def _settings(record: Record) -> tuple[str, ...]:
    """What the command of the training sets, but for the seed."""
    words = shlex.split((record.get("training") or {}).get("command", ""))
    given = (value for option, value in pairwise(words) if option == "--set")
    return tuple(sorted(value for value in given if not value.startswith("seed=")))


def _row(
    record: Record, metrics: Sequence[str], theirs: Record | None, notes: list[str], alike: bool
) -> list[str]:
    beside = "-"
    if theirs:
        beside = f"{theirs.get('figure', '-')} [^{_label(record)}-{notes.index(theirs['what']) + 1}]"
    return [
        f"[{record['name']}](results/{record['name']}.json)",
        " ".join([_network(record), *(f"`{setting}`" for setting in _settings(record) if alike)]),
        f"{record['parameters']:,}",
        _macs(record),
        str(record["seed"]),
        *(f"**{_figure(key, record['metrics'].get(key))}**" for key in metrics),
        beside,
        trained(record.get("training")),
    ]


def _mean(group: Sequence[Record], metrics: Sequence[str], first: Sequence[str]) -> list[str]:
    """The row of the mean, where it does not differ like the row of the `first` of them."""
    means = [
        sum(float(record["metrics"].get(key, "nan")) for record in group) / len(group) for key in metrics
    ]
    minutes = [record["training"]["train_seconds"] / 60 for record in group if record.get("training")]
    trained = [f"{_span(minutes, '.0f')} min each"] if minutes else []
    steps = {record["training"]["step"] for record in group if record.get("training")}
    if len(steps) > 1:  # a stop rule, or a person, ended some
        trained.insert(0, f"{_span(steps, ',')} steps")
    return [
        f"mean of {len(group)} seeds",
        *first[1:4],
        ", ".join(str(record["seed"]) for record in group),
        *(f"**{_figure(key, mean)}**" for key, mean in zip(metrics, means, strict=True)),
        first[-2],
        ", ".join(trained) or "-",
    ]


def _span(values: Iterable[float], form: str) -> str:
    """`44 to 106`, or `44` where they look alike."""
    values = list(values)
    return " to ".join(dict.fromkeys(f"{value:{form}}" for value in (min(values), max(values))))


def _network(record: Record) -> str:
    """`language_model of lstm (lm_sample)`: the model, its cell or problem, the recipe, the fold of data."""
    parts = [record["model"]]
    if what := record["model_args"].get("cell") or record["model_args"].get("problem"):
        parts.append(f"of `{what}`")
    if recipe := record.get("recipe"):
        parts.append(f"({recipe})")
    if edits := record.get("edits"):
        parts.append(f"with {len(edits)} edit{'s' if len(edits) > 1 else ''}")
    if (fold := record["data"].get("fold")) is not None:
        parts.append(f"fold {fold}")
    return " ".join(parts)


def _macs(record: Record) -> str:
    """`2,840 M a megapixel`."""
    cost = record.get("cost")
    if not cost:
        return "-"
    millions = cost["macs"] / 1e6
    return f"{millions:,.{0 if millions >= 10 else 3}f} M {_each(cost)}"


def cost_of(record: Record) -> str:
    """What the network takes, in words; `-` of an older record."""
    cost = record.get("cost")
    if not cost:
        return "cost: -"
    state = f", {cost['state_bytes']:,} bytes of state" if cost.get("state_bytes") else ""
    macs = f"{cost['macs']:,.0f} MACs {_each(cost)}"
    return f"cost: {cost['weights_bytes']:,} bytes of weights{state}, {macs}"


def _each(cost: Mapping[str, Any]) -> str:
    article = "an" if cost["unit"].startswith(tuple("aeiou")) else "a"
    return f"{article} {cost['unit']}"


def _facts(record: Record) -> str:
    data, training = record["data"], record.get("training") or {}
    parts = [
        f"- {record['name']}: `{training.get('command', '-')}`, commit {training.get('commit')}",
        f"evaluated with `{record['command']}` on {record['device']}, commit {record['commit']}, "
        f"torch {record['versions']['torch']}",
        f"{data['count']:,} targets, fingerprint `{data['fingerprint']}`",
        f"weights `{str(record['digest'])[:16]}`",
        cost_of(record),
    ]
    if training.get("curve"):
        digits = 1 if training["metric"] == "perplexity" else 3
        points = ", ".join(f"{float(figure):.{digits}f}" for _, figure, _ in training["curve"])
        parts.append(f"{training['metric']} on its validation data: {points}")
    return "; ".join(parts)


def trained(training: Record | None) -> str:
    """`2,000 steps, 39 min, AMD EPYC, 1 thread`; what began with the weights of a run names it."""
    if not training:
        return "-"
    device = re.sub(r"\b1 threads\b", "1 thread", training["device"])  # of older records
    began = f" after {training['parent']['run']}" if training.get("parent") else ""
    return f"{training['step']:,} steps{began}, {training['train_seconds'] / 60:.0f} min, {device}"


def _figure(metric: str, value: Any) -> str:
    return "n/a" if value is None else f"{float(value):.{_DIGITS.get(metric, 3)}f}"

"""Recorded evaluations, and the pages that are made from all records.

eval --record NAME --+-> results/NAME.json --+-> RESULTS.md, tables in README.md and docs/
bench --record NAME -+   (`speed.py`)        |
results/published.json (others' figures) ----+
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressnet.card import title
from compressnet.data.conditions import names_of
from compressnet.errors import CompressnetError
from compressnet.results.records import markdown, record_path, store, symbolic
from compressnet.signature import canonical
from compressnet.subject import Loaded

from . import compression, evaluations, speed

if TYPE_CHECKING:
    from torch import nn

    from compressnet.tasks.protocol import Task


def write_record(
    folder: Path,
    name: str,
    report: Mapping[str, Any],
    loaded: Loaded,
    command: str,
    *,
    overwrite: bool = False,
) -> Path:
    """Write an evaluation with everything that it depends on.

    Args:
        report: what `eval` measured.
        command: the command line, in which data roots become symbols.

    Raises:
        CompressnetError: the weights come from a smoke run.
    """
    from compressnet import weights
    from compressnet.training.train import commit, versions

    path = record_path(folder, name, overwrite=overwrite)
    if report["smoke"]:
        raise CompressnetError(
            f"{report['subject']} is a smoke run: its figures mean nothing and are not recorded"
        )
    architecture = loaded.architecture
    record = {
        "name": name,
        **report,
        "subject": symbolic(str(report["subject"])),
        **{key: loaded.assets.get(key) for key in ("operator", "operators", "dial")},
        "recipe": loaded.run.recipe.name if loaded.run else None,
        **evaluations.described(architecture),
        "command": symbolic(command),
        "versions": versions(),
        "commit": commit(),
        "parameters": sum(parameter.numel() for parameter in loaded.model.parameters()),
        "cost": _cost(loaded.model, loaded.task) if architecture else None,
        "edits": list(architecture.edits) if architecture else [],
        "model": architecture.model if architecture else loaded.subject.name,
        "digest": weights.digest(weights.tensors_of(loaded.model), architecture) if architecture else None,
        "released": bool(architecture and architecture.data.get("name") == "released"),
        "training": _training_of(loaded),
    }
    store(path, record, overwrite=overwrite)
    return path


def _cost(model: nn.Module, task: Task) -> dict[str, Any]:
    """What a network takes, its MACs counted on one item of a usual size (see `forms.Cost`)."""
    from torch.utils._pytree import tree_leaves

    from compressnet.analysis.count import count
    from compressnet.analysis.example import example
    from compressnet.weights import raw_tensors

    inputs = example(model)
    cost = {
        "weights_bytes": sum(t.numel() * t.element_size() for t in raw_tensors(model).values()),
        "macs": count(model, inputs).macs / task.amount(inputs),
        "unit": task.unit,
    }
    if init_state := getattr(model, "init_state", None):
        cost["state_bytes"] = sum(t.numel() * t.element_size() for t in tree_leaves(init_state(1)))
    return cost


def summary_table(
    records: Sequence[Mapping[str, Any]], published: Sequence[Mapping[str, Any]], *, seeds: bool = True
) -> str:
    """One line a record of ours, with the authors' network and doing nothing beside it.

    Args:
        seeds: runs that differ in the seed alone have a line each; False: only their mean.
    """
    images = images_table(records, records, published)
    others = [f"\n{table}" for table in evaluations.summary(records, published, seeds=seeds)]
    return "\n".join([images, *others]).rstrip() + "\n"


def images_table(
    shown: Sequence[Mapping[str, Any]],
    records: Sequence[Mapping[str, Any]],
    published: Sequence[Mapping[str, Any]],
) -> str:
    """Rows of those of `shown` that are of images: one for each operator, or strength of a dial.

    The authors' networks are looked up in all `records`.
    """
    head = [
        "record",
        "operator",
        "network",
        "data, split",
        "do nothing",
        "authors' network",
        "ours",
        "trained",
    ]
    rows = []
    notes: list[str] = []
    for record in shown:
        if record.get("released") or not _is_of_images(record):
            continue  # the one stands in the column beside ours, the others in sections of their own
        for operator, shown_as, metrics in _tasks(record):
            theirs = theirs_for(operator, record["data"]["fingerprint"], records, published)
            if theirs and theirs["what"] not in notes:
                notes.append(theirs["what"])
            mark = f" [^{notes.index(theirs['what']) + 1}]" if theirs else ""
            rows.append(
                [
                    f"[{record['name']}](results/{record['name']}.json)",
                    shown_as,
                    f"{record['model']}{_condition(record)}, {record['parameters']:,}",
                    f"{title(record['data'])}, {record['split']} ({_images(record)})",
                    _decibel(metrics.get("psnr_nothing"), metrics.get("ssim_nothing")),
                    _decibel(theirs.get("psnr"), theirs.get("ssim")) + mark,
                    f"**{_decibel(metrics.get('psnr'), metrics.get('ssim'))}**",
                    evaluations.trained(record.get("training")),
                ]
            )
    lines = [markdown(head, rows), "", "PSNR in dB / SSIM, mean over images; higher is better."]
    footnotes = [f"[^{number}]: {text}" for number, text in enumerate(notes, 1)]
    return "\n".join([*lines, "", *footnotes])


def published_figure(
    record: Mapping[str, Any],
    metric: str,
    records: Sequence[Mapping[str, Any]],
    published: Sequence[Mapping[str, Any]],
) -> tuple[str, str] | None:
    """What others have reached where a record's network stands, and on what; None: nothing is known."""
    if _is_of_images(record):
        theirs = theirs_for(record.get("operator"), record["data"]["fingerprint"], records, published)
        return (f"{float(theirs[metric]):.1f}", theirs["what"]) if theirs.get(metric) is not None else None
    entry = evaluations.published_for(record.get("recipe"), published, record["data"]["name"])
    return (str(entry["figure"]), entry["what"]) if entry and entry.get("figure") is not None else None


def results_page(records: Sequence[Mapping[str, Any]], published: Sequence[Mapping[str, Any]] = ()) -> str:
    """RESULTS.md: the summary, how long networks take, then every evaluation image by image."""
    parts = [
        "# Results",
        "Made by `make results` from the records in `results/`; edits here are lost. "
        "'Do nothing' compares the input itself with the target: a figure means nothing without it.",
        summary_table(records, published),
    ]
    parts += evaluations.details(records)
    parts += compression.sections(records)
    parts += speed.sections(records)
    parts += [_section(record) for record in records if _is_of_images(record)]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def _is_of_images(record: Mapping[str, Any]) -> bool:
    return record.get("kind") is None and not evaluations.is_other(record)


def _training_of(loaded: Loaded) -> dict[str, Any] | None:
    if loaded.run is None:
        from compressnet.subject import zoo_card

        card = zoo_card(loaded.subject.name) if loaded.subject.kind == "zoo" else {}
        training: dict[str, Any] | None = card.get("training")
        return training
    facts = loaded.run.facts
    kept = ("train_seconds", "step", "device", "data", "commit", "seed", "versions", "parent")
    training = {key: facts[key] for key in kept if key in facts}
    if training.get("parent"):
        training["parent"] = {**training["parent"], "run": symbolic(training["parent"]["run"])}
    metric = loaded.task.best[0]
    curve = [
        [row["step"], row[metric], row.get(f"{metric}_nothing")]
        for row in loaded.run.metrics("evaluation")
        if metric in row
    ]
    command = symbolic(shlex.join(facts.get("command", [])))
    resumed = [symbolic(shlex.join(words)) for words in facts.get("resumed_with", [])]
    return training | {"command": command, "resumed_with": resumed, "metric": metric, "curve": curve}


def _section(record: Mapping[str, Any]) -> str:
    names = ["psnr_nothing", "psnr", "ssim_nothing", "ssim"]
    first = ("strength" if record.get("dial") else "operator") if record.get("operators") else "image"
    head = [first, "PSNR do nothing", "PSNR", "SSIM do nothing", "SSIM"]
    rows = [[name, *(_number(row.get(key)) for key in names)] for name, row in record["rows"].items()]
    rows.append(["**mean**", *(f"**{_number(record['metrics'].get(key))}**" for key in names)])
    training = record.get("training") or {}
    facts = [
        f"- data: {title(record['data'])}, split {record['split']}, {_images(record)} images, "
        f"fingerprint `{record['data']['fingerprint']}`; seed {record['seed']}",
        f"- evaluated: `{record['command']}` on {record['device']}, commit {record['commit']}, "
        f"torch {record['versions']['torch']}",
    ]
    if record["digest"]:  # an operator has no weights
        facts.append(f"- weights: digest `{record['digest'][:16]}`; {evaluations.cost_of(record)}")
    if training:
        how = f"{evaluations.trained(training)}; commit {training.get('commit')}"
        facts.append(f"- trained: `{training['command']}`; {how}")
    facts += [f"- went on with `{command}`" for command in training.get("resumed_with", [])]
    if training.get("curve"):
        points = ", ".join(f"{step}: {float(figure):.2f}" for step, figure, _ in training["curve"])
        nothing = training["curve"][-1][2]
        beside = "" if nothing is None else f" (doing nothing: {float(nothing):.2f})"
        facts.append(f"- {training['metric']} on its validation data by step{beside}: {points}")
    if training.get("parent"):
        facts.append(
            f"- started from `{training['parent']['run']}`, digest `{training['parent']['digest'][:16]}`"
        )
    return f"## {record['name']}\n\n{markdown(head, rows)}\n\n" + "\n".join(facts)


def _tasks(record: Mapping[str, Any]) -> Iterator[tuple[str | None, str, Mapping[str, Any]]]:
    """What a network is asked to imitate, how that is shown, and its figures."""
    operator = record.get("operator")
    if not record.get("operators"):
        yield operator, f"`{operator}`" if operator else "-", record["metrics"]
        return
    of = f"{record['operators'][0]}, " if record.get("dial") else ""
    known = dict(zip(names_of(record["operators"]), record["operators"], strict=True))
    for name, metrics in record["rows"].items():
        yield None if of else known.get(name), f"`{of}{name}`", metrics  # a blend is nobody's operator
    if len(record["rows"]) > 1:
        yield None, "mean", record["metrics"]


def _images(record: Mapping[str, Any]) -> int:
    """How many were measured on; each counts once, whatever a network was told to do with it."""
    count = int(record["data"]["count"])
    return count // len(record["rows"]) if record.get("operators") else count


def _condition(record: Mapping[str, Any]) -> str:
    """How a network is told what to do, behind its name."""
    condition = record.get("model_args", {}).get("condition")
    return f" ({condition})" if condition else ""


def theirs_for(
    operator: str | None,
    fingerprint: str,
    records: Sequence[Mapping[str, Any]],
    published: Sequence[Mapping[str, Any]],
) -> Mapping[str, Any]:
    """The authors' figures of an operator: of their released network on the same images, else published ones.

    Args:
        operator: as a subject; None: nothing is known.
        fingerprint: of the images.
    """
    if not operator:
        return {}
    mine = canonical("operator", operator)
    for other in filter(lambda other: other.get("released") and other.get("operator"), records):
        same_data = other["data"]["fingerprint"] == fingerprint
        if same_data and canonical("operator", other["operator"]) == mine:
            what = f"the authors' released network on the same images: record {other['name']} in RESULTS.md."
            return {**other["metrics"], "what": what}
    known = [entry for entry in published if entry.get("operator")]
    return next((entry for entry in known if canonical("operator", entry["operator"]) == mine), {})


def _decibel(psnr: float | str | None, ssim: float | str | None) -> str:
    if psnr is None:
        return "not known"
    psnr = float(psnr)
    return f"{psnr:.2f} / {float(ssim):.4f}" if ssim is not None else f"{psnr:.2f}"


def _number(value: float | str | None) -> str:
    if value is None:
        return "n/a"
    value = float(value)  # 'inf' is written as a text
    return f"{value:.2f}" if value > 1 else f"{value:.4f}"

"""`compressnet eval`: the figures of a subject on data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from compressnet.errors import CompressnetError, UsageError

from . import console, options

if TYPE_CHECKING:
    from compressnet.data.protocol import Split
    from compressnet.recipe import Component
    from compressnet.subject import Loaded
    from compressnet.tasks.protocol import Metrics


_NAMED = 10  # pictures


def evaluate(
    context: typer.Context,
    subject: Annotated[
        str, typer.Argument(help="A run (RUN@last, RUN@step-500), a weights file or zoo:NAME.")
    ],
    set_: options.Overrides = None,
    list_options: options.ListOptions = False,
    split: options.Split = None,
    data: options.OtherData = None,
    record: Annotated[
        Optional[str],
        typer.Option(metavar="NAME", help="Write results/NAME.json, which RESULTS.md is made from."),
    ] = None,
    results: Annotated[Path, typer.Option(metavar="DIR", help="The folder of recorded results.")] = Path(
        "results"
    ),
    pictures: Annotated[
        Optional[Path],
        typer.Option(
            metavar="DIR", help="Draw what the network does to every sample, and what the figures show."
        ),
    ] = None,
    device: options.Device = "auto",
    threads: options.Threads = None,
    data_root: options.DataRoot = None,
    cache: options.CacheDir = None,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Evaluate a network on data; --set says how to measure, where its task has a choice.

    Example: compressnet eval runs/fip_sample-1 --split test
    """
    from compressnet.results.pages import record_path, write_record
    from compressnet.subject import load

    if list_options:
        _show_measures(load(subject), json)
        return
    if record:
        record_path(results, record, overwrite=force)  # refuses before the work, not after it
    if pictures is not None and pictures.exists() and not pictures.is_dir():
        raise UsageError(f"--pictures {pictures}: it is a file; name a folder")
    loaded = load(subject)
    if record and loaded.architecture and loaded.architecture.smoke:
        raise CompressnetError(f"{subject} is a smoke run: its figures mean nothing and are not recorded")
    if loaded.run and not data:
        options.look_where(loaded.run)
    component = _data_of(loaded, data)
    measures = _take_measures(loaded, set_)
    report = {**_measure(loaded, component, split, device, pictures), "measures": measures}
    _show(
        report, _rows_are(loaded) or report["data"]["name"], set_ or [], json
    )  # first: no failure to write may cost the figures
    if loaded.run and not set_:  # what stands in the run's report is measured as usual
        from compressnet.files import write_json

        write_json(loaded.run.folder / "eval.json", report)
    if record:
        command = options.command_line(context)
        path = write_record(results, record, report, loaded, command, overwrite=force)
        console.note(f"recorded: {path}")


def _show_measures(loaded: Loaded, json: bool) -> None:
    from compressnet.signature import parameters

    if json or parameters(loaded.task.measures):
        options.show_settings("measures", loaded.task.measures, json)
    else:
        console.print_text(_one_way(loaded))


def _one_way(loaded: Loaded) -> str:
    return f"{loaded.subject.text} has one way to be measured"


def _take_measures(loaded: Loaded, overrides: list[str] | None) -> dict[str, Any]:
    """Tell the task how to measure; returns it whole, defaults included."""
    from dataclasses import asdict

    from compressnet import signature

    settings = options.parse_settings(overrides)
    if settings and not signature.parameters(loaded.task.measures):
        raise UsageError(f"--set {next(iter(settings))}: {_one_way(loaded)}")
    given, problems = signature.check(loaded.task.measures, settings)
    if problems:
        raise UsageError("; ".join(f"--set {problem.key}: {problem.message}" for problem in problems))
    loaded.task.measure(given)
    return {key.removesuffix("_"): value for key, value in asdict(loaded.task.measures(**given)).items()}


def _data_of(loaded: Loaded, text: str | None) -> Component:
    """The data to evaluate on: what was asked for, else the run's, else the samples it was trained on."""
    from compressnet.recipe import Component

    if text:
        return Component.parse("data", text)
    if loaded.run:
        return loaded.run.recipe.data
    trained_on = loaded.architecture.data.get("name") if loaded.architecture else None
    if trained_on == "sample":
        return Component(kind="data", name="sample", arguments={})
    fitting = "photo_folder:root=DIR,test_root=DIR, or --data sample"
    if "photograph" not in loaded.task.sample_types:
        fitting = " or ".join(_sets_for(loaded))
    raise UsageError(f"{loaded.subject.text} does not say where data is: add --data {fitting}")


def _sets_for(loaded: Loaded) -> list[str]:
    """The data sets whose samples a task takes."""
    from compressnet import registry

    kinds = {name: registry.find("data", name).sample_type for name in registry.DATASETS}  # type: ignore[attr-defined]
    fitting = sorted(name for name, kind in kinds.items() if kind in loaded.task.sample_types)
    return [f"{name}:root=DIR,test_root=DIR" if name == "paired_folder" else name for name in fitting]


def _measure(
    loaded: Loaded, component: Component, split: str | None, device: str, pictures: Path | None
) -> dict[str, Any]:
    import time

    from compressnet.data.protocol import NoSuchSplit
    from compressnet.recipe import Eval
    from compressnet.training import cpu_settings
    from compressnet.training import device as devices
    from compressnet.training.evaluate import check_samples, measured

    chosen = devices.choose(device)
    if device == "auto":
        console.note(f"device: {devices.name(chosen)}")
    cpu_settings.set_up(chosen, loaded.run.recipe.train.cpu_matmul if loaded.run else "auto")
    data_set = component.build()
    check_samples(loaded.task, data_set, component.name, loaded.subject.name)
    split = split or data_set.test_split
    seed = loaded.run.recipe.seed if loaded.run else 0
    try:
        # of a network that does several things: the one that `measure` was told
        asked = getattr(loaded.task, "asked", {})
        opened = data_set.open(split, {**loaded.assets, **asked}, seed)
    except NoSuchSplit as error:
        hint = "" if split == "val" else "; --split val takes what is held out for validation"
        raise UsageError(f"split {split}: {error}{hint}") from error
    settings = loaded.run.recipe.eval if loaded.run else Eval()
    screen = console.Screen()
    began = time.monotonic()
    try:
        with loaded.running():
            found = measured(loaded.task, loaded.model.to(chosen), opened, chosen, screen, settings)
        metrics = found.compute()
        if pictures is not None:
            _draw(loaded, opened, found, pictures, screen)
    except UsageError as error:
        if "operator" not in loaded.assets and "operators" not in loaded.assets:
            raise
        # of an operator that is to make targets: not typed, but stored
        raise CompressnetError(f"{loaded.subject.text}: {error}") from error
    finally:
        screen.close()
    architecture = loaded.architecture
    return {
        "subject": loaded.subject.text,
        "checkpoint": loaded.run.checkpoint(loaded.subject.checkpoint).name if loaded.run else None,
        "smoke": bool(architecture and architecture.smoke),
        "data": {"name": component.name, **opened.facts()},
        "split": split,
        "seed": seed,
        "device": devices.name(chosen),
        "cpu": cpu_settings.current().as_dict(),
        "seconds": round(time.monotonic() - began, 1),
        "metrics": {key: value for key, value in metrics.items() if "/" not in key},
        "rows": _rows(metrics),
        "details": found.details(),
    }


def _draw(loaded: Loaded, split: Split, found: Metrics, folder: Path, screen: console.Screen) -> None:
    from compressnet.training.evaluate import draw, write_picture

    from .apply.writer import make_folder

    make_folder(folder)
    screen.stage("drawing", len(split), "samples")
    for name, picture in found.pictures():
        screen.note("info", f"picture: {write_picture(folder / f'{name}.png', picture)}")
    for number, path in enumerate(draw(loaded.task, loaded.model, split, range(len(split)), folder)):
        screen.advance(1)
        if number < _NAMED:
            screen.note("info", f"picture: {path}")
    if len(split) > _NAMED:
        screen.note("info", f"pictures of {len(split):,} samples in {folder}")


def _rows(metrics: dict[str, float]) -> dict[str, dict[str, float]]:
    """Figures of single samples: {name: {metric: value}}."""
    rows: dict[str, dict[str, float]] = {}
    for key, value in metrics.items():
        metric, slash, name = key.partition("/")
        if slash:
            rows.setdefault(name, {})[metric] = value
    return rows


def _rows_are(loaded: Loaded) -> str:
    """What tells the rows of a network that does several things apart; empty: they are samples."""
    from compressnet.data.conditions import conditions_of

    conditions = conditions_of(loaded.assets)
    return "" if conditions is None else conditions.key


def _show(report: dict[str, Any], rows_are: str, settings: list[str], json: bool) -> None:
    from compressnet.card import title

    if json:
        console.print_json(report)
        return
    columns = list(
        dict.fromkeys([*report["metrics"], *(key for row in report["rows"].values() for key in row)])
    )
    rows = [[name, *(row.get(column) for column in columns)] for name, row in report["rows"].items()]
    if len(rows) != 1 or not rows_are:  # of one operator it would be that row again
        rows.append(["mean", *(report["metrics"].get(column) for column in columns)])
    mark = " (smoke run: figures mean nothing)" if report["smoke"] else ""
    mark += "".join(f", {text}" for text in settings)
    heading = f"{report['subject']} on {title(report['data'])}, {report['split']}{mark}"
    console.print_table(heading, [rows_are, *(_heading(column) for column in columns)], rows)


def _heading(metric: str) -> str:
    unit = {"psnr": "PSNR dB", "ssim": "SSIM", "mse": "MSE"}
    base = metric.removesuffix("_nothing")
    return unit.get(base, base.replace("_", " ")) + (" of doing nothing" if base != metric else "")

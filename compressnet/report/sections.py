"""The sections of a report; one that has nothing to say is left out."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from compressnet.errors import short as cut
from compressnet.report import compression, confusion, curves, drawing, samples
from compressnet.report.compression import Compressed
from compressnet.report.contents import Contents, Evaluated
from compressnet.report.figures import NOTHING, duration, figure, many, name_of, number_of, short
from compressnet.report.markup import Html, join, tag

if TYPE_CHECKING:
    from compressnet.analysis.count import Count, Layer

_MOST_ROWS = 200
_MOST_METRICS = 12
_MOST_SHOWN = 2000  # characters of one value
_KEY = re.compile(r"( *(?:- )*)([\w.-]+)(:.*)", re.ASCII | re.DOTALL)


class Section(NamedTuple):
    """A part of the page.

    Attributes:
        key: its id.
    """

    key: str
    title: str
    body: Html


def sections(contents: Contents) -> Iterator[Section]:
    """Those that have something to say, in the order of the page."""
    yield Section("results", "Results", _results(contents))
    split = "validation" if contents.best_validation else "training"
    if contents.previews and contents.previews.pictures:
        yield Section("pictures", "Pictures", samples.pictures(contents.previews, split))
    if contents.previews and contents.previews.texts:
        yield Section("texts", "Texts", samples.texts(contents.previews, split))
    charts = curves.charts(contents.rows, contents.best[0], contents.best_validation.get("step"))
    if charts:
        drawn = tag("div", *map(drawing.draw, charts), class_="charts")
        yield Section("curves", "Curves", join(drawn, _validations(contents)))
    if contents.evaluated and (found := contents.evaluated.details.confusion):
        yield Section("confusion", "Confusion", confusion.table(found.classes, found.counts))
    if contents.compressed:
        yield Section("compression", "Compression", _compression(contents, contents.compressed))
    if contents.counted:
        yield Section("layers", "Layers", _layers(contents))
    yield Section("recipe", "Recipe", tag("pre", *_yaml(contents.run.recipe.to_yaml()), class_="recipe"))
    yield Section("environment", "Environment", _environment(contents))


def _results(contents: Contents) -> Html:
    found, step = contents.evaluated, contents.step
    if not found and not contents.validated:
        return _nothing(contents)
    tables = [_evaluation(contents, found)] if found else []
    tables += [_validation(contents)] if contents.validated else []
    parts = [tag("div", *(tag("div", table) for table in tables), class_="tables")]
    if found and contents.theirs:
        parts.append(tag("p", f"Published: {contents.theirs.what}", class_="quiet"))
    if found and contents.evaluates_another:
        words = f"On {found.split} data {found.checkpoint} was evaluated; all else here is of step-{step}: "
        parts.append(tag("p", words, _command("eval", contents), class_="notice"))
    if not found and step is not None:
        parts.append(tag("p", "Not evaluated on test data yet: ", _command("eval", contents), class_="quiet"))
    if found and len(found.rows) > 1:
        parts.append(_samples(found))
    return join(*parts)


def _nothing(contents: Contents) -> Html:
    """That there is no figure, and how to come by one."""
    if contents.step is None:
        return tag("p", "Nothing was measured." if contents.is_over else "Nothing has been measured yet.")
    where = f"at step {contents.step:,}" if contents.chosen.is_named else "yet"
    return tag("p", f"Nothing has been measured {where}: ", _command("eval", contents))


def _command(name: str, contents: Contents) -> Html:
    return tag("code", shlex.join(["compressnet", name, contents.subject]))


def _evaluation(contents: Contents, found: Evaluated) -> Html:
    made_by = f" ({found.checkpoint})" if found.checkpoint else ""
    caption = f"On {found.data.title}, {found.split}: {many(found.data.count, 'target')}{made_by}"
    return _figures(caption, found.metrics, contents.theirs.figures if contents.theirs else {})


def _validation(contents: Contents) -> Html:
    row = contents.validated
    metrics = {key: value for key, value in row.items() if key not in curves.NO_METRICS}
    return _figures(f"Validation in training, at step {row['step']:,}", metrics, {})


def _figures(caption: str, metrics: Mapping[str, Any], theirs: Mapping[str, Any]) -> Html:
    """A row for each metric: ours, doing nothing, others'."""
    mine = [key for key in metrics if not key.endswith(NOTHING)][:_MOST_METRICS]
    nothing = any(key + NOTHING in metrics for key in mine)
    head = ["", "this run", *(["doing nothing"] if nothing else []), *(["published"] if theirs else [])]
    rows = []
    for key in mine:
        cells = [tag("td", tag("b", figure(key, metrics[key])))]
        cells += [tag("td", figure(key, metrics.get(key + NOTHING)))] if nothing else []
        if theirs:
            value = theirs.get(key)
            cells.append(tag("td", value if isinstance(value, str) else figure(key, value), class_="theirs"))
        rows.append(tag("tr", tag("th", name_of(key), scope="row"), *cells))
    return _table(caption, head, rows)


def _samples(found: Evaluated) -> Html:
    """Figures of single samples or classes, those of doing nothing beside them."""
    keys = list(dict.fromkeys(key for row in found.rows.values() for key in row))[: 2 * _MOST_METRICS]
    head = ["", *(_heading(key) for key in keys)]
    rows = [
        tag(
            "tr",
            tag("th", cut(name, 100), scope="row"),
            *(tag("td", figure(key.removesuffix(NOTHING), row.get(key))) for key in keys),
        )
        for name, row in islice(found.rows.items(), _MOST_ROWS)
    ]
    more = len(found.rows) - len(rows)
    caption = f"The first {len(rows)}; the others ({more:,}) are in eval.json" if more else ""
    table = _table(caption, head, rows)
    return tag("details", tag("summary", f"One by one: {len(found.rows):,}"), table, open=len(rows) <= 12)


def _heading(key: str) -> str:
    base = key.removesuffix(NOTHING)
    return name_of(base) + (" of doing nothing" if base != key else "")


def _validations(contents: Contents) -> Html | None:
    """All validations as a table: what the curves show, in digits."""
    found = [row for row in contents.rows if row["event"] == "evaluation"]
    if not found:
        return None
    shown = found[-_MOST_ROWS:]
    keys = list(dict.fromkeys(key for row in shown for key in row))
    keys = [key for key in keys if key not in curves.NO_METRICS and not key.endswith(NOTHING)][:_MOST_METRICS]
    rows = [
        tag(
            "tr",
            tag("th", f"{row['step']:,}", scope="row"),
            *(tag("td", figure(key, row.get(key))) for key in keys),
            class_="best" if row is contents.best_validation else None,
        )
        for row in shown
    ]
    caption = f"The last {len(shown)} of {len(found):,}" if len(shown) < len(found) else ""
    table = _table(caption, ["step", *map(name_of, keys)], rows)
    return tag("details", tag("summary", f"{many(len(found), 'validation')} in digits"), table)


def _compression(contents: Contents, found: Compressed) -> Html:
    caption = "Before and after; the error is that of its outputs, relative to their spread."
    table = _table(caption, compression.HEAD, compression.rows(found), words=2)
    picture = None
    if contents.picture:
        alt = "Milliseconds and MACs of each layer, before and after"
        picture = tag("p", tag("img", src=contents.picture, alt=alt, class_="whole"))
    return join(compression.introduction(found), table, picture)


def _layers(contents: Contents) -> Html:
    assert contents.counted is not None
    count = contents.counted.count
    amount, unit = (count.amount, f" a {count.unit}") if count.amount else (1, "")
    layers = _few([layer for layer in count.layers if _says_something(layer)], count)
    rows = [
        tag(
            "tr",
            tag("th", layer.path or "(itself)", scope="row"),
            tag("td", layer.type + (f" x{layer.calls}" if layer.calls > 1 else ""), class_="word"),
            tag("td", f"{layer.parameters:,}"),
            tag("td", _share(layer.parameters, count.parameters)),
            tag("td", short(layer.macs / amount)),
            tag("td", _share(layer.macs, count.macs)),
        )
        for layer in layers
    ]
    total = tag("th", "total", scope="row"), tag("td"), tag("td", f"{count.parameters:,}")
    sums = tag("td"), tag("td", short(count.macs / amount)), tag("td")
    rows.append(tag("tr", *total, *sums, class_="total"))
    shapes = " + ".join("x".join(map(str, shape)) for shape in contents.counted.inputs)
    size = f"The parameters take {short(count.bytes, 'B')}."
    caption = f"Counted for an input of {shapes}. A MAC is a multiply-add, two FLOPs. {size}"
    head = ["layer", "type", "parameters", "share", f"MACs{unit}", "share"]
    notes = [f"tied: {alias} = {kept}, counted once" for kept, alias in count.ties[:20]]
    notes += [f"warning: {problem}" for problem in count.problems[:20]]
    return join(_table(caption, head, rows, words=2), *(tag("p", note, class_="quiet") for note in notes))


def _few(layers: Sequence[Layer], count: Count) -> Sequence[Layer]:
    """The rows of a table that a page has room for: of a deep network its outer levels."""
    for depth in (4, 3, 2, 1):
        if len(layers) <= _MOST_ROWS:
            break
        layers = [layer for layer in count.folded(depth) if _says_something(layer)]
    return layers[:_MOST_ROWS]


def _says_something(layer: Layer) -> bool:
    return bool(layer.parameters or layer.macs or layer.macs_trace)


def _share(part: int, whole: int) -> Html:
    """A bar, and the share in per cent for who cannot see it."""
    percent = 100 * part / whole if whole else 0.0
    bar = tag("rect", width=f"{percent:.2f}", height=8)
    label = tag("span", f"{percent:.1f} %")
    picture = tag(
        "svg", bar, viewBox="0 0 100 8", preserveAspectRatio="none", aria_hidden="true", class_="bar"
    )
    return tag("span", picture, label, class_="share")


def _yaml(source: str) -> Iterator[Html]:
    """Lines of YAML with their keys marked."""
    for line in source.rstrip("\n").split("\n"):
        if match := _KEY.fullmatch(line):
            yield join(match[1], tag("span", match[2], class_="key"), match[3], "\n")
        else:
            yield join(line, "\n")


def _environment(contents: Contents) -> Html:
    pairs = [(name, value) for name, value in _facts(contents) if value not in (None, "", [])]
    rows = [tag("div", tag("dt", name), tag("dd", *_shown(value))) for name, value in pairs]
    return tag("dl", *rows, class_="facts")


def _shown(value: Any) -> list[Html]:
    if isinstance(value, list):  # command lines
        return [tag("code", cut(line, _MOST_SHOWN)) for line in value[:20]]
    return [join(cut(str(value), _MOST_SHOWN))]


def _facts(contents: Contents) -> Iterator[tuple[str, Any]]:
    facts = contents.facts
    resumed = [shlex.join(words) for words in facts.get("resumed_with", []) if words]
    yield "command", [shlex.join(facts["command"])] if facts.get("command") else None
    yield "resumed with", resumed
    yield "began from", _parent(facts.get("parent"))
    yield "seed", str(facts["seed"])
    yield "data", _words(facts.get("data") or {}).removeprefix("name ")
    yield "started", facts["started"]
    yield "ended", facts.get("ended")
    seconds = number_of(facts.get("train_seconds"))
    yield "time", duration(seconds) if seconds else None
    speeds = [number_of(row.get("samples_per_s")) for row in contents.rows if row["event"] == "train"]
    yield "speed", f"{speeds[-1]:.4g} samples a second" if speeds and speeds[-1] else None
    yield "device", facts.get("device")
    threads, world = facts.get("threads"), facts.get("world", 1)
    yield "processes", f"{world}, of {threads or 1} thread{'s' if threads != 1 else ''} each"
    if cpu := facts.get("cpu"):
        kernels = ", trained in C kernels" if cpu.get("kernels") else ""
        yield (
            "CPU settings",
            f"matmul {cpu['matmul']}, malloc {'tuned' if cpu['malloc'] else 'default'}{kernels}",
        )
    yield "versions", _words(facts.get("versions") or {})
    yield "commit", facts.get("commit")
    yield "digest of the last weights", facts.get("digest")


def _parent(parent: Mapping[str, Any] | None) -> str | None:
    return f"{parent['run']}, digest {parent['digest'][:16]}" if parent else None


def _words(values: Mapping[str, Any]) -> str:
    """`name sample, count 4`."""
    return ", ".join(f"{key.replace('_', ' ')} {_plain(value)}" for key, value in islice(values.items(), 40))


def _plain(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    return f"{value:,}" if isinstance(value, int) else cut(str(value), 200)


def _table(caption: str, head: Sequence[str], rows: Sequence[Html], words: int = 1) -> Html:
    """A table that scrolls in itself where it is too wide.

    Args:
        words: so many columns are words and stand to the left, the others figures.
    """
    columns = [
        tag("th", name, scope="col", class_="word" if place < words else None)
        for place, name in enumerate(head)
    ]
    table = tag("table", tag("thead", tag("tr", *columns)), tag("tbody", *rows), aria_label=caption or None)
    return join(
        tag("p", caption, class_="caption") if caption else None,
        tag("div", table, class_="scroll", tabindex=0, role="region", aria_label=caption or "table"),
    )

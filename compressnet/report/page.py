"""The page: a head, sections, and style and script in it; nothing is loaded.

Its Content-Security-Policy lets this style and this script act and no other, whatever a name may hold.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any

from compressnet.card import title
from compressnet.report.contents import Contents
from compressnet.report.figures import NOTHING, duration, figure, name_of, short
from compressnet.report.markup import Html, join, tag, text
from compressnet.report.sections import sections

_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body>
{body}
<script>{script}</script>
</body>
</html>
"""
_STATES = {
    "created": "not begun",
    "running": "still training",
    "done": "done",
    "interrupted": "interrupted",
    "failed": "failed",
}


def page(contents: Contents) -> str:
    """The report of a run as one HTML file, the same whenever it is made of the same run."""
    style, script = _resource("style.css"), _resource("script.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    made = list(sections(contents))
    links = [tag("a", section.title, href=f"#{section.key}") for section in made]
    parts = [tag("section", tag("h2", section.title), section.body, id=section.key) for section in made]
    body = join(
        tag("header", *_head(contents)),
        tag("nav", *links, aria_label="Sections"),
        tag("main", *parts),
    )
    return _PAGE.format(policy=policy, title=text(_name(contents)), style=style, body=body, script=script)


def _name(contents: Contents) -> str:
    """What the run's folder is called, wherever it lies."""
    return contents.run.folder.resolve().name


def _head(contents: Contents) -> Iterator[Html]:
    facts, recipe = contents.facts, contents.run.recipe
    status = facts["status"]
    chips = [tag("span", _STATES.get(status, status), class_=f"chip {status}")]
    if recipe.is_smoke:
        chips.append(tag("span", "smoke run", class_="chip smoke"))
    theme = tag("button", "Toggle theme", type="button", id="theme", hidden=True)
    yield tag("div", tag("h1", _name(contents)), *chips, theme, class_="title")
    data = facts.get("data") or {}
    what = [recipe.task.name, recipe.model.name, title(data) if "name" in data else recipe.data.name]
    words = [str(recipe.task.arguments["operator"])] if "operator" in recipe.task.arguments else []
    kinds = zip(("task", "model", "data"), what, strict=True)
    pairs = [f"{kind} {name.replace('_', ' ') if kind == 'task' else name}" for kind, name in kinds]
    yield tag("p", " · ".join([f"recipe {facts['recipe']}", *pairs, *words]), class_="what")
    yield from _notices(contents)
    yield tag("dl", *(_card(*card) for card in _cards(contents)), class_="cards")


def _notices(contents: Contents) -> Iterator[Html]:
    status, total = contents.facts["status"], contents.facts.get("total_steps") or 0
    if contents.run.recipe.is_smoke:
        notice = "Smoke run: a few steps, to see that everything works. Its weights and figures mean nothing."
        yield tag("p", notice, class_="notice smoke")
    of = f" of {total:,}" if total else ""
    if status == "running":
        notice = (
            f"Training was at step {contents.reached:,}{of} when this page was made: all figures are so far. "
            "(A run that was killed says the same.)"
        )
        yield tag("p", notice, class_="notice")
    elif status in ("interrupted", "failed"):
        reason = contents.facts.get("reason") or "no reason is recorded"
        yield tag(
            "p", f"{_STATES[status].capitalize()} at step {contents.reached:,}{of}: {reason}", class_="notice"
        )
    if contents.step is None:
        lacks = "Its checkpoints have been deleted" if contents.is_over else "There is no checkpoint yet"
        yield tag("p", f"{lacks}: layers and sizes are not known.", class_="notice")


def _cards(contents: Contents) -> Iterator[tuple[str, str, str]]:
    """(heading, figure, what stands below it) of what matters most."""
    metric = contents.best[0]
    for figures, where in _measured(contents):
        if metric in figures:
            nothing = figures.get(metric + NOTHING)
            beside = "" if nothing is None else f"; doing nothing {figure(metric, nothing)}"
            yield name_of(metric), figure(metric, figures[metric]), where + beside
            break
    if contents.counted:
        count = contents.counted.count
        yield "parameters", f"{count.parameters:,}", short(count.bytes, "B")
        if count.amount:
            yield "MACs", short(count.macs / count.amount), f"a {count.unit}"
    total = contents.facts.get("total_steps") or 0
    steps = contents.step if contents.chosen.is_named else contents.reached
    yield "steps", f"{steps:,}", f"of {total:,}" if total else ""
    if seconds := seconds_of(contents):
        yield "training", duration(seconds), str(contents.facts.get("device") or "")


def _measured(contents: Contents) -> Iterator[tuple[Mapping[str, Any], str]]:
    """(figures, where they are from) of the checkpoint, those on test data first."""
    if (found := contents.evaluated) and not contents.evaluates_another:
        yield found.metrics, f"on {found.data.title}, {found.split}"
    yield contents.validated, f"in validation, step {contents.validated.get('step', 0):,}"


def seconds_of(contents: Contents) -> float:
    """How long training has taken: up to the checkpoint that was asked for, else so far."""
    last = contents.step if contents.chosen.is_named and contents.step is not None else math.inf
    rows = [row for row in contents.rows if row["event"] == "train" and row["step"] <= last]
    known = [value for row in rows if isinstance(value := row.get("seconds"), int | float)]
    whole = contents.facts.get("train_seconds") if last == math.inf else None
    return max([whole or 0.0, *known])


def _card(heading: str, value: str, below: str) -> Html:
    return tag("div", tag("dt", heading), tag("dd", tag("b", value), tag("span", below)))


def _resource(name: str) -> str:
    return (resources.files("compressnet.report") / name).read_text(encoding="utf-8")


def _hash(source: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}"

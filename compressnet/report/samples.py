"""How samples are shown: pictures one over the other with a divider between them, texts as they are."""

from __future__ import annotations

import math
from collections.abc import Sequence

from compressnet.report.markup import Html, join, tag
from compressnet.report.previews import Pictures, Previews

_PAIRS = (("input", "network"), ("target", "network"), ("input", "target"))
_SHORT = 80  # characters of what was given that fit into a line with what came of it
_SMALL = 360  # pixels: what is less wide is magnified to at least that


def pictures(previews: Previews, split: str) -> Html:
    """All pictures.

    Args:
        split: what the samples are of: "validation", "training".
    """
    shown = [_comparison(number, sample) for number, sample in enumerate(previews.pictures)]
    return join(_introduction(previews, split), tag("div", *shown, class_="samples"))


def texts(previews: Previews, split: str) -> Html:
    """All texts."""
    return join(_introduction(previews, split), *(_text(*named) for named in previews.texts))


def _introduction(previews: Previews, split: str) -> Html:
    words = f"What the network made of {split} samples after step {previews.step:,}."
    are = "is" if previews.left_out == 1 else "are"
    more = f" {previews.left_out:,} more {are} in the run's folder." if previews.left_out else ""
    more += f" {previews.unread:,} could not be read." if previews.unread else ""
    return tag("p", words + more, class_="quiet")


def _comparison(number: int, sample: Pictures) -> Html:
    """The panes of a sample; side by side where no script runs."""
    width, height = sample.panes[0].size
    times = math.ceil(_SMALL / width)
    caption = [tag("b", sample.name), f", {width} x {height}"]
    caption += [tag("small", f", {sample.note}")] if sample.note else []
    shown = [_pane(sample, place, times) for place in range(len(sample.panes))]
    names = [pane.name for pane in sample.panes]
    pairs = [pair for pair in _PAIRS if {*pair} <= {*names}]
    if not pairs:
        return tag("figure", tag("figcaption", *caption), tag("div", *shown, class_="panes"))
    slider = tag(
        "input",
        type="range",
        min=0,
        max=100,
        step=0.5,
        value=50,
        class_="divider",
        aria_label=f"{sample.name}: how much of the left picture is seen",
        hidden=True,
    )
    return tag(
        "figure",
        tag("figcaption", *caption),
        tag("div", *shown, slider, class_="panes"),
        _choices(number, [*pairs, *((name, name) for name in names if name.startswith("error"))]),
        class_="comparison",
    )


def _pane(sample: Pictures, place: int, times: int) -> Html:
    pane = sample.panes[place]
    width, height = (times * side for side in pane.size)
    picture = tag(
        "img",
        src=pane.uri,
        alt=f"{sample.name}, {pane.name}" if pane.name else sample.name,
        width=width,
        height=height,
        class_="magnified" if times > 1 else None,
    )
    label = tag("em", pane.name) if pane.name else None
    return tag("span", picture, label, class_="pane", data_pane=pane.name)


def _choices(number: int, pairs: Sequence[tuple[str, str]]) -> Html:
    """What can be compared; a pane with itself is that pane alone."""
    labels = []
    for place, (left, right) in enumerate(pairs):
        button = tag(
            "input",
            type="radio",
            name=f"pair-{number}",
            data_left=left,
            data_right=right,
            checked=place == 0,
        )
        labels.append(tag("label", button, left if left == right else f"{left} | {right}"))
    return tag("div", *labels, class_="choices", role="radiogroup", aria_label="What is seen", hidden=True)


def _text(name: str, words: str) -> Html:
    """What was given and, behind `>>>`, what came of it: in a line, or side by side if the first is long."""
    given, arrow, made = words.partition(" >>> ")
    caption = tag("figcaption", tag("b", name))
    if not arrow:
        return tag("figure", caption, tag("pre", words, class_="sample"))
    if len(given) <= _SHORT and "\n" not in given:
        marked = tag("span", given, class_="given"), tag("span", " → ", class_="arrow")
        return tag("figure", caption, tag("pre", *marked, made, class_="sample"))
    boxes = [
        tag("div", tag("h3", title), tag("pre", tag("span", part), class_=f"sample {kind}"))
        for title, part, kind in (("given", given, "given end"), ("network", made, ""))
    ]
    return tag("figure", caption, tag("div", *boxes, class_="beside"))

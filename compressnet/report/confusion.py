"""Which class is taken for which: a table whose cells are the darker the larger the share of their row is."""

from __future__ import annotations

from collections.abc import Sequence

from compressnet.errors import short as cut
from compressnet.report.markup import Html, join, tag

_MOST_CLASSES = 40  # of more a list of what is mixed up most often says more than a table
_MOST_MISTAKES = 30
_SHADES = 10


def table(classes: Sequence[str], counts: Sequence[Sequence[int]]) -> Html:
    """The counts (C, C): a row for each true class, a column for each that was predicted."""
    return _mistakes(classes, counts) if len(classes) > _MOST_CLASSES else _matrix(classes, counts)


def _matrix(classes: Sequence[str], counts: Sequence[Sequence[int]]) -> Html:
    names = [cut(name, 40) for name in classes]
    head = tag(
        "tr", tag("td", "true \\ predicted", class_="quiet"), *(tag("th", n, scope="col") for n in names)
    )
    rows = [
        tag("tr", tag("th", name, scope="row"), *(_cell(count, sum(row)) for count in row))
        for name, row in zip(names, counts, strict=True)
    ]
    caption = "Rows are the true classes; a cell is shaded by its share of the row."
    return _scrolling(caption, tag("table", tag("thead", head), tag("tbody", *rows), class_="confusion"))


def _scrolling(caption: str, table: Html) -> Html:
    scroll = tag("div", table, class_="scroll", tabindex=0, role="region", aria_label=caption)
    return join(tag("p", caption, class_="caption"), scroll)


def _cell(count: int, total: int) -> Html:
    share = count / total if total > 0 else 0.0
    shade = min(_SHADES, max(0, round(_SHADES * share)))
    return tag("td", f"{count:,}", title=f"{share:.1%} of the row", data_shade=shade)


def _mistakes(classes: Sequence[str], counts: Sequence[Sequence[int]]) -> Html:
    mistakes = [
        (count, classes[true], classes[predicted])
        for true, row in enumerate(counts)
        for predicted, count in enumerate(row)
        if count > 0 and predicted != true
    ]
    mistakes.sort(key=lambda mistake: -mistake[0])
    rows = [
        tag(
            "tr",
            tag("th", cut(true, 60), scope="row"),
            tag("td", cut(predicted, 60), class_="word"),
            tag("td", f"{count:,}"),
        )
        for count, true, predicted in mistakes[:_MOST_MISTAKES]
    ]
    head = tag("tr", *(tag("th", name, scope="col") for name in ("true", "predicted", "times")))
    caption = f"What is mixed up most often among {len(classes):,} classes"
    return _scrolling(caption, tag("table", tag("thead", head), tag("tbody", *rows)))

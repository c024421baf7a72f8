"""What a compressed run was made of, and what became of each layer: RUN/compress.json and compress.png."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Annotated

from PIL import Image as PILImage
from pydantic import Field

from compressnet import json_file
from compressnet.data.limits import refuse_many_pixels
from compressnet.data.pillow_files import explained, opened
from compressnet.errors import short as cut
from compressnet.regular_file import open_regular
from compressnet.report.figures import figure, short
from compressnet.report.markup import Html, join, tag
from compressnet.results.forms import Figure
from compressnet.run_files import COMPRESSION, Count

PICTURE = "compress.png"
_MAX_BYTES, _MAX_PIXELS = 2_000_000, 20_000_000  # of the picture
_MOST_ROWS = 200


class Size(json_file.Form):
    """What a layer or network takes."""

    parameters: Count
    bytes: Count
    macs: Count


class Method(json_file.Form):
    """What was done to a layer."""

    method: str
    size: str


class Layer(json_file.Form):
    """A layer, before and after."""

    path: str
    before: Size
    after: Size
    verdict: str
    error: Figure | None
    methods: list[Method]


class Compressed(json_file.Form):
    """compress.json, as far as it is shown."""

    subject: str
    methods: list[str]
    metric: str
    validation: dict[str, Figure]
    before: Size
    after: Size
    layers: Annotated[list[Layer], Field(max_length=10_000)]


def read_compression(folder: Path) -> Compressed | None:
    """None: the run is not of a compressed network.

    Raises:
        CompressnetError: compress.json is damaged.
    """
    path = folder / COMPRESSION
    return json_file.read_form(Compressed, path) if os.path.lexists(path) else None


def read_picture(path: Path) -> str | None:
    """compress.png as a data URI, if it is there, a picture, and no link.

    Raises:
        CompressnetError: it is damaged.
    """
    if path.is_symlink() or not path.is_file() or path.stat().st_size > _MAX_BYTES:
        return None
    with explained(path), opened(path, ("PNG",)) as handle:
        refuse_many_pixels(path, handle.size, _MAX_PIXELS)
        PILImage.Image.load(handle)
    with open_regular(path) as file:
        return f"data:image/png;base64,{base64.b64encode(file.read()).decode()}"


def introduction(found: Compressed) -> Html:
    """What was done to what, and the metric at every stage."""
    methods = join(*(join(", " if n else "", tag("code", cut(m, 200))) for n, m in enumerate(found.methods)))
    stages = ", ".join(f"{cut(s, 40)} {figure(found.metric, v)}" for s, v in found.validation.items())
    what = tag("p", "Made of ", tag("code", cut(found.subject, 300)), " by ", methods, ".")
    metric = cut(found.metric.replace("_", " "), 80)
    return join(what, tag("p", f"{metric} on validation data: {stages}.") if stages else None)


def rows(found: Compressed) -> list[Html]:
    """A row for each layer, and one for the network."""
    made = [
        _row(
            layer.path,
            ", ".join(f"{one.method} ({one.size})" for one in layer.methods),
            layer.before,
            layer.after,
            layer.verdict,
            "-" if layer.error is None else f"{float(layer.error):.3f}",
        )
        for layer in found.layers[:_MOST_ROWS]
    ]
    return [*made, _row("network", "", found.before, found.after, "", "")]


HEAD = ("layer", "method", "parameters", "MACs", "times as fast [95 %]", "error")


def _row(name: str, how: str, before: Size, after: Size, verdict: str, error: str) -> Html:
    return tag(
        "tr",
        tag("th", cut(name, 200), scope="row"),
        tag("td", cut(how, 200), class_="word"),
        tag("td", f"{before.parameters:,} > {after.parameters:,}"),
        tag("td", f"{short(before.macs)} > {short(after.macs)}"),
        tag("td", cut(verdict, 80)),
        tag("td", error),
    )

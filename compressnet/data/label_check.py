"""What `data check` tells of label maps: faults of files are problems; shares of classes, and more, notes.

train: 367 pairs of 480x360
Sky (value 0): 16.85 % of train, in 366 pictures; 9.18 % of val, in 101 pictures
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

import numpy as np

from compressnet.data.label_classes import LabelClasses
from compressnet.data.label_split import LabelPair, Looked, look_at, look_at_headers
from compressnet.errors import named
from compressnet.reporter import Reporter, Silent

_NAMED = 3  # sizes of a note
_MUCH = 0.5  # of all pixels: with more that are ignored, the class file may be that of other labels


def check_pairs(
    parts: Mapping[str, Sequence[LabelPair]],
    stored: LabelClasses,
    headers: bool,
    reporter: Reporter | None,
) -> list[str]:
    """Look at every pair.

    Args:
        parts: of each split.
        stored: what the values of the labels mean.
        headers: look at headers alone; nothing is counted.
        reporter: told of sizes and classes.

    Returns:
        one line for each fault of a file.
    """
    reporter = reporter or Silent()
    _tell_shared(parts, reporter)
    if headers:
        return [line for pairs in parts.values() for pair in pairs for line in look_at_headers(pair)]
    problems: list[str] = []
    found: dict[str, list[Looked]] = {}
    for split, pairs in parts.items():
        found[split] = look_at(pairs, stored, reporter)
        problems += [problem for one in found[split] for problem in one.problems]
    if not problems:
        _tell_sizes(found, reporter)
        _tell_classes(found, stored, reporter)
    return problems


def _tell_sizes(found: Mapping[str, Sequence[Looked]], reporter: Reporter) -> None:
    for split, looked in found.items():
        sizes = Counter(f"{one.size[0]}x{one.size[1]}" for one in looked if one.size is not None)
        texts = [
            f"{size} ({count:,})" if len(sizes) > 1 else size for size, count in sizes.most_common(_NAMED)
        ]
        more = f" and {len(sizes) - _NAMED:,} more sizes" if len(sizes) > _NAMED else ""
        reporter.note(
            "info",
            f"{split}: {len(looked):,} pair{'s' if len(looked) > 1 else ''} of {', '.join(texts)}{more}",
        )


def _tell_classes(found: Mapping[str, Sequence[Looked]], stored: LabelClasses, reporter: Reporter) -> None:
    """Each class's share of all pixels, and in how many pictures it is."""
    counts = {split: np.stack([one.pixels for one in looked]) for split, looked in found.items() if looked}
    names = [f"{name} (value {id})" for name, id in zip(stored.names, stored.ids, strict=True)]
    ignored = ", ".join(map(str, stored.ignored_ids)) or "none"
    plural = "s" if len(stored.ignored_ids) > 1 else ""
    for output, name in enumerate([*names, f"ignored (value{plural} {ignored})"]):
        texts, absent = [], []
        for split, pixels in counts.items():
            pictures = int((pixels[:, output] > 0).sum())
            if pictures:
                share = pixels[:, output].sum() / pixels.sum()
                if output == len(stored) and share > _MUCH:
                    reporter.note("warning", _much_ignored(100 * share, split, stored))
                plural = "s" if pictures > 1 else ""
                texts.append(f"{100 * share:.2f} % of {split}, in {pictures:,} picture{plural}")
            else:
                absent.append(split)
        if absent and output < len(names):
            reporter.note("warning", f"{name}: absent from {' and '.join(absent)}")
        if texts:
            reporter.note("info", f"{name}: {'; '.join(texts)}")


def _much_ignored(percent: float, split: str, stored: LabelClasses) -> str:
    return (
        f"{percent:.0f} % of the pixels of {split} are ignored, neither learnt nor scored: "
        f"is {stored.source} the class file of these labels?"
    )


def _tell_shared(parts: Mapping[str, Sequence[LabelPair]], reporter: Reporter) -> None:
    """Photographs that two splits have: what is measured on them says nothing."""
    names = {split: {PurePosixPath(pair.name).name for pair in pairs} for split, pairs in parts.items()}
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        if both := sorted(names.get(one, set()) & names.get(other, set())):
            text = f"{len(both):,} of the names in {one} also in {other}, such as {named(both[0])}"
            reporter.note("warning", f"{text}: what is measured on what was trained on says nothing")

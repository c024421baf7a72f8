"""Tables of records within pages that people write: README.md and docs/.

<!-- results: lm_ptb_* (made by `make results`) -->      the tables of these records (patterns of names)
<!-- results: systems (made by `make results`) -->       one row a system: `SYSTEMS`
...
<!-- results: end -->

Of patterns there may be no record yet: the place says so, and is filled by the first one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from compressnet import files
from compressnet.card import marks
from compressnet.errors import CompressnetError
from compressnet.results import compression, evaluations, pages, speed
from compressnet.results.records import markdown, read_published, read_records

END = "<!-- results: end -->"
_BLOCK = re.compile(
    r"(<!-- results: ([^\n]+?) \(made by `make results`\) -->\n).*?(?=<!-- results: end -->)", re.DOTALL
)
_LINK = re.compile(r"\[([^\]\n]+)\]\(results/[^)\n]+\)")

Record = Mapping[str, Any]


class System(NamedTuple):
    """A row of README's table.

    Attributes:
        records: a pattern of names; the row shows the mean of the seeds.
        metric, unit: what is shown.
        measured: on what.
    """

    name: str
    page: str
    command: str
    records: str
    metric: str
    unit: str
    measured: str


SYSTEMS = (
    System(
        "Fast image processing (CAN)",
        "docs/systems/fast_image_processing.md",
        "compressnet train fip_photos",
        "rof_zoo",
        "psnr",
        "dB",
        "ROF smoothing of photographs",
    ),
    System(
        "Image classification (ResNet)",
        "docs/systems/image_classification.md",
        "compressnet train cls_sample",
        "cls_sample",
        "accuracy",
        "accuracy",
        "ten drawn letters in unseen fonts",
    ),
    System(
        "Keyword spotting (SVDF)",
        "docs/systems/speech.md",
        "compressnet train speech_svdf_stacked",
        "speech_svdf_stacked_seed*",
        "accuracy",
        "accuracy",
        "a part of Speech Commands, split by us",
    ),
    System(
        "Segmentation (ShuffleSeg)",
        "docs/systems/segmentation.md",
        "compressnet train seg_camvid",
        "seg_camvid",
        "mIoU",
        "mIoU",
        "CamVid, from scratch, 367 frames",
    ),
    System(
        "LSTM language model",
        "docs/systems/language_models.md",
        "compressnet train lm_ptb_lstm",
        "lm_ptb_lstm_seed*",
        "perplexity",
        "perplexity",
        "Penn Treebank",
    ),
    System(
        "LSTMP: LSTM with projection",
        "docs/systems/lstmp.md",
        "compressnet train lm_ptb_lstmp",
        "lm_ptb_lstmp",
        "perplexity",
        "perplexity",
        "Penn Treebank",
    ),
    System(
        "SRU: simple recurrent unit",
        "docs/systems/sru.md",
        "compressnet train sentences_sru",
        "sentences_trec_sru_*",
        "accuracy",
        "accuracy",
        "TREC questions",
    ),
    System(
        "ByteNet",
        "docs/systems/language_models.md",
        "compressnet train lm_shakespeare_bytenet",
        "lm_shakespeare_bytenet",
        "bits_per_character",
        "bits per character",
        "tinyshakespeare",
    ),
    System(
        "LSTM of 1997",
        "docs/systems/lstm_1997.md",
        "compressnet train lstm_1997_tasks",
        "lstm_1997_adding_seed*",
        "wrong",
        "of sequences wrong",
        "adding problem",
    ),
)


def write_pages(folder: Path) -> list[Path]:
    """Write RESULTS.md beside `folder`, and the tables within README.md and docs/.

    Returns:
        the written files.

    Raises:
        CompressnetError: a page has lost a mark, or names records that are not there.
    """
    records, published = read_records(folder), read_published(folder)
    root = folder.absolute().parent
    texts = {root / "RESULTS.md": pages.results_page(records, published)}
    for path in [root / "README.md", *sorted((root / "docs").rglob("*.md"))]:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        if "<!-- results: " in text:
            texts[path] = filled(text, path.relative_to(root).as_posix(), records, published)
    for path, text in texts.items():
        files.write_text(path, text)
    return list(texts)


def filled(text: str, source: str, records: Sequence[Record], published: Sequence[Record]) -> str:
    """A page's text with the tables between its marks made anew.

    Args:
        source: what to call the page in messages.

    Raises:
        CompressnetError: no record has such a name, or a mark is not closed.
    """
    if text.count("<!-- results: ") != 2 * len(_BLOCK.findall(text)):
        raise CompressnetError(f"{source}: has lost the marks of a table of results, '{END}' one of them")

    def table(found: re.Match[str]) -> str:
        what = found[2]
        try:
            made = _systems(records, published) if what == "systems" else _tables(what, records, published)
        except LookupError as error:
            raise CompressnetError(f"{source}: there is no record {error.args[0]}") from None
        return f"{found[1]}{_linked_from(source, made).strip()}\n"

    return _BLOCK.sub(table, text)


def _linked_from(source: str, table: str) -> str:
    """Links as they are followed from a page: records are no pages of the manual."""
    if not source.startswith("docs/"):
        return table
    return _LINK.sub(r"\1", table).replace("](docs/", f"]({'../' * (source.count('/') - 1)}")


def _matching(pattern: str, records: Sequence[Record]) -> list[Record]:
    """The records that a pattern names; a plain name has one.

    Raises:
        LookupError: it has none.
    """
    found = [record for record in records if fnmatchcase(record["name"], pattern)]
    if not found and "*" not in pattern:
        raise LookupError(pattern)
    return found


def _tables(patterns: str, records: Sequence[Record], published: Sequence[Record]) -> str:
    chosen = {r["name"]: r for pattern in patterns.split() for r in _matching(pattern, records)}
    if not chosen:
        return "No records yet."
    timed = [record for record in chosen.values() if speed.is_speed(record)]
    small = [record for record in chosen.values() if compression.is_compression(record)]
    others = [record for record in chosen.values() if record not in timed and record not in small]
    images = [record for record in others if not evaluations.is_other(record)]
    parts = [pages.images_table(images, records, published)] if images else []
    parts += evaluations.summary(others, published, seeds=False) if others else []
    parts += [compression.table(small)] if small else []
    parts += [part.replace("## Speed\n\n", "") for part in speed.sections(timed)] if timed else []
    return "\n\n".join(part.strip() for part in parts)


def _systems(records: Sequence[Record], published: Sequence[Record]) -> str:
    head = ["system", "train it", "parameters", "here", "the paper's", "measured on"]
    notes: list[str] = []
    rows = [_row(system, records, published, notes) for system in SYSTEMS]
    footnotes = "".join(f"\n\n[^paper-{number}]: {text}" for number, text in enumerate(notes, 1))
    return markdown(head, rows) + footnotes


def _row(
    system: System, records: Sequence[Record], published: Sequence[Record], notes: list[str]
) -> list[str]:
    group = _matching(system.records, records)
    name, command = f"[{system.name}]({system.page})", f"`{system.command}`"
    if not group:
        return [name, command, "-", "no records yet", "-", system.measured]
    figures = [float(record["metrics"][system.metric]) for record in group]
    mean = sum(figures) / len(figures)
    theirs = "-"
    if known := pages.published_figure(group[0], system.metric, records, published):
        notes.append(known[1])
        theirs = f"{known[0]} [^paper-{len(notes)}]"
    return [
        name,
        command,
        f"{group[0]['parameters']:,}",
        f"**{mean:.{_digits(mean)}f}** {system.unit}",
        theirs,
        system.measured + marks(group[0]["data"]) + (f", {len(group)} seeds" if len(group) > 1 else ""),
    ]


def _digits(value: float) -> int:
    return 1 if value >= 10 else 3

"""What is odd about clips of words: what cannot be used is a problem, of the rest a note is made.

files -> headers: rate, length -> samples: loudness      problems: a line each
names -> speakers                                        notes: `4 clips (a, b, c and 1 more) are silent`
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from compressnet.data import audio
from compressnet.data.speech_tree import SPLITS, Clip, Tree
from compressnet.errors import CompressnetError, named
from compressnet.reporter import Reporter

_FEW = 100  # clips of a word
_NAMED = 3  # files of a note
_AT_LIMITS = 0.001  # share of the samples at full scale from which a clip counts as clipped
_FULL = 1 - 2 / audio.FULL_SCALE
_QUIET = 1e-3  # the loudest sample, below which a clip counts as silent


def shared_speakers(tree: Tree) -> list[str]:
    """One line for each two splits that share speakers, where names of files tell them."""
    speakers = {
        split: {speaker for clip in clips if (speaker := clip.speaker)} for split, clips in tree.clips.items()
    }
    pairs = [(one, other) for number, one in enumerate(SPLITS) for other in SPLITS[number + 1 :]]
    found = []
    for one, other in pairs:
        if both := sorted(speakers.get(one, set()) & speakers.get(other, set())):
            found.append(
                f"{_listed(both, 'speaker')} in both {one} and {other}: what is measured says nothing of new "
                "voices: move the clips of each speaker to one side"
            )
    return found


def faults(
    clips: list[Clip], noise: list[Path], headers: bool, clip_ms: int, rate: int, reporter: Reporter
) -> list[str]:
    """One line for each file that cannot be used; what is odd of the others is told to `reporter`."""
    bad: list[str] = []
    odd: dict[str, list[str]] = {
        f"not of {rate:,} Hz: resampled": [],
        f"longer than data.clip_ms={clip_ms}: cut": [],
        f"shorter than half of data.clip_ms={clip_ms}: filled up with zeros": [],
        "clipped: recorded too loud": [],
        "without a sound": [],
    }
    other_rate, long, short, clipped, silent = odd.values()
    reporter.stage("reading", len(clips) + len(noise), "files")
    for name, path in [(clip.name, clip.path) for clip in clips] + [(path.name, path) for path in noise]:
        reporter.advance()
        try:
            header = audio.audio_header(path)
            samples = None if headers else audio.read_audio(path).samples
        except CompressnetError as error:
            bad.append(str(error))
            continue
        if header.rate != rate:
            other_rate.append(name)
        if path in noise:
            continue
        length = header.frames * 1000 / header.rate
        (long if length > clip_ms else short if length < clip_ms / 2 else []).append(name)
        if samples is not None:
            peak = np.abs(samples)
            if (peak >= _FULL).mean() > _AT_LIMITS:
                clipped.append(name)
            if peak.max() < _QUIET:
                silent.append(name)
    for what, names in odd.items():
        tell(reporter, what, names)
    return bad


def tell_few(clips: Sequence[Clip], words: Sequence[str], reporter: Reporter) -> None:
    """Note which words have too few clips to be learned well."""
    each = Counter(clip.word for clip in clips)
    few = [word for word in words if 0 < each[word] < _FEW]
    tell(reporter, f"with fewer than {_FEW} clips", few, "word")


def tell(reporter: Reporter, what: str, names: Sequence[str], unit: str = "clip") -> None:
    """Note what files have in common, if there are any."""
    if len(names):
        reporter.note("warning", f"{_listed(names, unit)} {what}")


def _listed(names: Sequence[str], unit: str) -> str:
    """`4 clips (a, b, c and 1 more)`."""
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return f"{len(names):,} {unit}{'s' * (len(names) > 1)} ({', '.join(map(named, names[:_NAMED]))}{more})"

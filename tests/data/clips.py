"""Small films, made with PyAV for the tests of what reads them, and read again with nothing of ours."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np

RATE = 10
SOUND_HZ = 16_000


class Seen(NamedTuple):
    """What a player sees of a film.

    Attributes:
        frames: uint8 (H, W, 3) each.
        starts: seconds, of each.
        ends: seconds, the end of the last one.
        sound: the packets of the first stream of sound, as they are stored.
    """

    frames: list[np.ndarray]
    starts: list[float]
    ends: float
    sound: list[bytes]


def picture(number: int, size: tuple[int, int] = (64, 48)) -> np.ndarray:
    """Frame `number` of width and height `size`: brighter each time, red on the left, blue on the right."""
    width, height = size
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0] = 100 + 10 * number
    pixels[:, width // 2 :, 2] = 100 + 10 * number
    return pixels


def film(
    path: Path,
    frames: Sequence[np.ndarray] | None = None,
    starts: Sequence[int] | None = None,
    sound: str = "",
    matrix: Sequence[int] | None = None,
    codec: str = "libx264",
    shape: Fraction | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Write a film of ten pictures, or others.

    Args:
        starts: in tenths of a second.
        sound: the encoder of a tone as long as the film; empty: none.
        matrix: nine numbers, 16.16: how players turn it.
        shape: width by height of a pixel.
        options: of the container.
    """
    frames = [picture(number) for number in range(10)] if frames is None else frames
    starts = range(len(frames)) if starts is None else starts
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=options or {}) as container:
        stream: Any = container.add_stream(codec, rate=RATE)
        stream.height, stream.width = frames[0].shape[:2] if len(frames) else (48, 64)
        stream.codec_context.time_base = Fraction(1, RATE)
        stream.codec_context.pix_fmt = "yuv420p"
        if codec == "libx264":
            stream.codec_context.pix_fmt = "yuv444p"  # colours as sharp as what is compared with them
            stream.codec_context.options = {"crf": "4", "preset": "ultrafast"}
        if matrix:
            stream.set_display_matrix(list(matrix))
        if shape:
            stream.codec_context.sample_aspect_ratio = shape
        voice: Any = container.add_stream(sound, rate=SOUND_HZ) if sound else None
        container.start_encoding()
        for start, pixels in zip(starts, frames, strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = start, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None) if len(frames) else [])
        if voice:
            container.mux([*voice.encode(tone(max(starts, default=9) + 1, voice)), *voice.encode(None)])
    return path


def tone(tenths: int, voice: Any) -> av.AudioFrame:
    """440 Hz."""
    time = np.arange(tenths * SOUND_HZ // RATE) / SOUND_HZ
    samples = (0.3 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)
    layout = voice.codec_context.layout.name
    frame = av.AudioFrame.from_ndarray(np.tile(samples, (2 if layout == "stereo" else 1, 1)), "fltp", layout)
    frame.sample_rate, frame.pts, frame.time_base = SOUND_HZ, 0, Fraction(1, SOUND_HZ)
    return frame


def sound_alone(path: Path) -> Path:
    """A second of sound in a container of films."""
    with av.open(str(path), "w") as container:
        voice: Any = container.add_stream("aac", rate=SOUND_HZ)
        container.mux([*voice.encode(tone(RATE, voice)), *voice.encode(None)])
    return path


def seen(path: Path) -> Seen:
    """Decode a film, which must have no error."""
    with av.open(str(path)) as container:
        base = container.streams.video[0].time_base
        assert base is not None
        decoded = [
            (frame.to_ndarray(format="rgb24"), float(frame.pts * base), float(frame.duration * base))
            for frame in container.decode(video=0)
            if frame.pts is not None
        ]
        has_sound = bool(container.streams.audio)
    pictures, starts, lengths = (list(column) for column in zip(*decoded, strict=True))
    packets: list[bytes] = []
    if has_sound:
        with av.open(str(path)) as container:
            packets = [bytes(packet) for packet in container.demux(audio=0) if packet.size]
    return Seen(pictures, starts, starts[-1] + lengths[-1], packets)

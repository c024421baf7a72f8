"""Clips made of clips: every frame changed, times and sound as they were.

    Clip -> Frame -> change -> H.264, yuv420p --+
         -> packets of sound, not decoded ------+--> file

Sides of H.264 are even: others are padded at the right and the bottom with their last pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import numpy as np
import torch

from compressnet.data.video import Clip, Frame, reason, video_library
from compressnet.errors import CompressnetError, CutShort
from compressnet.reporter import Reporter

if TYPE_CHECKING:
    from av import Packet
    from av.container import OutputContainer
    from av.stream import Stream
    from av.video.stream import VideoStream

_FORMATS = {".mp4": "mp4", ".mkv": "matroska", ".mov": "mov", ".m4v": "mp4"}
CLIP_SUFFIXES = tuple(_FORMATS)
"""What can be written."""
Change = Callable[[np.ndarray], np.ndarray]
# Nearly what the source shows; "veryfast" looks 10 frames ahead, where the default keeps 40 in memory.
_ENCODER = {"crf": "18", "preset": "veryfast"}
_MATRICES = (1, 5, 6, 7, 9)  # of colour, those that swscale can make: BT.709, BT.601 twice, 240M, BT.2020
_UNKNOWN = 2


@dataclass
class Redrawn:
    """What came of a clip.

    Attributes:
        frames, seconds: that were written.
        lost: what the result has not, one phrase each.
        cut_short: why it ends before the clip should.
    """

    frames: int = 0
    seconds: float = 0.0
    lost: list[str] = field(default_factory=list)
    cut_short: CutShort | None = None


def redraw(clip: Clip, path: Path, change: Change, reporter: Reporter) -> Redrawn:
    """Write a clip of what `change` makes of each frame.

    Args:
        path: with one of `CLIP_SUFFIXES`.
        change: uint8 (H, W, 3) to uint8 (h, w, 3), or (h, w) gray; of one size.

    Raises:
        OSError: the file cannot be written.
        CompressnetError: no frame can be decoded, another suffix, this PyAV cannot encode H.264.
    """
    suffix = path.suffix.lower()
    if suffix not in _FORMATS:
        raise CompressnetError(f"{path}: cannot write clips in this format; use one of {' '.join(_FORMATS)}")
    from av.error import FFmpegError

    done = Redrawn()
    reporter.stage(clip.name, clip.length, "frames")
    with path.open("w+b") as file:
        made = _ClipFile(clip, file, _FORMATS[suffix])
        try:
            done.cut_short = _draw(clip, made, change, reporter)
            made.close()
        except FFmpegError as error:
            raise CompressnetError(f"{clip.name}: cannot be written as {suffix}: {reason(error)}") from error
    done.frames, done.seconds, done.lost = clip.frames, clip.seconds, made.lost
    if clip.damaged:
        done.lost.append(f"{clip.damaged} frames are damaged in the clip, and mended as its decoder does")
    if clip.length and clip.frames < clip.length and not done.cut_short:
        done.lost.append(
            f"{clip.frames} of the {clip.length} frames that the clip says to have could be decoded"
        )
    return done


def _draw(clip: Clip, made: _ClipFile, change: Change, reporter: Reporter) -> CutShort | None:
    try:
        for item in clip.read():
            if isinstance(item, Frame):
                made.show(change(item.pixels), item)
                reporter.advance()
            else:
                made.sound(item)
    except CutShort as error:
        return error
    return None


class _ClipFile:
    """The file that is written. It is begun with the first frame, whose size decides."""

    def __init__(self, clip: Clip, file: BinaryIO, container_format: str) -> None:
        self._clip, self._file, self._format = clip, file, container_format
        self._container: OutputContainer | None = None
        self._waiting: list[Packet] = []
        self._sound: dict[Stream, Stream] = {}
        self._heard: dict[Stream, int] = {}
        many = clip.subtitles
        self.lost = [f"{many} stream{'s' if many > 1 else ''} of subtitles left out"] if many else []

    def show(self, pixels: np.ndarray, frame: Frame) -> None:
        """Encode a picture at the time of a frame."""
        from av import VideoFrame

        pixels = padded(pixels)
        if self._container is None:
            self._begin(pixels.shape[1], pixels.shape[0])
        picture = VideoFrame.from_ndarray(pixels, format="gray" if pixels.ndim == 2 else "rgb24")
        picture = self._reformatter.reformat(
            picture, format="yuv420p", dst_colorspace=self._matrix, dst_color_range=1
        )
        picture.pts, picture.duration, picture.time_base = frame.start, frame.duration, self._clip.time_base
        self._mux(self._stream.encode(picture))

    def sound(self, packet: Packet) -> None:
        """Copy a packet. One whose time does not follow the last one's, no format can hold: it is dropped."""
        if self._container is None:
            self._waiting.append(packet)
            return
        stream = self._sound.get(packet.stream)
        if stream is None or packet.dts is None:
            return
        if packet.dts <= self._heard.get(packet.stream, packet.dts - 1):
            return
        self._heard[packet.stream] = packet.dts
        packet.stream = stream
        self._mux([packet])

    def close(self) -> None:
        """Write what the encoder holds back, and the index."""
        if self._container is not None:
            self._mux(self._stream.encode(None))
            self._container.close()

    def _begin(self, width: int, height: int) -> None:
        from av.error import FFmpegError

        sound = self._clip.sound
        try:
            self._open(width, height, sound)
        except FFmpegError:
            if not self._sound:
                raise
            self._file.seek(0)
            self._file.truncate()
            self._open(width, height, [])
        missing = [stream for stream in sound if stream not in self._sound]
        if missing:
            codecs = {s.codec_context.name if s.codec_context else "an unknown codec" for s in missing}
            which = (
                "sound" if len(missing) == len(sound) else f"{len(missing)} of {len(sound)} streams of sound"
            )
            self.lost.append(f"{which} left out: {self._format} cannot hold {', '.join(sorted(codecs))}")
        waiting, self._waiting = self._waiting, []
        for packet in waiting:
            self.sound(packet)

    def _open(self, width: int, height: int, sound: list[Stream]) -> None:
        from av.codec.context import Flags
        from av.video.reformatter import VideoReformatter

        clip = self._clip
        self._container = container = video_library().open(self._file, "w", format=self._format)
        assert self._container is not None
        self._stream = cast("VideoStream", container.add_stream(_encoder(), rate=clip.rate))
        context = self._stream.codec_context
        context.width, context.height, context.pix_fmt = width, height, "yuv420p"
        context.time_base, context.options = clip.time_base, dict(_ENCODER)
        context.flags |= Flags.frame_duration
        context.thread_count = torch.get_num_threads()
        primaries, transfer, matrix = clip.colours
        self._matrix = matrix if matrix in _MATRICES else 5
        context.color_primaries, context.color_trc = primaries, transfer
        context.colorspace = matrix if matrix in _MATRICES else _UNKNOWN
        context.color_range = 1  # 16 to 235
        if clip.pixel_shape:
            context.sample_aspect_ratio = clip.pixel_shape
        self._sound = {}
        for voice in sound:
            with suppress(ValueError):  # of a codec that this format cannot hold
                if voice.codec_context is not None:
                    self._sound[voice] = container.add_stream_from_template(voice)
        self._reformatter = VideoReformatter()
        container.start_encoding()

    def _mux(self, packets: list[Packet]) -> None:
        assert self._container is not None
        self._container.mux(packets)


def padded(pixels: np.ndarray) -> np.ndarray:
    """Pixels (H, W) or (H, W, 3) with even sides: the last row and column are repeated."""
    height, width = (side % 2 for side in pixels.shape[:2])
    if not height and not width:
        return pixels
    return np.pad(pixels, [(0, height), (0, width), (0, 0)][: pixels.ndim], mode="edge")


def _encoder() -> str:
    av = video_library()
    if "libx264" not in av.codecs_available:
        raise CompressnetError("this PyAV cannot encode H.264: install the one of PyPI, `pip install av`")
    return "libx264"

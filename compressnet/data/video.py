"""Clips, read frame by frame through PyAV, an optional extra.

    file -> packets --+-- video -> decoded -> turned upright -> Frame, uint8 (H, W, 3) RGB
                      +-- sound ------------------------------> as it is stored

Nothing but the frames at hand is kept. Of a stream that breaks off comes what was decoded until then, and an
error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, cast

import numpy as np
import torch

from compressnet.data.limits import MAX_PIXELS, refuse_many_pixels
from compressnet.errors import CompressnetError, CutShort

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.container import InputContainer
    from av.stream import Stream
    from av.video.stream import VideoStream

# A stranger's file may be a list of other files: that is not opened. Sound is, to say that it is no clip.
_FORMATS = """
mov mp4 m4a 3gp matroska webm avi mpeg mpegts mpegvideo h264 hevc m4v flv asf ogg gif yuv4mpegpipe
wav mp3 aac flac aiff au
"""
_DECLARING = {"mov", "avi"}  # tell how many frames there are
_RATE = Fraction(25)  # of a stream that does not tell its own


class Frame(NamedTuple):
    """One picture of a clip.

    Attributes:
        pixels: uint8 (H, W, 3), upright.
        start, duration: in units of the clip's `time_base`.
    """

    pixels: np.ndarray
    start: int
    duration: int


def video_library() -> Any:
    """PyAV.

    Raises:
        CompressnetError: it is not installed.
    """
    try:
        import av
    except ImportError:
        raise CompressnetError(
            "clips need PyAV: install the extra with `pip install 'compressnet[video]'`"
        ) from None
    return av


@contextmanager
def open_clip(file: BinaryIO, name: str) -> Iterator[Clip]:
    """Open a clip.

    Args:
        file: can be wound back.
        name: for messages.

    Raises:
        CompressnetError: PyAV is missing, the file is damaged or holds no pictures.
    """
    try:
        av = video_library()
    except CompressnetError as error:
        raise CompressnetError(f"{name}: {error}") from None
    try:
        known = {"format_whitelist": ",".join(_FORMATS.split())}
        container = av.open(file, options=known, metadata_errors="replace")  # titles need not be UTF-8
    except (av.error.FFmpegError, OSError) as error:
        raise CompressnetError(
            f"{name}: no clip that can be read: {reason(error)} (damaged, or cut off)"
        ) from None
    with container:
        yield Clip(container, name)


class Clip:
    """A clip, open to be read once.

    Attributes:
        name: of the file, for messages.
        time_base: seconds a unit of time.
        rate: frames a second, on average.
        length: how many frames it says to have; None: it does not say.
        frames, seconds: how many were read until now, and where the last of them ends, from the first on.
        damaged: how many of them the decoder had to mend.
    """

    def __init__(self, container: InputContainer, name: str) -> None:
        from av.stream import Disposition

        self.name = name
        self._container = container
        streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        if not streams:
            what = "only sound" if container.streams.audio else "no pictures"
            raise CompressnetError(f"{name}: no clip: there is {what} in it")
        self._stream: VideoStream = streams[0]
        context = self._stream.codec_context
        if context is None:
            raise CompressnetError(f"{name}: its pictures are in a format that cannot be decoded")
        refuse_many_pixels(Path(name), (context.width, context.height), MAX_PIXELS)
        context.options = {"max_pixels": str(MAX_PIXELS)}  # frames may be larger than the header says
        context.thread_count = torch.get_num_threads()
        self.time_base = self._stream.time_base or Fraction(1, 90_000)
        self.rate = self._stream.average_rate or self._stream.guessed_rate or _RATE
        self.length = self._stream.frames or None
        self.frames, self.damaged = 0, 0
        self._packets, self._heard = 0, 0.0
        self._first = self._last = self._end = 0
        self._held: VideoFrame | None = None
        self._upright = Upright()

    @property
    def seconds(self) -> float:
        return float((self._end - self._first) * self.time_base)

    @property
    def pixel_shape(self) -> Fraction | None:
        """Width by height of a pixel, upright; None: they are squares."""
        shape = self._stream.sample_aspect_ratio
        if not shape or shape == 1:
            return None
        return 1 / shape if self._upright.swaps else shape

    @property
    def colours(self) -> tuple[int, int, int]:
        """As H.264 numbers them: primaries, transfer, matrix; 2 where they are not told."""
        context = self._stream.codec_context
        return int(context.color_primaries), int(context.color_trc), int(context.colorspace)

    @property
    def sound(self) -> list[Stream]:
        """The streams whose packets `read` gives."""
        return list(self._container.streams.audio)

    @property
    def subtitles(self) -> int:
        """How many streams of these there are; they are not read."""
        return len(self._container.streams.subtitles)

    def pictures(self) -> Iterator[Frame]:
        """The frames alone; see `read`."""
        return (item for item in self.read() if isinstance(item, Frame))

    def read(self) -> Iterator[Frame | Packet]:
        """The frames in the order of time, and between them the packets of sound.

        Raises:
            CutShort: the stream breaks off; what was decoded until then has been given.
            CompressnetError: no frame can be decoded.
        """
        wrong = None
        for item in self._items():
            if isinstance(item, str):
                wrong = item
            else:
                yield item
        if not self.frames:
            raise CompressnetError(
                f"{self.name}: no frame can be decoded: {wrong or 'there is none in its stream'}"
            )
        wrong = wrong or self._lack()
        if wrong:
            read = f"{self.frames} frames ({self.seconds:.2f} s)"
            raise CutShort(f"{self.name}: the clip breaks off after {read}: {wrong}")

    def _items(self) -> Iterator[Frame | Packet | str]:
        """What `read` gives, and last the reason why there is no more, if that is not the end."""
        from av.error import FFmpegError

        wrong = None
        packets = self._container.demux()
        while True:
            try:
                packet = next(packets, None)
                if packet is None:
                    break
                self._note(packet)
                if packet.stream is not self._stream:
                    if packet.stream.type == "audio" and packet.dts is not None:
                        yield packet
                    continue
                if packet.is_corrupt:
                    wrong = "a part of the file is missing"
                    break
                for frame in self._stream.decode(packet):
                    yield from self._before(frame)
            except (FFmpegError, OSError) as error:
                wrong = reason(error)
                if self._held is not None:  # a stream may begin with what refers to pictures before it
                    break
        yield from self._left()
        if wrong:
            yield wrong

    def _left(self) -> Iterator[Frame]:
        """What the decoder holds back where a stream breaks off, as it waits for later packets; the last."""
        from av.error import FFmpegError

        with suppress(FFmpegError):
            for frame in self._stream.decode(None):
                yield from self._before(frame)
        if self._held is not None:
            yield self._framed(self._held)
            self._held = None

    def _before(self, frame: VideoFrame) -> Iterator[Frame]:
        """The frame before this one. Times in the order of decoding (AVI) are put in that of showing."""
        held, self._held = self._held, frame
        if held is None:
            return
        if held.pts is not None and frame.pts is not None and frame.pts < held.pts:
            held.pts, frame.pts = frame.pts, held.pts
        yield self._framed(held)

    def _note(self, packet: Packet) -> None:
        if packet.size and packet.stream is self._stream:
            self._packets += 1
        if packet.pts is not None and packet.time_base:
            self._heard = max(self._heard, float((packet.pts + (packet.duration or 0)) * packet.time_base))

    def _lack(self) -> str:
        """What is missing of a file that ends where a packet does."""
        from av import time_base

        formats = set(self._container.format.name.split(","))
        if self.length and formats & _DECLARING and self._packets + 1 < 0.99 * self.length:
            return f"it says to have {self.length}"
        if "matroska" in formats and self._container.duration:
            begin = (self._container.start_time or 0) / time_base
            said = self._container.duration / time_base
            if self._heard - begin < 0.99 * said - 0.1:
                return f"it says to last {said:.2f} s"
        return ""

    def _framed(self, frame: VideoFrame) -> Frame:
        start = self._end if frame.pts is None else frame.pts
        if self.frames:
            start = max(start, self._last + 1)
        else:
            self._first = start
        step = frame.duration or max(1, round(1 / (self.rate * self.time_base)))
        self._last, self._end = start, start + step
        self.frames += 1
        self.damaged += frame.is_corrupt
        return Frame(self._upright(frame), start, step)


class Upright:
    """Decoded frames to RGB, turned and mirrored as the file says, all of the first one's size.

    Attributes:
        swaps: whether width and height change places.
    """

    def __init__(self) -> None:
        from av.video.reformatter import VideoReformatter

        self._reformatter = VideoReformatter()
        self._size: tuple[int, int] | None = None
        self._turn: Callable[[np.ndarray], np.ndarray] = lambda pixels: pixels
        self.swaps = False

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        if self._size is None:
            self._size = frame.width, frame.height
            found = frame.side_data.get("DISPLAYMATRIX")
            if found is not None:
                self._turn, self.swaps = turn(
                    np.frombuffer(bytes(cast("Any", found)), np.int32).reshape(3, 3)
                )
        width, height = self._size
        return self._turn(self._reformatter.reformat(frame, width, height, "rgb24").to_ndarray())


def turn(matrix: np.ndarray) -> tuple[Callable[[np.ndarray], np.ndarray], bool]:
    """What a display matrix says: pixels (H, W, 3) to upright ones, and whether the sides are swapped.

    Args:
        matrix: (3, 3), of which (x, y, 1) @ matrix is where a point is shown; of other angles than right ones
            the nearest is taken.
    """
    (a, b), (c, d) = matrix[:2, :2].tolist()
    swaps = abs(b) > abs(a)
    across, down = (c, b) if swaps else (a, d)

    def turned(pixels: np.ndarray) -> np.ndarray:
        shown = pixels.transpose(1, 0, 2) if swaps else pixels
        shown = shown[:, ::-1] if across < 0 else shown
        shown = shown[::-1] if down < 0 else shown
        return np.ascontiguousarray(shown)

    return turned, swaps


def reason(error: Exception) -> str:
    """The library's or the system's words."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text[:1].lower() + text[1:]

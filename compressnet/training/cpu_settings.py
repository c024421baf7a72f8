"""What a process does to compute faster on a CPU: a switch of torch's float32 matmul, and glibc's malloc.

Both are settings of the whole process. Importing the library changes neither: a program that owns its
process asks `decide` and calls `apply`, as the command line does before it makes the first large tensor.

matmul fast     `torch.backends.mkldnn.matmul.fp32_precision = "bf16"` sends float32 products to oneDNN. A
                CPU with AMX then rounds to bfloat16; one without stays in float32, and where torch's own
                choice is a slow MKL (AMD) it is about twice as fast. So it is probed: taken only where it
                stays accurate and is worth it, once per CPU and torch, kept as JSON in `<cache>/cpu/`.
malloc tuned    glibc gives every large block back to the system at once, and pays for each page anew when the
                next one is made. Tuned, it keeps them: faster, with a somewhat higher peak of memory.

COMPRESSNET_CPU_SETTINGS=off leaves torch and glibc as they are.
"""

from __future__ import annotations

import ctypes
import os
import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

import torch
from torch import Tensor

from compressnet import processor
from compressnet.errors import CompressnetError, UsageError
from compressnet.run import Run
from compressnet.training.distributed import Group

VARIABLE = "COMPRESSNET_CPU_SETTINGS"
Matmul = Literal["exact", "fast"]

_MAX_ERROR, _MIN_SPEEDUP = 5e-6, 1.2
_SHAPE = (512, 512, 1536)
_ROUNDS, _PROBE_SECONDS = 15, 0.5
_PRECISION = {"exact": "none", "fast": "bf16"}  # none: nothing asked for, torch's default
_MALLOPT = (
    (-4, 0),  # M_MMAP_MAX: no mapping of its own for a large block
    (-1, 2**31 - 1),  # M_TRIM_THRESHOLD: freed memory stays with the process
    (-2, 256 << 20),  # M_TOP_PAD: the heap grows in large steps
)
_tuned = False  # of this process, which cannot go back
_clock = time.thread_time  # of one thread: what others do to the processor counts least


@dataclass(frozen=True)
class Settings:
    """What a process is set to.

    Attributes:
        matmul: exact: torch's default; fast: float32 products by oneDNN.
        malloc: whether glibc's malloc is tuned.
    """

    matmul: Matmul
    malloc: bool

    @property
    def text(self) -> str:
        """For people: "matmul fast, malloc tuned"."""
        return f"matmul {self.matmul}, malloc {'tuned' if self.malloc else 'default'}"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> Settings:
        """The settings that `as_dict` wrote.

        Raises:
            CompressnetError: it did not write this.
        """
        if isinstance(values, Mapping):
            matmul, malloc = values.get("matmul"), values.get("malloc")
            if isinstance(matmul, str) and matmul in _PRECISION and isinstance(malloc, bool):
                return cls("fast" if matmul == "fast" else "exact", malloc)
        raise CompressnetError(
            f"damaged CPU settings {values!r}: expected matmul exact or fast, and malloc true or false"
        )


TORCH = Settings("exact", False)
"""torch's and glibc's own defaults."""


@dataclass(frozen=True)
class Probe:
    """What the fast matmul is on this CPU.

    Attributes:
        error_exact: the largest error of a float32 product by torch's default, as a share of the largest
            magnitude of the float64 product.
        error_fast: the same of the fast way.
        speedup: time of the default over time of the fast way.
    """

    error_exact: float
    error_fast: float
    speedup: float


def decide(wanted: Literal["auto", "exact", "fast"] = "auto") -> Settings:
    """What suits this CPU, libc and torch. Nothing is set; `apply` does that.

    Args:
        wanted: auto: fast where `choice` of a probe says so; exact: never; fast: whatever a probe would say,
            and exact only where torch has no such switch.

    Raises:
        UsageError: COMPRESSNET_CPU_SETTINGS has a value that means nothing.
    """
    if is_off():
        return TORCH
    matmul: Matmul = "exact"
    if wanted != "exact" and can_choose():
        matmul = "fast" if wanted == "fast" else choice(measured())
    return Settings(matmul, _glibc() is not None)


def of_run(run: Run, group: Group, device: torch.device) -> Settings:
    """The settings that `run` trains with on `device`: the same on every rank where results depend on them.

    A run that was begun keeps what it was begun with, or resuming it would not be bit-equal. A new one takes
    the fast matmul if every rank would.

    Raises:
        CompressnetError: its record is damaged.
        UsageError: it was begun with the fast matmul, and COMPRESSNET_CPU_SETTINGS=off forbids that.
    """
    if device.type != "cpu":
        return TORCH
    begun_with = group.from_main(stored(run))
    if begun_with is None:
        mine = decide(run.recipe.train.cpu_matmul)
        all_fast = all(settings.matmul == "fast" for settings in group.gather(mine))
        return mine if all_fast else replace(mine, matmul="exact")
    if not is_off():
        return begun_with
    if begun_with.matmul == "fast":
        raise UsageError(
            f"{run.folder} was begun with matmul fast and goes on with nothing else: unset {VARIABLE}"
        )
    return TORCH  # how memory is kept changes no result


def stored(run: Run) -> Settings | None:
    """What `run` was begun with: torch's defaults where it does not say, None before it began.

    Raises:
        CompressnetError: the record is damaged.
    """
    values = run.facts.get("cpu")
    if values is None:
        return TORCH if run.resume_point() else None
    try:
        return Settings.from_dict(values)
    except CompressnetError as error:
        raise CompressnetError(f"{run.folder / 'run.json'}: {error}") from error


def set_up(
    device: torch.device, wanted: Literal["auto", "exact", "fast"] = "auto", *, malloc: bool = True
) -> Settings:
    """Decide and apply, for a process that works on `device`; for a GPU nothing is touched.

    Args:
        malloc: False: leave malloc alone, where the peak of memory matters more than speed.
    """
    if device.type == "cpu":
        settings = decide(wanted)
        apply(settings if malloc else replace(settings, malloc=False))
    return current()


def apply(settings: Settings) -> None:
    """Set this process. The matmul switch goes both ways; malloc, once tuned, stays so to the end.

    Off glibc, malloc is left alone whatever `settings` say.

    Raises:
        CompressnetError: the fast matmul is asked for, and this torch has no such switch.
    """
    switch = _switch()
    if switch is None and settings.matmul == "fast":
        raise CompressnetError(
            f"matmul fast: torch {torch.__version__} has no torch.backends.mkldnn.matmul.fp32_precision; "
            "a run that was begun with it needs the torch that its run.json names"
        )
    if switch is not None and settings.matmul != current().matmul:
        switch.fp32_precision = _PRECISION[settings.matmul]
    if settings.malloc:
        _tune_malloc()


def current() -> Settings:
    """What this process is set to."""
    switch = _switch()
    fast = switch is not None and switch.fp32_precision == _PRECISION["fast"]
    return Settings("fast" if fast else "exact", _tuned)


def can_choose() -> bool:
    """Whether there is a choice of float32 products: torch has the switch, and the user did not forbid it."""
    return _switch() is not None and not is_off()


def is_off() -> bool:
    """Whether the user wants torch and glibc left as they are.

    Raises:
        UsageError: the variable has a value that means nothing.
    """
    value = os.environ.get(VARIABLE, "")
    if value not in ("", "auto", "off"):
        raise UsageError(f"{VARIABLE}={value}: write off (torch's and glibc's own defaults), or unset it")
    return value == "off"


def choice(probed: Probe) -> Matmul:
    """The rule: fast where it stays as accurate as float32 is, and is clearly faster."""
    accurate = probed.error_fast < _MAX_ERROR
    return "fast" if accurate and probed.speedup > _MIN_SPEEDUP else "exact"


def measured() -> Probe:
    """The probe of this CPU with this torch: the one in the cache, else a new one, which is kept there."""
    key, names = {"torch": str(torch.__version__)}, [field.name for field in fields(Probe)]
    return Probe(**processor.measured_once(key, names, lambda: asdict(probe())))


def probe() -> Probe:
    """Compare both ways on one product of 512 x 512 by 512 x 1536, with one thread; half a second at most.

    In turns, and by the median of their ratios: a burst of other work hits a turn, not the verdict. Switch
    and threads are put back.

    Raises:
        CompressnetError: this torch has no such switch.
    """
    switch = _switch()
    if switch is None:
        raise CompressnetError(f"torch {torch.__version__} has no switch of float32 matmul: nothing to probe")
    rows, inner, columns = _SHAPE
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(rows, inner, generator=generator)
    b = torch.randn(inner, columns, generator=generator)
    reference = a.double() @ b.double()
    errors: dict[str, float] = {}
    ratios: list[float] = []
    before, threads = switch.fp32_precision, torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        for way, precision in _PRECISION.items():
            switch.fp32_precision = precision
            error = (_product(a, b) - reference).abs().max() / reference.abs().max()  # warms up, too
            errors[way] = error.item()
        end = _clock() + _PROBE_SECONDS
        while len(ratios) < _ROUNDS and (len(ratios) < 3 or _clock() < end):
            seconds = {}
            for way, precision in _PRECISION.items():
                switch.fp32_precision = precision
                start = _clock()
                _product(a, b)
                seconds[way] = _clock() - start
            ratios.append(seconds["exact"] / max(seconds["fast"], 1e-9))
    finally:
        switch.fp32_precision = before
        torch.set_num_threads(threads)
    return Probe(errors["exact"], errors["fast"], statistics.median(ratios))


def _product(a: Tensor, b: Tensor) -> Tensor:
    return a @ b


def _switch() -> Any:
    """torch's switch of float32 products on the CPU; None before torch 2.9, and in a torch without oneDNN."""
    if not torch.backends.mkldnn.is_available():
        return None
    switch = getattr(torch.backends.mkldnn, "matmul", None)
    return switch if hasattr(switch, "fp32_precision") else None


def _glibc() -> ctypes.CDLL | None:
    """The C library of this process where it is glibc: musl, macOS and Windows know no such settings."""
    try:
        name = os.confstr("CS_GNU_LIBC_VERSION") or ""
        return ctypes.CDLL(None) if name.startswith("glibc") else None
    except (AttributeError, ValueError, OSError):
        return None


def _tune_malloc() -> None:
    global _tuned
    libc = None if _tuned else _glibc()
    if libc is not None:
        accepted = [libc.mallopt(parameter, value) for parameter, value in _MALLOPT]
        _tuned = all(accepted)

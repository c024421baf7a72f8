"""The curve of a network with a dial from its record: docs/l0_dial.png.

python benchmarks/dial_picture.py results/l0_dial_zoo.json docs/l0_dial.png
"""

from __future__ import annotations

import sys
from pathlib import Path

from compressnet import json_file
from compressnet.tasks.dial_metrics import dial_curve


def main(record: str, picture: str) -> None:
    found = json_file.read(Path(record))
    (key,) = found["dial"]
    points = [
        (float(name.removeprefix(f"{key}=")), row["psnr"], row["psnr_nothing"])
        for name, row in found["rows"].items()
    ]
    dial_curve(key, points).quantize(16).save(picture, optimize=True)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])

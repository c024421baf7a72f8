"""Put a trained image network into the zoo: its weights, and a card made from its record.

python benchmarks/zoo_card.py RUN RECORD NAME

RUN[@CHECKPOINT] is what RECORD (results/RECORD.json, of `compressnet eval ... --record RECORD`) was measured
of: that is checked. Writes compressnet/zoo/NAME.safetensors and NAME.json. A network that is less than 2 dB
above doing nothing is refused.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from compressnet import json_file
from compressnet.card import Card
from compressnet.subject import parse, weights_path
from compressnet.weights import stored_digest

# What may be trained on and what is measured on, by the fingerprints of records.
TRAINED_ON = {
    "8478e3324f4ae9bc": (
        "CLIC 2025 validation photographs (Unsplash licence) and "
        "four photographs of scikit-image (public domain, CC0)"
    )
}
MEASURED_ON = {"3da1a5fa00998d33": "six FiveK photographs at 1080p"}
NETWORKS = {
    "can24": "CAN24+AN",
    "can32": "CAN32+AN",
    "can24_small": "CAN24+AN at a third of the size, with guided upsampling,",
}
LEAST_GAIN = 2.0  # dB


def main(text: str, record_name: str, name: str) -> None:
    record = json_file.read(Path(f"results/{record_name}.json"))
    weights, _ = weights_path(parse(text, ("run",)))
    if stored_digest(weights) != record["digest"]:
        raise SystemExit(f"{text}: results/{record_name}.json was measured of other weights")
    made = card(record, record_name, name)
    json_file.check(Card, made, name)
    shutil.copyfile(weights, f"compressnet/zoo/{name}.safetensors")
    Path(f"compressnet/zoo/{name}.json").write_text(json.dumps(made, indent=2, ensure_ascii=False) + "\n")


def card(record: dict[str, Any], record_name: str, name: str) -> dict[str, Any]:
    """What the zoo says of the network of a record."""
    metrics, operator = record["metrics"], _imitated(record)
    try:
        data = TRAINED_ON[record["training"]["data"]["fingerprint"]]
        photographs = MEASURED_ON[record["data"]["fingerprint"]]
    except KeyError as error:
        raise SystemExit(f"{record_name}: its data is not known here: {error}") from None
    gain = metrics["psnr"] - metrics["psnr_nothing"]
    if gain < LEAST_GAIN:
        raise SystemExit(f"{record_name}: only {gain:.2f} dB above doing nothing")
    return {
        "about": f"{NETWORKS[record['model']]} imitating {operator}",
        "operator": record["operator"],
        "model": record["model"],
        "parameters": record["parameters"],
        "data": data,
        "result": (
            f"{metrics['psnr']:.2f} dB / SSIM {metrics['ssim']:.4f} on {photographs}; "
            f"doing nothing: {metrics['psnr_nothing']:.2f} / {metrics['ssim_nothing']:.4f}"
        ),
        "record": record_name,
        "digest": record["digest"],
        "training": record["training"],
        "licence": "Apache-2.0",
        "example": f"compressnet apply zoo:{name} photo.jpg -o out.png{_settings(record)}",
    }


def _settings(record: dict[str, Any]) -> str:
    """What `apply` has to be told."""
    if record.get("dial"):
        ((key, (low, _)),) = record["dial"].items()
        return f" --set {key}={low:g}"
    return f" --set operator={record['operators'][0]}" if record.get("operators") else ""


def _imitated(record: dict[str, Any]) -> str:
    """What a network does, in words."""
    if not record.get("operators"):
        return str(record["operator"])
    if record.get("dial"):
        ((key, (low, high)),) = record["dial"].items()
        return f"{record['operators'][0]} with {key} from {low:g} to {high:g}, as it is told"
    *first, last = record["operators"]
    return f"{', '.join(first)} or {last}, as it is told"


if __name__ == "__main__":
    if len(sys.argv) != 4:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])

"""One file a problem: loss, prediction, metrics, preview, apply. `protocol.py` holds the contracts."""

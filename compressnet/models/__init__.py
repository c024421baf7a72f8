"""One file a system of the papers."""

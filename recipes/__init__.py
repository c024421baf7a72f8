"""The recipes that ship with compressnet."""

"""`compressnet bench`: time networks side by side."""

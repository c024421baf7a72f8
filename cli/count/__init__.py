"""`compressnet count-params`: parameters, MACs and bytes."""

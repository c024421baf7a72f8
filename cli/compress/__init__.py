"""`compressnet compress`: a trained network made smaller, and what that cost and gained."""

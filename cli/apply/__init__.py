"""`compressnet apply`: use a network on files."""

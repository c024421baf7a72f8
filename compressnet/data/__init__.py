"""Readers of data sets and of files, the built-in samples, and the cache of everything derived."""

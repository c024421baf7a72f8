"""Counting and timing of any module."""

"""Trained networks made smaller: one file a transform, and what applies, checks and reports them."""

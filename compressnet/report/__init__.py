"""One page of HTML that shows a run: what was trained, how it went, what came of it."""

"""The papers' building blocks: modules usable by themselves."""

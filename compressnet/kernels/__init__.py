"""The few inner loops that torch cannot do fast: plain C, each beside what calls it."""

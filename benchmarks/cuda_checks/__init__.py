"""What `benchmarks/cuda.py` checks: one file a section, each run in a process of its own.

    cuda.py -> runner -> child (a process a section) -> cases -> rows -> results.jsonl, cuda.md, cuda.json

The folder is not called `cuda`: that is the name of NVIDIA's own package, which torch imports.
"""

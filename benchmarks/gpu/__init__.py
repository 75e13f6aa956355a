"""A kit for the first GPU: ten minutes that turn assumptions into measurements (docs/gpu.md).

    python -m benchmarks.gpu prepare                  # here: what the other machine lacks, as wheels
    python -m benchmarks.gpu run --out DIRECTORY      # there: measures; DIRECTORY/report.json and a table
    python -m benchmarks.gpu run --tiny --device cpu  # anywhere: the same with tiny shapes, as a trial

Weights are random, their shapes real (`shapes/`). Every part is a process of its own with a limit of its own; what is
measured is written after every figure.
"""

"""The operator beside JobSet's controller, with thousands of resources on a real API server: see scale/run.py.

python benchmarks/operator.py                                            # 1,000 ViperIterations and JobSets, then 5,000
python benchmarks/operator.py --iterations 50 --jobsets 50 --then 100    # a small one
"""

if __name__ == "__main__":
    from scale.run import main

    main()
else:
    # Scripts of this folder find this file when they import the standard library's module of the same name.
    import os

    with open(os.path.join(os.path.dirname(os.__file__), "operator.py")) as source:  # noqa: PTH118, PTH120, PTH123
        exec(compile(source.read(), source.name, "exec"))  # noqa: S102

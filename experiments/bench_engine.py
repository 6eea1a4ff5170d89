"""What slots gain over static batches: `python -m experiments.bench_engine`. See `experiments.bench.engine`."""

from experiments.bench.engine import main

if __name__ == "__main__":
    main()

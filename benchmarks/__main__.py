"""`python -m benchmarks`: the table of docs/benchmarks.md."""

from benchmarks.run import main

if __name__ == "__main__":
    main()

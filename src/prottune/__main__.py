"""`python -m prottune <verb>` is `prottune <verb>`."""

from prottune.cli import main

if __name__ == "__main__":
    main()

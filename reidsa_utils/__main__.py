"""python -m reidsa_utils COMMAND ..."""

import sys

if __name__ == "__main__":
    if sys.argv[1:2] == ["train"]:
        from .support.processes import with_malloc

        with_malloc()  # starts this program once more, so before anything is imported
    from .cli import main

    raise SystemExit(main())

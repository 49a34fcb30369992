"""Memory settings of glibc, which it reads when a process starts. (No torch here: a program that starts again should not load it first.)"""

import os
import sys

# glibc otherwise gives every large block back to the system and takes it again: a tenth of a training step. It reads them at start.
MALLOC = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_TOP_PAD_": "536870912",
}


def with_malloc() -> None:
    """Start this program again with MALLOC in its environment, where they are missing and could help."""
    if sys.platform == "linux" and not any(name in os.environ for name in MALLOC):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | MALLOC)

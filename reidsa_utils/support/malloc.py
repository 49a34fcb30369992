"""Memory settings of glibc, which it reads when a process starts.

Nothing here imports torch: a program that starts itself again should not load it first.
"""

import os
import sys

# glibc otherwise gives every large block back to the system and takes it again, which costs a tenth
# of a training step.
MALLOC = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_TOP_PAD_": "536870912",
}


def with_malloc() -> None:
    """Start this program again with MALLOC in its environment, where that is missing and helps.

    On Linux only. Settings of the user's own are left alone.
    """
    is_set = any(name in os.environ for name in MALLOC)
    if sys.platform == "linux" and not is_set:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | MALLOC)

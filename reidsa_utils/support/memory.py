"""How the C library keeps memory."""

import contextlib
import ctypes
import sys

# Parameters of glibc's mallopt (malloc.h).
TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> None:
    """Tell glibc to keep large blocks that are freed, for this process. Elsewhere: nothing.

    It otherwise gives every large block back to the system and takes it again, page by page: a
    tenth of a training step. `reidsa speed` measures it.
    """
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(MMAP_MAX, 0)  # no block has pages of its own
        libc.mallopt(TRIM_THRESHOLD, -1)  # nothing is given back
        libc.mallopt(TOP_PAD, 512 * 2**20)  # and taken in large pieces

"""Settings of the C library's memory allocation."""

import contextlib
import ctypes
import sys

# Parameters of glibc's mallopt (malloc.h).
TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> None:
    """Make glibc keep large blocks that this process frees. Without glibc this does nothing.

    By default glibc returns every large block to the system and later takes it again, page by page.
    That costs a tenth of a training step; `reidsa speed` measures it.
    """
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(MMAP_MAX, 0)  # no block has pages of its own
        libc.mallopt(TRIM_THRESHOLD, -1)  # nothing is given back
        libc.mallopt(TOP_PAD, 512 * 2**20)  # memory is taken in large pieces

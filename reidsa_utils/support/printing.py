"""Printing that never raises, even into a closed pipe or on a terminal of another encoding."""

import contextlib
import os
import sys
from collections.abc import Iterator


class _Outlived:
    """A stream that does not raise. Characters that it cannot encode are written as escapes.

    Text that cannot be written at all is lost.
    """

    def __init__(self, stream):
        self.stream = stream

    def __getattr__(self, name: str):
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        try:
            return self.stream.write(text)
        except UnicodeEncodeError:
            encoding = self.stream.encoding
            return self.stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        except OSError:  # nobody reads, or the disk is full
            return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self.stream.flush()


@contextlib.contextmanager
def printing_ends_nothing() -> Iterator[None]:
    """In this block printing raises no error. Afterwards the streams are as before."""
    streams = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (stream and _Outlived(stream) for stream in streams)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = streams
        for stream in filter(None, streams):
            try:
                stream.flush()
            except OSError:
                # Python flushes once more when it ends; without this that would be an error.
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream.fileno())
                os.close(nowhere)

"""Work in processes of their own, from wherever Python is called.

The processes of `multiprocessing` run the caller's script anew, which hangs or breaks where the
script has no `if __name__ == "__main__"`. These here are Python with nothing but the package: a job
goes to their standard input, its result comes from their standard output.
"""

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .. import InputError

HOME = Path(__file__).resolve().parents[2]
# What a process does first: it learns where the caller's modules lie.
START = (
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); "
    "from reidsa_utils.support.workers import serve; serve()"
)
ANSWER = b"\0answer\n"  # comes before every answer: what else is printed is none


def in_processes(function: Callable, jobs: list, workers: int) -> Iterator:
    """Yield function(job) of every job, in order, computed in so many processes.

    function: of a module, not of the caller's script. Jobs and results are pickled.
    The processes end with the iterator, and when the caller dies. What function raises is raised
    here, too: InputError and OSError as they are, others as a RuntimeError with their traceback.
    Raises InputError where a process cannot be started, or ends before its work is done.
    """
    idle = queue.SimpleQueue()

    def do(job):
        process = idle.get()
        try:
            result, error = _ask(process, function, job)
        finally:
            idle.put(process)
        if error is not None:
            raise error
        return result

    # At the end the processes go first, so that no thread waits for one.
    with ThreadPoolExecutor(workers) as threads, contextlib.ExitStack() as processes:
        for _ in range(workers):
            idle.put(processes.enter_context(_started()))
        yield from threads.map(do, jobs)


@contextlib.contextmanager
def _started():
    """A process that serves until the block ends."""
    # -P: a file of the folder that one works in hides no module.
    command = [sys.executable, "-P", "-c", START]
    try:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    except OSError as error:
        raise InputError(
            f"no further process can be started ({error.strerror}); use workers=1"
        ) from error
    try:
        pickle.dump([*sys.path, str(HOME)], process.stdin)
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        with contextlib.suppress(OSError):  # what it was not told any more
            process.stdin.close()


def _ask(process: subprocess.Popen, function: Callable, job) -> tuple:
    """The answer of a process to a job: its result and None, or None and an error."""
    try:
        pickle.dump((function, job), process.stdin)
        process.stdin.flush()
        for line in process.stdout:
            if line.endswith(ANSWER):
                return pickle.load(process.stdout)
    except (OSError, EOFError, pickle.UnpicklingError):
        pass  # as at the end of its output
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(10)
    raise InputError(
        f"a process ended before its work was done (exit code {process.returncode}); is there "
        "memory for all? Run again with workers=1"
    )


def serve() -> None:
    """Do what comes from standard input, until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the caller hears Ctrl-C and ends this process
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a function prints is no answer
    jobs = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(jobs,), daemon=True).start()
    while True:
        function, job = jobs.get()
        try:
            answer = function(job), None
        except (InputError, OSError) as error:
            answer = None, error
        except Exception:
            answer = None, RuntimeError(traceback.format_exc())
        answers.write(ANSWER)
        pickle.dump(answer, answers)
        answers.flush()


def _listen(jobs: queue.SimpleQueue) -> None:
    """Hand on the jobs. Standard input ends when the caller does, and then this process does."""
    try:
        while True:
            jobs.put(pickle.load(sys.stdin.buffer))
    except (EOFError, pickle.UnpicklingError):
        pass
    except Exception:
        traceback.print_exc()
    os._exit(1)

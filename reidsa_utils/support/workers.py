"""Runs work in other processes, called from a script, a REPL or a notebook.

The processes of `multiprocessing` run the caller's script again. That hangs or breaks if the script
has no `if __name__ == "__main__"`. The processes here run only this package: they read jobs from
standard input and write results to standard output.
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
# The first code of a process: it takes over the caller's search path for modules.
START = (
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); "
    "from reidsa_utils.support.workers import serve; serve()"
)
ANSWER = b"\0answer\n"  # comes before every answer, to separate it from other output


def in_processes(function: Callable, jobs: list, workers: int) -> Iterator:
    """Yield function(job) for every job, in order, computed in several processes.

    function: must be in a module, not in the caller's script. Jobs and results are pickled.
    workers: number of processes. They end with the iterator, and when the caller dies.
    Errors of the function are raised here: InputError and OSError as they are, others as a
    RuntimeError that holds their traceback.
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

    # At the end the processes are stopped before the threads, so that no thread waits for one.
    with ThreadPoolExecutor(workers) as threads, contextlib.ExitStack() as processes:
        for _ in range(workers):
            idle.put(processes.enter_context(_started()))
        yield from threads.map(do, jobs)


@contextlib.contextmanager
def _started():
    """A process that runs serve() until the block ends."""
    # -P: a file in the current folder must not hide a module.
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
        with contextlib.suppress(OSError):  # of bytes that were not sent any more
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
        pass  # handled below, like the end of its output
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(10)
    raise InputError(
        f"a process ended before its work was done (exit code {process.returncode}); is there "
        "memory for all? Run again with workers=1"
    )


def serve() -> None:
    """Do the jobs that come from standard input, until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the caller handles Ctrl-C and ends this process
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a function prints goes to standard error
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
    """Put incoming jobs into the queue. Standard input ends with the caller; then end as well."""
    try:
        while True:
            jobs.put(pickle.load(sys.stdin.buffer))
    except (EOFError, pickle.UnpicklingError):
        pass
    except Exception:
        traceback.print_exc()
    os._exit(1)

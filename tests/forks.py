"""Processes of Python that need not import torch and Jupyter anew.

    python tests/forks.py serve SOCKET              import them once, then fork for each order
    python tests/forks.py run SOCKET MODULE WORD …  `python -m MODULE WORD …`, as such a fork

What it imports costs a notebook's kernel four seconds. A module that is loaded is still unknown to a
notebook that does not import it. What would not be missed is the import of a submodule, so notebooks
05, 06 and 07 are run in kernels of the usual kind, too.
"""

import contextlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

# Not pandas, which looks when it is imported whether that is in a notebook, and not what imports it.
SLOW = "IPython ipykernel.kernelapp matplotlib.pyplot nbformat pytest scipy.stats torch"
SLOW += " torch._dynamo torchvision"


class Forks(NamedTuple):
    """How to have a process: in front of a module's name, and of the kernels that Jupyter starts."""

    python_m: list  # instead of [python, "-m"]
    environment: dict  # of who starts kernels


@contextlib.contextmanager
def started():
    """A server, as Forks, until the block ends. Where forks are not safe: processes as usual."""
    if sys.platform != "linux":
        yield Forks([sys.executable, "-m"], {})
        return
    with tempfile.TemporaryDirectory() as folder:
        address = str(Path(folder) / "socket")
        python_m = [sys.executable, __file__, "run", address]
        argv = [*python_m, "ipykernel_launcher", "-f", "{connection_file}"]
        spec = {"argv": argv, "display_name": "Python 3", "language": "python"}
        place = Path(folder) / "kernels" / "python3"
        place.mkdir(parents=True)
        (place / "kernel.json").write_text(json.dumps(spec))
        server = subprocess.Popen([sys.executable, __file__, "serve", address])
        try:
            while not Path(address).exists():
                assert server.poll() is None, "the server has ended"
                time.sleep(0.05)
            yield Forks(python_m, {"JUPYTER_PATH": folder})
        finally:
            server.kill()
            server.wait()


def serve(address: str) -> tuple:
    """Fork for each order; return (connection, order) in the fork, never in the server."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    # As a kernel has it when its notebook imports matplotlib.
    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
    for name in SLOW.split():
        __import__(name)
    assert "pandas" not in sys.modules
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # who has ended is forgotten
    while True:
        connection, _ = listener.accept()
        # With its length come standard input, output and error.
        length, streams, *_ = socket.recv_fds(connection, 4, 3)
        order = b""
        while len(order) < int.from_bytes(length):
            order += connection.recv(1 << 16)
        if os.fork() == 0:
            listener.close()
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
                os.close(stream)
            return connection, json.loads(order)
        for stream in streams:
            os.close(stream)
        connection.close()


def obey(connection: socket.socket, order: dict) -> int:
    """Be the process that was asked for, as long as the one that asked lives. Returns the exit code."""
    import numpy as np

    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ |= order["environment"]
    os.environ.pop("JPY_PARENT_PID", None)  # a kernel ends where this is not its parent
    sys.argv, sys.path[0] = ["", *order["words"]], order["folder"]
    # Otherwise the same numbers in each, where a notebook sets no seed.
    np.random.seed()  # noqa: NPY002
    connection.send(b"%d\n" % os.getpid())
    threading.Thread(target=end_with, args=(connection,), daemon=True).start()
    try:
        runpy.run_module(order["module"], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(bool(end.code))
    return 0


def end_with(connection: socket.socket) -> None:
    connection.recv(1)  # nothing is sent: it returns when the other side has ended
    os._exit(1)


def run(address: str, module: str, words: list) -> int:
    """Order a process, hand on the signals, and wait for it. Returns its exit code."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(address)
    order = {"module": module, "words": words, "folder": os.getcwd()}
    order = json.dumps(order | {"environment": dict(os.environ)}).encode()
    socket.send_fds(connection, [len(order).to_bytes(4)], [0, 1, 2])
    connection.sendall(order)
    answers = connection.makefile()
    process = int(answers.readline())
    signal.signal(signal.SIGINT, lambda number, _: os.kill(process, number))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    code = int(answers.readline() or 1)
    answers.read()  # until it has ended
    return code


if __name__ == "__main__":
    task, address, *words = sys.argv[1:]
    if task == "run":
        sys.exit(run(address, words[0], words[1:]))
    connection, order = serve(address)
    code = obey(connection, order)
    connection.send(b"%d\n" % code)
    sys.exit(code)

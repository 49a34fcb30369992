"""Several processes that share one run (torchrun)."""

import contextlib
import datetime
import os

import torch
from torch import distributed

from .. import InputError


def rank_and_world() -> tuple[int, int]:
    """This process's number and how many share the run; (0, 1) without torchrun."""
    if not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


@contextlib.contextmanager
def processes():
    """Join the processes that torchrun started, if it did.

    With GPUs, each process has one of them, and they communicate by NCCL; without GPUs by gloo.
    Raises InputError if there are more processes than GPUs.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield
        return
    backend = "gloo"
    if torch.cuda.is_available():
        number, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if number >= gpus:
            raise InputError(f"more processes than the {gpus} GPUs here; lower --nproc-per-node")
        torch.cuda.set_device(number)
        # Numbers and objects that processes exchange are on the CPU, gradients are on the GPUs.
        backend = "cpu:gloo,cuda:nccl"
    # Two hours, since the other processes wait while one evaluates.
    distributed.init_process_group(backend, timeout=datetime.timedelta(hours=2))
    yield
    # Not after an error: then this call would wait for the other processes, and torchrun ends them.
    distributed.destroy_process_group()


def wait_for_all() -> None:
    if distributed.is_initialized():
        distributed.barrier()


@contextlib.contextmanager
def first_alone():
    """The first process runs this block before the others."""
    first = rank_and_world()[0] == 0
    if not first:
        wait_for_all()
    try:
        yield
    finally:
        if first:
            wait_for_all()


def from_first(make):
    """Return in all processes what make() returns in the first process.

    If it raises InputError or OSError, all processes raise InputError: all go on, or none.
    """
    if not distributed.is_initialized():
        return make()
    box = [None]
    if rank_and_world()[0] == 0:
        try:
            box = [make()]
        except (InputError, OSError) as error:
            box = [InputError(str(error))]
    distributed.broadcast_object_list(box)
    if isinstance(box[0], InputError):
        raise box[0]
    return box[0]


def mean_over_processes(values, device) -> torch.Tensor:
    """The mean over all processes, element by element, as a float64 tensor on the CPU."""
    values = torch.as_tensor(values, dtype=torch.float64, device=device)
    if distributed.is_initialized():
        distributed.all_reduce(values)
        values /= distributed.get_world_size()
    return values.cpu()


def peak_memory(device: str) -> dict:
    """{"memory_gib": the largest GPU memory in use since the last call, in GiB}; {} on a CPU."""
    if device != "cuda":
        return {}
    peak = torch.cuda.max_memory_allocated() / 2**30
    torch.cuda.reset_peak_memory_stats()
    return {"memory_gib": round(peak, 3)}

"""Time and peak memory of a block of code."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

_MEGABYTE = 2**20


@dataclass
class Usage:
    """What a block took.

    seconds: by the clock. processor_seconds: of all the process's threads, whatever else the machine does meanwhile.
    memory: the process's peak in MB while the block ran (on a GPU the tensors'), NaN where unknown.
    """

    seconds: float = float("nan")
    processor_seconds: float = float("nan")
    memory: float = float("nan")


@contextlib.contextmanager
def measured(device: str = "cpu") -> Iterator[Usage]:
    """Measure a block: `with measured() as usage: ...`; usage holds numbers once the block has ended.

    device: where the block computes.

    On Linux the process's peak is started anew; elsewhere it is that since the process began.
    """
    usage, on_gpu = Usage(), torch.device(device).type == "cuda"
    if on_gpu:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # start the peak anew (proc(5))
    start, worked = time.perf_counter(), time.process_time()
    yield usage
    if on_gpu:
        torch.cuda.synchronize(device)
    usage.seconds, usage.processor_seconds = time.perf_counter() - start, time.process_time() - worked
    usage.memory = torch.cuda.max_memory_allocated(device) / _MEGABYTE if on_gpu else _peak()


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """A block in which torch computes on one thread, and ANTs too where it is first imported in it."""
    before = torch.get_num_threads()
    os.environ.setdefault("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "1")
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _peak() -> float:
    """The process's peak of memory, MB."""
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return float(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024
    try:
        import resource  # not on Windows
    except ImportError:
        return float("nan")
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (_MEGABYTE if sys.platform == "darwin" else 1024)

"""What all tests share: one thread, the tutorials' fast mode, no display, and a table of the notebooks' times."""

import os
import signal
from functools import partial

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # small networks gain nothing from more, and threads that compete lose
os.environ.setdefault("REGKIT_MODE", "fast")  # the notebooks' kernels inherit it
os.environ.setdefault("MPLBACKEND", "agg")

from helpers.parity import READERS
from nbmake import nb_run

# A kernel has 60 s to start by default: not enough where eight programs share two cores. It ends with its notebook,
# whether a cell fails, hangs or leaves a thread behind: nbclient sees to that.
nb_run.NotebookClient = partial(nb_run.NotebookClient, startup_timeout=3600)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what runs behind it with Ctrl-C ignored


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Under -n, a file's tests go to one process, and those of all files that `test_whole_parity` needs to the same."""
    from xdist.scheduler import LoadScopeScheduling

    together = {*(f"test_{reader}.py" for reader in READERS), "test_whole_parity.py"}

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            path = nodeid.split("::")[0]
            return "parity" if path.rpartition("/")[2] in together else path

    return ByFile(config, log)


def pytest_terminal_summary(terminalreporter):
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, ())]
    times = {report.nodeid.split("::")[0]: report.duration for report in reports if ".ipynb" in report.nodeid}
    if times:
        terminalreporter.section(f"notebooks, REGKIT_MODE={os.environ['REGKIT_MODE']}")
        for name, seconds in sorted(times.items()):
            terminalreporter.line(f"{seconds:7.1f} s  {name}")
        terminalreporter.line(f"{sum(times.values()):7.1f} s  together")

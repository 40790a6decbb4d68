"""Jobs for test_parallel.py, in a module that workers import quickly."""

import os
import sys
import time
from pathlib import Path


class OddError(Exception):
    """Cannot be pickled back: it needs two arguments."""

    def __init__(self, what, number):
        super().__init__(f"{what} {number}")


def work(job, report):
    """The job's first word says what to do with the second."""
    what, value = job
    if what == "sleep":
        time.sleep(value)
    elif what == "report":
        end = time.monotonic() + value
        while time.monotonic() < end:
            time.sleep(0.01)
            report(0)
    elif what == "count":
        for _ in range(value):
            report(1)
    elif what == "fail":
        raise KeyError(value)
    elif what == "fail oddly":
        raise OddError("it was", value)
    elif what == "die":
        os.kill(os.getpid(), value)
        time.sleep(60)
    elif what == "exit":
        sys.exit(value)
    elif what == "mark":
        Path(value).touch()
        time.sleep(60)
    return what, value, os.getpid()


def chaotic(job, report):
    """A float that depends on the order of summation, and on how many threads there are."""
    import torch

    generator = torch.Generator().manual_seed(job)
    x = torch.randn(1500, 1500, generator=generator)
    report(1)
    return (x @ x).sum().item(), x.sum().item(), torch.get_num_threads()

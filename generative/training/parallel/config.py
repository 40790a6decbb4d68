"""Settings of jobs in many places, in a module that loads neither torch nor Ray."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from generative.training.ranges import Checked, Count, NonNegative, Positive, Workers


@dataclass(frozen=True)
class ParallelConfig(Checked):
    """Processes or machines that score candidates. On one kind of processor no score depends on
    these settings except `gpus`: a GPU rounds differently from a CPU."""

    backend: Literal["serial", "processes", "ray"] = "serial"
    """Place of the workers: this process; processes of this machine; or a Ray cluster."""
    workers: Workers = 0
    """Number of processes, or of workers of the cluster; 0: one per core, also on joining nodes."""
    ray_address: str = "local"
    """`local` starts a Ray of its own on this machine; `auto` or HOST:PORT joins a cluster."""
    cpus: NonNegative = 1.0
    """Cores of the cluster that a worker claims."""
    gpus: NonNegative = 0.0
    """GPUs that a worker claims; 0.5 puts two workers on each."""
    deadline: Positive = 600.0
    """Longest duration of an episode in seconds; then its worker is ended and another takes it."""
    attempts: Count = 5
    """Number of workers lost in one job at which the run stops, as the job is then at fault."""
    patience: Positive = 600.0
    """Seconds without any worker after which the run stops."""
    straggler: NonNegative = 4.0
    """Multiple of the median duration after which a job is also given to an idle worker; the first
    answer counts. 0: never."""

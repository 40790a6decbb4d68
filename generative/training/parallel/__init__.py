"""Independent jobs in many places at once, with results that do not depend on where they ran.

`run_jobs` runs whole searches or episodes side by side in processes; `worldmodels.scoring` scores
candidates in processes or on Ray. Both stand on `Scheduler`, which survives workers that die.
"""

from generative.training.parallel.config import ParallelConfig
from generative.training.parallel.processes import (
    ProcessPool,
    Worker,
    Workers,
    one_thread,
    portable,
    run_jobs,
)
from generative.training.parallel.scheduler import (
    NoWorkersError,
    Report,
    Scheduler,
    WorkerDiedError,
    last_words,
)

__all__ = [
    "NoWorkersError",
    "ParallelConfig",
    "ProcessPool",
    "Report",
    "Scheduler",
    "Worker",
    "WorkerDiedError",
    "Workers",
    "last_words",
    "one_thread",
    "portable",
    "run_jobs",
]

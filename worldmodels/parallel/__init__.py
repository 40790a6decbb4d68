"""Independent jobs in many places at once, with results that do not depend on where they ran.

`Evaluation` scores candidates in this process, in local processes or on Ray; `run_jobs` runs whole
searches or episodes in parallel. Both use `Scheduler`, which survives workers that die.
"""

from worldmodels.configs import EvaluationConfig, ParallelConfig
from worldmodels.parallel.evaluation import (
    BatchProblem,
    Evaluation,
    EvaluationError,
    Scores,
    evaluate,
)
from worldmodels.parallel.processes import (
    ProcessPool,
    Worker,
    Workers,
    one_thread,
    portable,
    run_jobs,
)
from worldmodels.parallel.scheduler import (
    NoWorkersError,
    Report,
    Scheduler,
    WorkerDiedError,
    last_words,
)

__all__ = [
    "BatchProblem",
    "Evaluation",
    "EvaluationConfig",
    "EvaluationError",
    "NoWorkersError",
    "ParallelConfig",
    "ProcessPool",
    "Report",
    "Scheduler",
    "Scores",
    "WorkerDiedError",
    "Worker",
    "Workers",
    "evaluate",
    "last_words",
    "one_thread",
    "portable",
    "run_jobs",
]

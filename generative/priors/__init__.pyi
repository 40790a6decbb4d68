from .autoregressive import AutoregressivePrior as AutoregressivePrior
from .common import PriorBatch as PriorBatch
from .common import PriorLearner as PriorLearner
from .config import AutoregressivePriorConfig as AutoregressivePriorConfig
from .config import DiffusionPriorConfig as DiffusionPriorConfig
from .config import PriorLossConfig as PriorLossConfig
from .config import ScheduleConfig as ScheduleConfig
from .diffusion import DiffusionPrior as DiffusionPrior

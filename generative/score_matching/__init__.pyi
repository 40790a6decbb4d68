from .config import ScoreConfig as ScoreConfig
from .config import ScoreLossConfig as ScoreLossConfig
from .measures import DenoisingLoss as DenoisingLoss
from .measures import denoising_loss as denoising_loss
from .model import (
    ScoreLearner as ScoreLearner,
)
from .model import (
    ScoreLosses as ScoreLosses,
)
from .model import (
    ScoreNetwork as ScoreNetwork,
)
from .model import (
    annealed_langevin as annealed_langevin,
)
from .model import (
    annealed_langevin_path as annealed_langevin_path,
)
from .model import (
    denoising_score_matching as denoising_score_matching,
)
from .model import (
    noise_levels as noise_levels,
)
from .model import (
    sliced_score_matching as sliced_score_matching,
)

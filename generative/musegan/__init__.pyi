from .config import MuseGANConfig as MuseGANConfig
from .config import MuseGANLossConfig as MuseGANLossConfig
from .model import (
    MuseGAN as MuseGAN,
)
from .model import (
    rolls_of_voices as rolls_of_voices,
)
from .model import (
    voices_of_rolls as voices_of_rolls,
)
from .networks import RollCritic as RollCritic
from .networks import RollGenerator as RollGenerator
from .networks import RollNoise as RollNoise
from .training import MuseGANLearner as MuseGANLearner
from .training import track_penalty as track_penalty

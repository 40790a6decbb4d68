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
from .networks import Critic as Critic
from .networks import Generator as Generator
from .networks import Noise as Noise
from .training import MuseGANLearner as MuseGANLearner
from .training import track_penalty as track_penalty

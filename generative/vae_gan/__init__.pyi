from .config import VAEGANConfig as VAEGANConfig
from .config import VAEGANLossConfig as VAEGANLossConfig
from .model import VAEGAN as VAEGAN
from .model import VAEGANLearner as VAEGANLearner

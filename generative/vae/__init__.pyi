from .config import (
    ConvVAEConfig as ConvVAEConfig,
)
from .config import (
    ImageVAEConfig as ImageVAEConfig,
)
from .config import (
    ImageVAELossConfig as ImageVAELossConfig,
)
from .config import (
    LinearVAEConfig as LinearVAEConfig,
)
from .config import (
    VAELossConfig as VAELossConfig,
)
from .distributions import BernoulliPixels as BernoulliPixels
from .distributions import GaussianHead as GaussianHead
from .distributions import GaussianPixels as GaussianPixels
from .distributions import MixturePrior as MixturePrior
from .distributions import StandardNormal as StandardNormal
from .frames import (
    ConvVAE as ConvVAE,
)
from .frames import (
    VAELearner as VAELearner,
)
from .frames import (
    to_float_bchw as to_float_bchw,
)
from .frames import (
    to_uint8_bhwc as to_uint8_bhwc,
)
from .frames import (
    vae_loss as vae_loss,
)
from .gaussian import (
    VAELosses as VAELosses,
)
from .gaussian import (
    gaussian_kl as gaussian_kl,
)
from .gaussian import (
    gaussian_log_prob as gaussian_log_prob,
)
from .gaussian import (
    importance_bound as importance_bound,
)
from .gaussian import (
    sample_gaussian as sample_gaussian,
)
from .linear import (
    LinearVAE as LinearVAE,
)
from .linear import (
    ProbabilisticPCA as ProbabilisticPCA,
)
from .linear import (
    probabilistic_pca as probabilistic_pca,
)
from .model import VAE as VAE
from .model import ImageVAELearner as ImageVAELearner

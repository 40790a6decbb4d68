from .conditional import (
    ConditionalGAN as ConditionalGAN,
)
from .conditional import (
    ConditionalGenerator as ConditionalGenerator,
)
from .conditional import (
    PlanesCritic as PlanesCritic,
)
from .conditional import (
    ProjectionCritic as ProjectionCritic,
)
from .config import (
    ConditionalGANConfig as ConditionalGANConfig,
)
from .config import (
    GANConfig as GANConfig,
)
from .config import (
    GANLossConfig as GANLossConfig,
)
from .config import (
    WGANConfig as WGANConfig,
)
from .config import (
    WGANLossConfig as WGANLossConfig,
)
from .model import (
    GAN as GAN,
)
from .model import (
    Coverage as Coverage,
)
from .model import (
    Discriminator as Discriminator,
)
from .model import (
    GANLearner as GANLearner,
)
from .model import (
    Generator as Generator,
)
from .model import (
    coverage as coverage,
)
from .model import (
    discriminator_loss as discriminator_loss,
)
from .model import (
    energy_coefficient as energy_coefficient,
)
from .model import (
    generator_loss as generator_loss,
)
from .model import (
    nearest_images as nearest_images,
)
from .model import (
    squared_slope as squared_slope,
)
from .wgan import WGAN as WGAN
from .wgan import WGANLearner as WGANLearner
from .wgan import gradient_penalty as gradient_penalty

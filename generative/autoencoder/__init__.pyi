from .config import (
    AutoencoderLossConfig as AutoencoderLossConfig,
)
from .config import (
    ConvAutoencoderConfig as ConvAutoencoderConfig,
)
from .config import (
    LinearAutoencoderConfig as LinearAutoencoderConfig,
)
from .model import (
    Autoencoder as Autoencoder,
)
from .model import (
    AutoencoderLearner as AutoencoderLearner,
)
from .model import (
    AutoencoderLosses as AutoencoderLosses,
)
from .model import (
    add_noise as add_noise,
)
from .model import (
    autoencoder_loss as autoencoder_loss,
)
from .model import (
    principal_components as principal_components,
)
from .model import (
    uniform_codes as uniform_codes,
)

from .config import (
    GatedConfig as GatedConfig,
)
from .config import (
    PixelCNNConfig as PixelCNNConfig,
)
from .config import (
    PixelCNNLossConfig as PixelCNNLossConfig,
)
from .config import (
    PlainConfig as PlainConfig,
)
from .config import (
    PlusPlusConfig as PlusPlusConfig,
)
from .config import (
    RecurrentConfig as RecurrentConfig,
)
from .measures import bits_per_dim as bits_per_dim
from .mixture import (
    LogisticMixture as LogisticMixture,
)
from .mixture import (
    PlusPlusNet as PlusPlusNet,
)
from .mixture import (
    WeightNormConv as WeightNormConv,
)
from .mixture import (
    log_level_probs as log_level_probs,
)
from .model import (
    PixelCNN as PixelCNN,
)
from .model import (
    PixelCNNLearner as PixelCNNLearner,
)
from .model import (
    PixelCNNLosses as PixelCNNLosses,
)
from .model import (
    Softmax as Softmax,
)
from .networks import GatedNet as GatedNet
from .networks import MaskedConv2d as MaskedConv2d
from .networks import PlainNet as PlainNet
from .recurrent import DiagonalLSTM as DiagonalLSTM
from .recurrent import RecurrentNet as RecurrentNet

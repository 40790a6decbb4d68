from .chain import (
    ActNorm as ActNorm,
)
from .chain import (
    Dequantiser as Dequantiser,
)
from .chain import (
    FlowLearner as FlowLearner,
)
from .chain import (
    FlowLosses as FlowLosses,
)
from .chain import (
    ImageFlowLosses as ImageFlowLosses,
)
from .chain import (
    Layer as Layer,
)
from .chain import (
    image_flow_losses as image_flow_losses,
)
from .chain import (
    rational_quadratic as rational_quadratic,
)
from .chain import (
    standard_normal_log_prob as standard_normal_log_prob,
)
from .config import (
    FFJORDConfig as FFJORDConfig,
)
from .config import (
    FlowLossConfig as FlowLossConfig,
)
from .config import (
    GlowConfig as GlowConfig,
)
from .config import (
    ImageRealNVPConfig as ImageRealNVPConfig,
)
from .config import (
    RealNVPConfig as RealNVPConfig,
)
from .ffjord import FFJORD as FFJORD
from .ffjord import FFJORDLearner as FFJORDLearner
from .glow import (
    CheckerboardCoupling as CheckerboardCoupling,
)
from .glow import (
    ConvCoupling as ConvCoupling,
)
from .glow import (
    Glow as Glow,
)
from .glow import (
    InvertibleConv as InvertibleConv,
)
from .glow import (
    ReverseChannels as ReverseChannels,
)
from .glow import (
    Split as Split,
)
from .glow import (
    Squeeze as Squeeze,
)
from .realnvp import (
    AffineCoupling as AffineCoupling,
)
from .realnvp import (
    ImageRealNVP as ImageRealNVP,
)
from .realnvp import (
    RealNVP as RealNVP,
)
from .realnvp import (
    SplineCoupling as SplineCoupling,
)
from .realnvp import (
    make_mask as make_mask,
)

from .config import (
    ConvEnergyConfig as ConvEnergyConfig,
)
from .config import (
    EnergyLossConfig as EnergyLossConfig,
)
from .config import (
    LangevinConfig as LangevinConfig,
)
from .config import (
    PointEnergyConfig as PointEnergyConfig,
)
from .model import (
    ConvEnergy as ConvEnergy,
)
from .model import (
    EnergyLearner as EnergyLearner,
)
from .model import (
    EnergyLosses as EnergyLosses,
)
from .model import (
    PointEnergy as PointEnergy,
)
from .model import (
    SampleBuffer as SampleBuffer,
)
from .model import (
    contrastive_divergence as contrastive_divergence,
)
from .model import (
    energy_gradient as energy_gradient,
)
from .model import (
    langevin as langevin,
)
from .model import (
    langevin_path as langevin_path,
)
from .model import (
    mala as mala,
)

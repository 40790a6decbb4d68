from .config import (
    BoltzmannConfig as BoltzmannConfig,
)
from .config import (
    DBNConfig as DBNConfig,
)
from .config import (
    RBMConfig as RBMConfig,
)
from .config import (
    RBMLossConfig as RBMLossConfig,
)
from .deep import DeepBeliefNetwork as DeepBeliefNetwork
from .machines import (
    RBM as RBM,
)
from .machines import (
    BoltzmannMachine as BoltzmannMachine,
)
from .machines import (
    LogPartition as LogPartition,
)
from .machines import (
    all_bits as all_bits,
)
from .measures import free_energy_gap as free_energy_gap
from .measures import nats_per_image as nats_per_image
from .training import BoltzmannLearner as BoltzmannLearner
from .training import DBNLearner as DBNLearner

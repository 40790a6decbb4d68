from .config import (
    ClassifierLossConfig as ClassifierLossConfig,
)
from .config import (
    CNNClassifierConfig as CNNClassifierConfig,
)
from .config import (
    MLPClassifierConfig as MLPClassifierConfig,
)
from .config import (
    ViTClassifierConfig as ViTClassifierConfig,
)
from .distances import (
    Moments as Moments,
)
from .distances import (
    frechet_distance as frechet_distance,
)
from .distances import (
    image_features as image_features,
)
from .distances import (
    kernel_distance as kernel_distance,
)
from .distances import (
    moments as moments,
)
from .model import (
    Classifier as Classifier,
)
from .model import (
    ClassifierLearner as ClassifierLearner,
)
from .model import (
    ClassifierLosses as ClassifierLosses,
)
from .model import (
    classifier_loss as classifier_loss,
)
from .model import (
    confusion_matrix as confusion_matrix,
)
from .model import (
    random_mirror as random_mirror,
)
from .model import (
    random_shift as random_shift,
)

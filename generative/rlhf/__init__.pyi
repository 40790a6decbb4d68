from .config import (
    DPOConfig as DPOConfig,
)
from .config import (
    GRPOConfig as GRPOConfig,
)
from .config import (
    RolloutConfig as RolloutConfig,
)
from .config import (
    TextPPOConfig as TextPPOConfig,
)
from .model import (
    AnswerLosses as AnswerLosses,
)
from .model import (
    DPOLearner as DPOLearner,
)
from .model import (
    GRPOLearner as GRPOLearner,
)
from .model import (
    PPOLearner as PPOLearner,
)
from .model import (
    RankingLosses as RankingLosses,
)
from .model import (
    RewardModel as RewardModel,
)
from .model import (
    answer_log_probs as answer_log_probs,
)
from .model import (
    answer_loss as answer_loss,
)
from .model import (
    clipped_gain as clipped_gain,
)
from .model import (
    gae as gae,
)
from .model import (
    group_advantages as group_advantages,
)
from .model import (
    kl_estimate as kl_estimate,
)
from .model import (
    ranking_losses as ranking_losses,
)
from .model import (
    token_rewards as token_rewards,
)

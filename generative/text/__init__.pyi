from .bert import BERT as BERT
from .bert import BERTClassifier as BERTClassifier
from .config import (
    BERTClassifierConfig as BERTClassifierConfig,
)
from .config import (
    BERTConfig as BERTConfig,
)
from .config import (
    BidirectionalConfig as BidirectionalConfig,
)
from .config import (
    GPTConfig as GPTConfig,
)
from .config import (
    RecurrentTextConfig as RecurrentTextConfig,
)
from .config import (
    T5Config as T5Config,
)
from .config import (
    TextLossConfig as TextLossConfig,
)
from .config import (
    ToolformerConfig as ToolformerConfig,
)
from .gpt import GPT as GPT
from .recurrent import Bidirectional as Bidirectional
from .recurrent import RecurrentText as RecurrentText
from .t5 import T5 as T5
from .tokens import TextLearner as TextLearner

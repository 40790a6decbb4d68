"""Sizes and settings of the world-model stack, in a module that does not load torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from generative.training.precision import BF16
from generative.training.ranges import (
    Checked,
    Count,
    CountOrZero,
    Depth,
    Finite,
    NonNegative,
    Positive,
    Range,
    Share,
    Size,
)
from generative.training.settings import to_json


@dataclass(frozen=True)
class VectorVisionConfig(Checked):
    """V of an environment whose observations are vectors: it only standardises them."""

    latent_dim: Size = 4
    """Numbers in an observation, and in z."""


@dataclass(frozen=True)
class MemoryConfig(Checked):
    """Settings of every M: its inputs, the size of h that C sees, and the heads on it."""

    latent_dim: Size = 32
    """Size of V's z."""
    action_dim: Size = 3
    """Numbers in an action."""
    hidden_dim: Size = 256
    """Size of h."""
    num_mixtures: Depth = 5
    """Gaussians per latent dimension."""
    reward_input: bool = False
    """Feed the previous reward beside z and the action (the book's form)."""
    predict_reward: bool = False
    """Add a head for the reward."""
    predict_end: bool = False
    """Add a head for the end of the episode (a logit)."""
    residual: bool = False
    """Predict the change of z by the mixture means, instead of z itself."""
    dropout: Share = 0.0
    """Share of h dropped before the heads in training; a dream keeps one mask."""
    reward_scale: Positive = 1.0
    """Rewards are divided by this inside M and multiplied by it on the way out."""

    @property
    def input_dim(self) -> int:
        """Size of the input at a step."""
        return self.latent_dim + self.action_dim + self.reward_input

    @property
    def state_dim(self) -> int:
        """Size of c, M's recurrent state beside h."""
        return self.hidden_dim


@dataclass(frozen=True)
class MDNRNNConfig(MemoryConfig):
    """M: an LSTM with a mixture density head; the defaults are the paper's form."""


PAPER_MDNRNN = MDNRNNConfig()
"""Ha & Schmidhuber (2018): input 35, output 480; 422,368 trained parameters."""

BOOK_MDNRNN = MDNRNNConfig(reward_input=True, predict_reward=True)
"""Foster (2023), chapter 12: input 36, output 481; 423,649 trained parameters."""


@dataclass(frozen=True)
class TransformerMemoryConfig(MemoryConfig):
    """M as a causal Transformer; by default as large as the paper's MDN-RNN (422,368 weights)."""

    hidden_dim: Size = 192
    """Width of the Transformer, and size of the h that C sees."""
    num_layers: Depth = 2
    """Blocks of attention and feed-forward network."""
    num_heads: Size = 4
    """Attention heads of a block."""
    head_dim: Size = 16
    """Width of the queries, keys and values of each head: a state holds keys and values of the
    whole context."""
    ff_dim: Size = 280
    """Width of the hidden layer behind the attention."""
    context: Annotated[int, Range(2, 2**16)] = 32
    """Decisions that a block attends to, including the present one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.state_dim > 2**22:
            raise ValueError(
                f"a context of {self.context} takes {self.state_dim} numbers of state, at most "
                f"{2**22} are kept; give a smaller context, or fewer or narrower heads"
            )

    @property
    def state_dim(self) -> int:
        """Size of c: keys and values of the past context, and its length."""
        width = self.num_heads * self.head_dim
        return 2 * self.num_layers * (self.context - 1) * width + 1


@dataclass(frozen=True)
class MemoryLossConfig(Checked):
    """Loss and optimiser of M."""

    lr: Positive = 1e-3
    """Adam's learning rate."""
    final_lr: NonNegative | Literal["paper"] = 1e-5
    """Learning rate at the last step, by a cosine from `lr`; or "paper", the schedule of its
    program with 1e-5 + (lr - 1e-5) 0.99999^t at step t."""
    clip_value: Positive = 1.0
    """Gradients are clipped to this absolute value, element by element."""
    reward_weight: NonNegative = 1.0
    """Weight of the reward's squared error (in scaled rewards)."""
    end_weight: NonNegative = 1.0
    """Weight of the end's cross-entropy."""
    bf16: BF16 = False
    """Matrix products in bfloat16 by autocast (weights, likelihoods and losses stay float32)."""


FLOAT32_MAX = 3.4028234663852886e38


@dataclass(frozen=True)
class ActionHead(Checked):
    """Map from C's raw outputs to the action that M reads and the one the environment takes.

    `worldmodels.actions` computes it; `envs.task.action_head` chooses one by an action space.
    """

    kind: Literal["car_racing", "box", "discrete", "raw"] = "car_racing"
    """Kind of action: CarRacing's steering, gas and brake; a bounded Box, by tanh; the one of `num`
    actions with the highest output; or the `num` raw outputs (imported controllers)."""
    low: tuple[float, ...] = ()
    """Lower bounds of a Box, one per number of an action."""
    high: tuple[float, ...] = ()
    """Upper bounds of a Box, one per number of an action."""
    num: Annotated[int, Range(0, 2**20)] = 0
    """Number of actions of a discrete space, or of raw outputs."""
    first: Annotated[int, Range(-(2**62), 2**62)] = 0
    """Lowest action of a discrete space, as the environment counts them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        given = bool(self.low or self.high), bool(self.num or self.first)
        wanted = {"car_racing": (False, False), "box": (True, False), "discrete": (False, True)}
        wanted["raw"] = wanted["discrete"]
        if given != wanted[self.kind]:
            raise ValueError(
                f"an action head of kind {self.kind} with low {self.low}, high {self.high}, num "
                f"{self.num} and first {self.first}: box takes low and high, discrete num (and "
                "first), raw num, car_racing none of them"
            )
        if self.kind == "discrete" and self.num < 2:
            raise ValueError(f"num is {self.num}; there must be 2 actions or more to choose from")
        pairs = list(zip(self.low, self.high, strict=False))
        finite = all(a >= -FLOAT32_MAX and b <= FLOAT32_MAX for a, b in pairs)
        if len(self.low) != len(self.high) or not finite or not all(a < b for a, b in pairs):
            raise ValueError(
                f"low is {self.low} and high {self.high}; a Box of actions needs as many finite "
                "bounds of each, the lower ones below: wrap the environment "
                "(gymnasium.wrappers.RescaleAction, ClipAction) where it has none"
            )

    @property
    def size(self) -> int:
        """Size of an action as M reads it, A."""
        return {"car_racing": 3, "box": len(self.low)}.get(self.kind, self.num)


CAR_RACING = ActionHead()


@dataclass(frozen=True)
class ControllerConfig(Checked):
    """C: a linear map from M's features to actions."""

    latent_dim: Size = 32
    """Size of V's z."""
    hidden_dim: Size = 256
    """Size of M's h."""
    action_dim: Size = 3
    """Numbers in an action."""
    features: Literal["z", "zh", "zhc"] = "zh"
    """Inputs of C: z alone, z and h (CarRacing in the paper), or z, h and c (Doom)."""
    action: ActionHead = CAR_RACING
    """Map from the outputs to an action."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.action_dim != self.action.size and self.action != CAR_RACING:
            raise ValueError(
                f"action_dim is {self.action_dim} and the action head has {self.action.size} "
                f"numbers ({self.action}); give both the same size"
            )

    @classmethod
    def upgrade(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """Older controllers drive a car."""
        return {"action": to_json(CAR_RACING), **settings}

    @property
    def feature_dim(self) -> int:
        """Number of inputs of the linear map."""
        return self.latent_dim + self.hidden_dim * (len(self.features) - 1)

    @property
    def num_parameters(self) -> int:
        """Number of weights and biases: 867 for CarRacing."""
        return (self.feature_dim + 1) * self.action_dim


Bound = Annotated[float, Range()]
"""End of an interval: any number or infinity, but not NaN."""


@dataclass(frozen=True)
class DreamConfig(Checked):
    """Settings of a dream."""

    horizon: Count = 50
    """Decisions per dream."""
    temperature: NonNegative = 1.1
    """Temperature of the dream: divides the mixture logits, and scales the noise by its root."""
    dropout: bool = True
    """Keep one dropout mask per lane over the whole dream (M must be trained with dropout)."""
    reward_clip: tuple[Bound, Bound] | None = None
    """Bounds of the real reward per decision; dreamed rewards are clipped to them."""
    pace_cap: Finite | None = None
    """Largest mean reward per decision over `pace_window`; the dream pays no more."""
    pace_window: Count = 10
    """Decisions over which the pace is measured."""
    truncation: Count | None = None
    """Largest number of decisions that gradients flow back through; through more they explode."""
    bf16: BF16 = False
    """Matrix products in bfloat16 (states, noise and sums stay float32)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reward_clip is not None and self.reward_clip[0] > self.reward_clip[1]:
            raise ValueError(f"reward_clip is {self.reward_clip}; give the lower bound first")


@dataclass(frozen=True)
class EvolutionConfig(Checked):
    """CMA-ES (Hansen 2016) as pycma runs it; scores are maximised."""

    popsize: Annotated[int, Range(2, 2**20)] = 64
    """Candidates per generation."""
    sigma: Positive = 0.1
    """Initial step size."""
    generations: CountOrZero = 1800
    """Generations to run."""
    diagonal: bool = False
    """Adapt a diagonal covariance only: cheaper, and better at small budgets in high dimensions."""
    weight_decay: NonNegative = 0.0
    """Penalty of the score per mean square of a candidate's parameters."""
    lazy_update: Annotated[float, Range(0, 0.5)] = 0.5
    """Decompose the covariance once in lazy_update / ((c1 + cmu) n) generations, with its learning
    rates c1 and cmu and n parameters: 13 generations for 867. pycma's default is 0.1; 0 is every
    generation, and 1 would break small problems by a stale covariance."""
    restarts: CountOrZero = 0
    """Largest number of restarts after the search has converged by pycma's criteria."""
    restart_by: Literal["ipop", "bipop"] = "ipop"
    """Double the population at every restart, or alternate with small populations and steps."""
    test_every: CountOrZero = 0
    """Generations between two tests of the distribution's mean; 0: never."""
    test_episodes: Count = 100
    """Episodes of a test."""
    target: Finite | None = None
    """End when a test reaches this score."""
    patience: CountOrZero = 0
    """End after this many tests without an improvement; 0: never."""
    max_evaluations: CountOrZero = 0
    """End after this many candidates; 0: no limit."""
    max_seconds: NonNegative = 0.0
    """End after this many seconds of work, which depends on the machine; 0: no limit."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.target is not None or self.patience) and not self.test_every:
            raise ValueError(
                f"target {self.target} and patience {self.patience} look at tests of the mean; set "
                "test_every too"
            )


@dataclass(frozen=True)
class EvaluationConfig(Checked):
    """Settings of the scoring of candidates."""

    episodes: Count = 16
    """Episodes per candidate."""
    same_episodes: bool = True
    """Give all candidates of a generation the same episodes, which makes them comparable sooner."""
    candidates_per_task: Count = 16
    """Candidates per task of a worker if they are scored in a batch (dreams)."""
    on_nan: Literal["stop", "worst"] = "stop"
    """Reaction to a score that is not finite: stop the run, or count it as the lowest."""
    racing: CountOrZero = 0
    """Episodes after which candidates that are clearly not in the better half get no more; 0:
    never. Their scores are extrapolated from the changes of the others, and stay below those of all
    that played on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.racing and not 2 <= self.racing < self.episodes:
            raise ValueError(
                f"racing is {self.racing}; it has to be at least 2 (for a deviation) and less than "
                f"the {self.episodes} episodes, or 0 for none"
            )


@dataclass(frozen=True)
class GradientConfig(Checked):
    """Back-propagation through the dream into the linear controller."""

    steps: Count = 200
    """Adam steps."""
    lr: Positive = 0.006
    """Adam's learning rate; cosine to a tenth of it."""
    lanes: Count = 256
    """Dreams per step, each from its own real moment."""
    clip_norm: Positive = 1.0
    """Gradients are scaled down to this norm."""
    saturation_cost: NonNegative = 1.0
    """Price, in return, of raw outputs that lie beyond [-1, 1] by 1 (mean square)."""
    check_every: Count = 20
    """Steps between checks on dreams that are not trained on; the best check is the answer."""
    check_dreams: Count = 256
    """Dreams of a check, the same every time."""
    ends: Literal["expected", "drawn"] = "expected"
    """Imagined ends in the return that is climbed. expected: a reward counts with the probability
    that the dream has not ended before it, so that the gradient knows how an action changes it.
    drawn: dreams end at random, and an action that makes an end likelier has no gradient for it;
    for an M that foretells ends badly."""

    @classmethod
    def upgrade(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """Older climbs expected ends."""
        return {"ends": "expected", **settings}

"""Sizes and settings of the world-model stack, in a module that does not load torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class VectorVisionConfig:
    """V of an environment whose observations are vectors already: it only standardises them."""

    latent_dim: int = 4
    """Numbers in an observation, and in z."""


@dataclass(frozen=True)
class MemoryConfig:
    """What every M has: its inputs, the h that C sees, and the heads on it."""

    latent_dim: int = 32
    """Size of V's z."""
    action_dim: int = 3
    """Numbers in an action."""
    hidden_dim: int = 256
    """Size of h."""
    num_mixtures: int = 5
    """Gaussians per latent dimension."""
    reward_input: bool = False
    """Feed the previous reward beside z and the action (the book's form)."""
    predict_reward: bool = False
    """Add a head for the reward."""
    predict_end: bool = False
    """Add a head for the end of the episode (a logit)."""
    residual: bool = False
    """Mixture means are changes of z instead of z itself."""
    dropout: float = 0.0
    """Share of h hidden from the heads in training; a dream keeps one mask."""
    reward_scale: float = 1.0
    """Rewards are divided by this inside M and multiplied by it on the way out."""

    def __post_init__(self) -> None:
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}; it must lie in [0, 1)")
        if self.reward_scale <= 0:
            raise ValueError(f"reward_scale is {self.reward_scale}; it must be positive")

    @property
    def input_dim(self) -> int:
        """Numbers that are read at a step."""
        return self.latent_dim + self.action_dim + self.reward_input

    @property
    def output_dim(self) -> int:
        """Numbers that the heads give out at a step."""
        mixture = 3 * self.num_mixtures * self.latent_dim
        return mixture + self.predict_reward + self.predict_end

    @property
    def state_dim(self) -> int:
        """Numbers in c, what M keeps of the past beside h."""
        return self.hidden_dim


@dataclass(frozen=True)
class MDNRNNConfig(MemoryConfig):
    """M: an LSTM with a mixture density head; the defaults are the paper's form."""


PAPER_MDNRNN = MDNRNNConfig()
"""Ha & Schmidhuber (2018): input 35, output 480; 422,368 trained parameters."""

BOOK_MDNRNN = MDNRNNConfig(reward_input=True, predict_reward=True)
"""Foster (2023), chapter 12: input 36, output 481; 423,649 trained parameters."""


@dataclass(frozen=True)
class MemoryLossConfig:
    """What M minimises and how."""

    lr: float = 1e-3
    """Adam's learning rate."""
    final_lr: float = 1e-5
    """Learning rate at the last step (cosine from `lr`)."""
    clip_value: float = 1.0
    """Gradients are clipped to this absolute value, element by element."""
    reward_weight: float = 1.0
    """Weight of the reward's squared error (in scaled rewards)."""
    end_weight: float = 1.0
    """Weight of the end's cross-entropy."""
    bf16: bool = False
    """Matrix products in bfloat16 by autocast (weights, likelihoods and losses stay float32)."""


@dataclass(frozen=True)
class ActionHead:
    """What becomes of C's raw outputs: what M reads, and what the environment is given.

    `worldmodels.actions` does it; `envs.task.action_head` chooses one by an action space.
    """

    kind: Literal["car_racing", "box", "discrete", "raw"] = "car_racing"
    """CarRacing's steering, gas and brake; a bounded Box, by tanh; one of `num` actions, the one of
    the highest output; or the `num` outputs as they are (imported controllers)."""
    low: tuple[float, ...] = ()
    """Lower bounds of a Box, one per number of an action."""
    high: tuple[float, ...] = ()
    """Upper bounds."""
    num: int = 0
    """Actions of a discrete space, or outputs that are not changed."""
    first: int = 0
    """The lowest of these, as the environment counts them."""

    def __post_init__(self) -> None:
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
        finite = all(math.isfinite(low) and math.isfinite(high) for low, high in pairs)
        if len(self.low) != len(self.high) or not finite or any(a >= b for a, b in pairs):
            raise ValueError(
                f"low is {self.low} and high {self.high}; a Box of actions needs as many finite "
                "bounds of each, the lower ones below: wrap the environment "
                "(gymnasium.wrappers.RescaleAction, ClipAction) where it has none"
            )

    @property
    def size(self) -> int:
        """Numbers that C gives and M reads, A."""
        return {"car_racing": 3, "box": len(self.low)}.get(self.kind, self.num)


CAR_RACING = ActionHead()


@dataclass(frozen=True)
class ControllerConfig:
    """C: a linear map from M's features to actions."""

    latent_dim: int = 32
    """Size of V's z."""
    hidden_dim: int = 256
    """Size of M's h."""
    action_dim: int = 3
    """Numbers in an action."""
    features: Literal["z", "zh", "zhc"] = "zh"
    """What C sees: z alone, z and h (CarRacing in the paper), or z, h and c (Doom)."""
    action: ActionHead = CAR_RACING
    """What becomes of the outputs."""

    def __post_init__(self) -> None:
        if self.action_dim != self.action.size and self.action != CAR_RACING:
            raise ValueError(
                f"action_dim is {self.action_dim} and the action head has {self.action.size} "
                f"numbers ({self.action}); give both the same size"
            )

    @property
    def feature_dim(self) -> int:
        """Inputs of the linear map."""
        return self.latent_dim + self.hidden_dim * (len(self.features) - 1)

    @property
    def num_parameters(self) -> int:
        """Weights and biases: 867 for CarRacing."""
        return (self.feature_dim + 1) * self.action_dim


@dataclass(frozen=True)
class DreamConfig:
    """How a dream is rolled out."""

    horizon: int = 50
    """Decisions per dream."""
    temperature: float = 1.1
    """Uncertainty of the dream: flattens the mixture weights, widens the noise by its root."""
    dropout: bool = True
    """Keep one dropout mask per lane over the whole dream (M must be trained with dropout)."""
    reward_clip: tuple[float, float] | None = None
    """Rewards per decision that are possible in reality; a dream never pays more."""
    pace_cap: float | None = None
    """Most that a decision pays on average over `pace_window`: haste beyond it is worthless."""
    pace_window: int = 10
    """Decisions over which the pace is measured."""
    truncation: int | None = None
    """Gradients flow back through at most this many decisions; through more they explode."""
    bf16: bool = False
    """Matrix products in bfloat16 (states, noise and sums stay float32)."""

    def __post_init__(self) -> None:
        if self.horizon < 1:
            raise ValueError(f"horizon is {self.horizon}; it must be at least 1")
        if self.truncation is not None and self.truncation < 1:
            raise ValueError(f"truncation is {self.truncation}; it must be at least 1, or None")
        if self.pace_window < 1:
            raise ValueError(f"pace_window is {self.pace_window}; it must be at least 1")
        if not self.temperature >= 0:
            raise ValueError(f"temperature is {self.temperature}; it must be 0 or more")
        if self.reward_clip is not None and not self.reward_clip[0] <= self.reward_clip[1]:
            raise ValueError(f"reward_clip is {self.reward_clip}; give the lower bound first")


@dataclass(frozen=True)
class EvolutionConfig:
    """CMA-ES (Hansen 2016) as pycma runs it; scores are maximised."""

    popsize: int = 64
    """Candidates per generation."""
    sigma: float = 0.1
    """Initial step size."""
    generations: int = 1800
    """Generations to run."""
    diagonal: bool = False
    """Adapt a diagonal covariance only: cheaper, and better at small budgets in high dimensions."""
    weight_decay: float = 0.0
    """Score lost per mean square of a candidate's parameters."""
    lazy_update: float = 0.5
    """Decompose the covariance once in lazy_update / ((c1 + cmu) n) generations, with its learning
    rates and n parameters: 13 generations for 867. pycma alone takes 0.1; 0 is every generation."""
    restarts: int = 0
    """Begin again so often where the search has converged by pycma's criteria."""
    restart_by: Literal["ipop", "bipop"] = "ipop"
    """Double the population every time, or in turn with small populations and steps."""
    test_every: int = 0
    """Test the distribution's mean every so many generations; 0: never."""
    test_episodes: int = 100
    """Episodes of a test."""
    target: float | None = None
    """End when a test reaches this score."""
    patience: int = 0
    """End after so many tests without a better one; 0: never."""
    max_evaluations: int = 0
    """End after so many candidates; 0: no limit."""
    max_seconds: float = 0.0
    """End after so many seconds of work; 0: no limit. Where it ends then depends on the machine."""

    def __post_init__(self) -> None:
        if self.popsize < 2:
            raise ValueError(f"popsize is {self.popsize}; CMA-ES needs at least 2")
        if self.sigma <= 0:
            raise ValueError(f"sigma is {self.sigma}; it must be positive")
        if not self.weight_decay >= 0:
            raise ValueError(f"weight_decay is {self.weight_decay}; it must be 0 or more")
        counts = (self.restarts, self.test_every, self.patience, self.max_evaluations)
        if min(*counts, self.max_seconds) < 0 or self.test_episodes < 1:
            raise ValueError(
                f"restarts {self.restarts}, test_every {self.test_every}, patience "
                f"{self.patience}, max_evaluations {self.max_evaluations} and max_seconds "
                f"{self.max_seconds} have to be 0 or more, test_episodes {self.test_episodes} 1"
            )
        if (self.target is not None or self.patience) and not self.test_every:
            raise ValueError(
                f"target {self.target} and patience {self.patience} look at tests of the mean; set "
                "test_every too"
            )
        if not 0 <= self.lazy_update <= 0.5:  # at 1, a stale covariance breaks small problems
            raise ValueError(f"lazy_update is {self.lazy_update}; it must lie in [0, 0.5]")


@dataclass(frozen=True)
class EvaluationConfig:
    """How candidates are scored."""

    episodes: int = 16
    """Episodes per candidate."""
    same_episodes: bool = True
    """All candidates of a generation meet the same episodes, which makes them comparable sooner."""
    candidates_per_task: int = 16
    """Candidates that a worker takes at once, where they are scored in a batch (dreams)."""
    on_nan: Literal["stop", "worst"] = "stop"
    """A score that is not finite ends the run, or counts as the lowest of its generation."""
    racing: int = 0
    """If not 0: after so many episodes, candidates that are plainly not among the better half get
    no further ones, and keep the mean of those."""

    def __post_init__(self) -> None:
        if min(self.episodes, self.candidates_per_task) < 1:
            raise ValueError(
                f"episodes {self.episodes} and candidates_per_task {self.candidates_per_task} "
                "count from 1"
            )
        if self.racing and not 2 <= self.racing < self.episodes:
            raise ValueError(
                f"racing is {self.racing}; it has to be at least 2 (for a deviation) and less than "
                f"the {self.episodes} episodes, or 0 for none"
            )


@dataclass(frozen=True)
class ParallelConfig:
    """Where candidates are scored. On one kind of processor no score depends on any of this but
    `gpus`: a GPU rounds otherwise than a CPU."""

    backend: Literal["serial", "processes", "ray"] = "serial"
    """In this process; in processes of this machine; or on a Ray cluster."""
    workers: int = 0
    """Processes, or workers of the cluster; 0: one for each core, also for those that join."""
    ray_address: str = "local"
    """`local` starts a Ray of its own on this machine; `auto` or HOST:PORT joins a cluster."""
    cpus: float = 1.0
    """Cores of the cluster that a worker claims."""
    gpus: float = 0.0
    """GPUs that a worker claims; 0.5 puts two workers on each."""
    deadline: float = 600.0
    """Seconds for an episode, after which its worker is ended and the episode given to another."""
    attempts: int = 5
    """Workers that may be lost in the same job before that counts as the job's fault."""
    patience: float = 600.0
    """Seconds without any worker, after which the run stops."""
    straggler: float = 4.0
    """A job that takes so many times as long as half of the others is given to a second worker
    that has nothing to do; the first answer counts. 0: never."""

    def __post_init__(self) -> None:
        if self.workers < 0 or self.attempts < 1:
            raise ValueError(
                f"workers is {self.workers} and attempts {self.attempts}; they count from 0 and 1"
            )
        if min(self.deadline, self.patience) <= 0 or min(self.cpus, self.gpus, self.straggler) < 0:
            raise ValueError(
                f"deadline {self.deadline} and patience {self.patience} have to be positive, cpus "
                f"{self.cpus}, gpus {self.gpus} and straggler {self.straggler} 0 or more"
            )


@dataclass(frozen=True)
class GradientConfig:
    """Back-propagation through the dream into the linear controller."""

    steps: int = 200
    """Adam steps."""
    lr: float = 0.006
    """Adam's learning rate; cosine to a tenth of it."""
    lanes: int = 256
    """Dreams per step, each from its own real moment."""
    clip_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    saturation_cost: float = 1.0
    """Price, in return, of raw outputs that lie beyond [-1, 1] by 1 (mean square)."""
    check_every: int = 20
    """Steps between checks on dreams that are not trained on; the best check is the answer."""
    check_dreams: int = 256
    """Dreams of a check, the same every time."""

    def __post_init__(self) -> None:
        if self.steps < 1 or self.lanes < 1:
            raise ValueError(f"steps {self.steps} and lanes {self.lanes} must be at least 1")
        if self.check_every < 1 or self.check_dreams < 1:
            raise ValueError(
                f"check_every {self.check_every} and check_dreams {self.check_dreams} must be at "
                "least 1"
            )

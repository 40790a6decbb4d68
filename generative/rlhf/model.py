"""Learning from human feedback: demonstrations, a reward model of rankings, PPO, GRPO and DPO.

The recipe of InstructGPT (Ouyang et al. 2022; Foster 2023, chapter 9). A text is a prompt of
`prompt_len` tokens and an answer up to its END; the policy is a GPT.

    sft = TextLearner(policy, config, steps, partial(answer_loss, policy))
    sft.update(demonstrations)                                           # texts (B, T)
    judge = RewardModel.of(sft.kept)
    reward = TextLearner(judge, config, steps, judge.loss)
    reward.update(ranked)                                                # best first, (B, K, T)
    value = RewardModel.of(reward.kept)
    ppo = PPOLearner(policy, sft.kept, reward.kept, value, TextPPOConfig(), steps)
    ppo.update(prompts)                                                  # (B, prompt_len)

PPO, GRPO and DPO all seek the policy with the largest E[reward] - beta KL(policy || reference),
which is reference * exp(reward / beta) / Z. DPO learns it from the rankings, without `reward`.
`generative/known/requests.py` is a language whose best policy is known exactly.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import NamedTuple, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.rlhf.config import DPOConfig, GRPOConfig, RolloutConfig, TextPPOConfig
from generative.text.config import GPTConfig
from generative.text.gpt import GPT
from generative.text.tokens import TextLearner, up_to_end
from generative.training.checks import check_some, check_tensor, check_tokens, placed
from generative.training.learner import ModelLearner
from generative.training.optimisation import Optimisation
from generative.training.pretrained import Pretrained

__all__ = [
    "AnswerLosses",
    "DPOConfig",
    "DPOLearner",
    "GRPOConfig",
    "GRPOLearner",
    "TextPPOConfig",
    "PPOLearner",
    "RankingLosses",
    "RewardModel",
    "answer_log_probs",
    "answer_loss",
    "clipped_gain",
    "gae",
    "group_advantages",
    "kl_estimate",
    "ranking_losses",
    "token_rewards",
]

M = TypeVar("M", bound=nn.Module)
Reward = Callable[[Tensor], Tensor]
"""Texts (B, T) -> rewards (B,): a `RewardModel`, or any judge."""


# ---------------------------------------------------------------------------------------------
# Demonstrations
# ---------------------------------------------------------------------------------------------


class AnswerLosses(NamedTuple):
    """Mean over the tokens of answers."""

    loss: Tensor
    """Cross-entropy, nats."""


def answer_log_probs(model: GPT, texts: Tensor, prompt_len: int = 1) -> tuple[Tensor, Tensor]:
    """log p of each token of the answers in texts (B, prompt_len + L), nats.

    Returns:
        log p (B, L), 0 behind the end of an answer, and a mask of the answers, bool (B, L).
    """
    answers = texts[:, prompt_len:]
    counted = up_to_end(answers)
    each = model.token_log_probs(texts)[:, -answers.shape[1] :]
    return each.masked_fill(~counted, 0.0), counted


def answer_loss(model: GPT, texts: Tensor, prompt_len: int = 1) -> AnswerLosses:
    """Supervised fine-tuning: cross-entropy of the answers, not of the prompts."""
    each, counted = answer_log_probs(model, check_some(texts, model), prompt_len)
    return AnswerLosses(-each.sum() / counted.sum())


# ---------------------------------------------------------------------------------------------
# Rankings
# ---------------------------------------------------------------------------------------------


class RankingLosses(NamedTuple):
    """Means over all pairs of all rankings."""

    loss: Tensor
    """-log probability of the order that people gave a pair."""
    accuracy: Tensor
    """Share of pairs whose scores are in that order."""


def ranking_losses(scores: Tensor) -> RankingLosses:
    """Losses of scores of answers that are ranked from best to worst, (B, K).

    -log sigmoid(score of the better - score of the worse), mean over the K (K - 1) / 2 pairs of a
    ranking (Bradley & Terry 1952; Ouyang et al. 2022, equation 1).
    """
    better, worse = torch.triu_indices(scores.shape[1], scores.shape[1], 1, device=scores.device)
    margins = scores[:, better] - scores[:, worse]
    return RankingLosses(-F.logsigmoid(margins).mean(), (margins > 0).float().mean())


class RewardModel(Pretrained, nn.Module):
    """A GPT that gives a number in place of the next token; the number at the end is the reward.

    The reward has no zero point: comparisons do not determine a constant for each prompt. The same
    network with numbers at all positions is the value network of PPO.
    """

    config_class = GPTConfig

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.config = config
        self.body = GPT(config)
        self.body.head = None  # `read_out` replaces this output layer
        self.read_out = nn.Linear(config.block.dim, 1, bias=False)  # no comparison teaches a bias
        nn.init.zeros_(self.read_out.weight)

    @classmethod
    def of(cls, model: GPT | RewardModel) -> Self:
        """Reward model with the weights of a policy, or a copy of another one."""
        made = cls(model.config)
        if isinstance(model, RewardModel):
            made.load_state_dict(model.state_dict())
        else:
            made.body = copy.deepcopy(model)
            made.body.head = None
        return made.to(**placed(model))

    def scores(self, texts: Tensor) -> Tensor:
        """Texts (B, T) -> a number at each token, computed from it and those before, (B, T).

        Raises:
            ValueError: not int64 (B, T) in the vocabulary, or longer than `max_len`.
        """
        check_tokens(texts, self.config.vocab_size, self.config.max_len, self)
        return self.read_out(self.body.features(texts))[:, :, 0]

    def forward(self, texts: Tensor) -> Tensor:
        """Texts (B, T) -> rewards (B,), read at the first END, or at the last token without one."""
        last = up_to_end(texts).sum(1, keepdim=True) - 1
        return self.scores(texts).gather(1, last)[:, 0]

    def loss(self, ranked: Tensor) -> RankingLosses:
        """Losses of answers to the same prompts, ranked from best to worst, int64 (B, K, T).

        Raises:
            ValueError: wrong shape or type, or a token outside the vocabulary.
        """
        ranked = check_some(_check_ranked(ranked), self)
        return ranking_losses(self(ranked.flatten(0, 1)).view(ranked.shape[:2]))


def _check_ranked(ranked: Tensor) -> Tensor:
    check_tensor(ranked, "rankings", "give int64 (B, K, T), K from 2")
    if ranked.dim() != 3 or ranked.shape[1] < 2:
        raise ValueError(f"got rankings of shape {tuple(ranked.shape)}; give (B, K, T), K from 2")
    return ranked


class DPOLearner(TextLearner[GPT]):
    """Minimises the ranking loss of the reward beta log(policy / reference) (Rafailov et al.).

    Args:
        policy: usually begins as the reference.
        reference: is not trained.
        config: see `DPOConfig`.
        steps: updates over which the learning rate falls.
        prompt_len: tokens before the answers.
    """

    config: DPOConfig

    def __init__(
        self, policy: GPT, reference: GPT, config: DPOConfig, steps: int, prompt_len: int = 1
    ):
        super().__init__(policy, config, steps, self.losses)
        self.reference, self.prompt_len = _frozen(reference), prompt_len

    def losses(self, ranked: Tensor) -> RankingLosses:
        """Losses of answers ranked from best to worst, int64 (B, K, T); `update` steps on them."""
        texts = check_some(_check_ranked(ranked), self.model).flatten(0, 1)
        policy = answer_log_probs(self.model, texts, self.prompt_len)[0].sum(1)
        with torch.no_grad():
            reference = answer_log_probs(self.reference, texts, self.prompt_len)[0].sum(1)
        implied = self.config.beta * (policy - reference)
        return ranking_losses(implied.view(ranked.shape[:2]))


# ---------------------------------------------------------------------------------------------
# Drawn answers
# ---------------------------------------------------------------------------------------------


def token_rewards(
    score: Tensor, policy: Tensor, reference: Tensor, counted: Tensor, beta: float
) -> Tensor:
    """Reward of each token, (B, L): the last has the score of its text, all pay for their KL.

    r_t = score at the last token - beta log(policy / reference). Their sum estimates the
    objective, and its policy gradient is that of E[score] - beta KL: the price depends on the
    policy too, but log policy has a mean gradient of zero.

    Args:
        score: score of each text, (B,).
        policy, reference: log probabilities of the tokens, 0 behind the end, (B, L).
        counted: True for the tokens of the answer, bool (B, L).
    """
    last = counted.sum(1, keepdim=True) - 1
    return (beta * (reference - policy)).scatter_add(1, last, score[:, None])


def gae(
    rewards: Tensor, values: Tensor, counted: Tensor, gamma: float = 1.0, lam: float = 0.95
) -> Tensor:
    """Generalised advantage estimation (Schulman et al. 2016) of answers that end.

    A_t = delta_t + gamma lam A_(t+1),   delta_t = r_t + gamma V_(t+1) - V_t,   0 behind the end.

    Args:
        rewards: reward of each token, (B, L).
        values: expected sum of rewards before each token, (B, L).
        counted: True for the tokens of the answer, which come first, bool (B, L).
    Returns:
        Advantages (B, L), 0 behind the end.
    """
    values, rewards = values * counted, rewards * counted
    advantage = torch.zeros_like(rewards[:, 0])
    later = torch.zeros_like(advantage)
    advantages = []
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + gamma * later - values[:, t]
        advantage = delta + gamma * lam * advantage
        later = values[:, t]
        advantages.append(advantage)
    return torch.stack(advantages[::-1], 1)


def group_advantages(scores: Tensor, divide_by_std: bool = False) -> Tensor:
    """Score of each answer minus the mean of those to the same prompt, (B, G) -> (B, G)."""
    advantages = scores - scores.mean(1, keepdim=True)
    if not divide_by_std or scores.shape[1] < 2:  # a single number has no standard deviation
        return advantages
    return advantages / (scores.std(1, keepdim=True) + 1e-4)


def clipped_gain(new: Tensor, old: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """Clipped objective min(ratio A, clip(ratio, 1 - clip, 1 + clip) A), of the shape of new.

    To maximise, with new and old log probabilities (Schulman et al. 2017, equation 7).
    """
    ratio = (new - old).exp()
    return torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)


def kl_estimate(new: Tensor, reference: Tensor) -> Tensor:
    """Estimate ref / new - log(ref / new) - 1 from log probabilities: never negative, and its mean
    under draws from new is KL(new || ref) (Schulman 2020)."""
    log_ratio = reference - new
    return log_ratio.exp() - log_ratio - 1


class PPOLearner(ModelLearner[GPT]):
    """Proximal policy optimisation with a price for leaving the reference (Ouyang et al. 2022).

    Each token pays beta log(policy / reference); the last one gets the reward of the text.

    Args:
        policy: usually begins as the reference.
        reference: is not trained.
        reward: texts -> rewards.
        value: learns the sum of future rewards; usually begins as a reward model.
        config: see `TextPPOConfig`.
        steps: updates over which learning rates fall.
        prompt_len: tokens of a prompt.
    """

    def __init__(
        self,
        policy: GPT,
        reference: GPT,
        reward: Reward,
        value: RewardModel,
        config: TextPPOConfig,
        steps: int,
        prompt_len: int = 1,
    ):
        # No dropout: old and new probabilities of an answer must come from the same network.
        self.value = value.eval()
        self.reference, self.reward = _frozen(reference), reward
        self.config, self.prompt_len = config, prompt_len
        steps = steps * config.num_epochs * config.num_minibatches
        super().__init__(policy.eval(), _optimisation(policy, config, config.lr, steps, "policy"))
        self.value_optimisation = _optimisation(value, config, config.value_lr, steps, "value")

    def update(self, prompts: Tensor) -> dict[str, Tensor]:
        """Draw an answer to each prompt (B, prompt_len), and learn from them."""
        config = self.config
        texts = draw_answers(self.model, check_some(prompts, self.model))
        with torch.no_grad():
            old, counted = answer_log_probs(self.model, texts, self.prompt_len)
            reference, _ = answer_log_probs(self.reference, texts, self.prompt_len)
            score = self.reward(texts).to(old)
            rewards = token_rewards(score, old, reference, counted, config.beta)
            values = self.values(texts)
            advantages = gae(rewards, values, counted, config.gamma, config.gae_lambda)
            returns = advantages + values
            seen = advantages[counted]
            if len(seen) > 1:  # a single number has no standard deviation
                advantages = (advantages - seen.mean()) / (seen.std() + 1e-6)
        for rows in _minibatches(len(texts), config, texts.device):
            new, inside = answer_log_probs(self.model, texts[rows], self.prompt_len)
            gain = clipped_gain(new, old[rows], advantages[rows], config.clip)
            loss = -gain[inside].mean()
            self.optimisation.step(loss)
            error = self.values(texts[rows]) - returns[rows]
            value_loss = error[inside].square().mean()
            self.value_optimisation.step(value_loss)
        return {
            "loss": loss.detach(),
            "value_loss": value_loss.detach(),
            "reward": score.mean(),
            "kl": (old - reference).sum(1).mean(),
        }

    def values(self, texts: Tensor) -> Tensor:
        """Expected sum of rewards from each token of the answers on, (B, L)."""
        return self.value.scores(texts)[:, self.prompt_len - 1 : -1]

    def state_dict(self) -> dict:
        return {
            "policy": self.optimisation.state_dict(),
            "value": self.value_optimisation.state_dict(),
        }

    def load_state_dict(self, state: dict) -> None:
        self.optimisation.load_state_dict(state["policy"])
        self.value_optimisation.load_state_dict(state["value"])


class GRPOLearner(ModelLearner[GPT]):
    """Compares several answers to each prompt with one another; needs no value network.

    Args:
        policy, reference, reward, steps, prompt_len: see `PPOLearner`.
        config: see `GRPOConfig`, also for how the defaults differ from the paper.
    """

    def __init__(
        self,
        policy: GPT,
        reference: GPT,
        reward: Reward,
        config: GRPOConfig,
        steps: int,
        prompt_len: int = 1,
    ):
        self.reference, self.reward = _frozen(reference), reward
        self.config, self.prompt_len = config, prompt_len
        steps = steps * config.num_epochs * config.num_minibatches
        super().__init__(policy.eval(), _optimisation(policy, config, config.lr, steps, "policy"))

    def update(self, prompts: Tensor) -> dict[str, Tensor]:
        """Draw `group_size` answers to each prompt (B, prompt_len), and learn from them."""
        config = self.config
        check_some(prompts, self.model)
        texts = draw_answers(self.model, prompts.repeat_interleave(config.group_size, 0))
        with torch.no_grad():
            old, _ = answer_log_probs(self.model, texts, self.prompt_len)
            reference, _ = answer_log_probs(self.reference, texts, self.prompt_len)
            kl = (old - reference).sum(1)
            score = self.reward(texts).to(old)
            total = score - config.beta * kl if config.kl_in == "reward" else score
            groups = total.view(-1, config.group_size)
            advantages = group_advantages(groups, config.divide_by_std).view(-1, 1)
        for rows in _minibatches(len(texts), config, texts.device):
            new, inside = answer_log_probs(self.model, texts[rows], self.prompt_len)
            gain = clipped_gain(new, old[rows], advantages[rows], config.clip)
            if config.kl_in == "loss":
                gain = gain - config.beta * kl_estimate(new, reference[rows])
            gain = (gain * inside).sum(1)
            if config.mean_of_answer:
                gain = gain / inside.sum(1)
            loss = -gain.mean()
            self.optimisation.step(loss)
        return {"loss": loss.detach(), "reward": score.mean(), "kl": kl.mean()}


def draw_answers(policy: GPT, prompts: Tensor) -> Tensor:
    """Prompts (B, T) with drawn answers, (B, max_len), by torch's global generator."""
    return policy.generate(prompts, policy.config.max_len - prompts.shape[1])


def _minibatches(n: int, config: RolloutConfig, device: torch.device) -> Iterator[Tensor]:
    """Row indices of each minibatch; an epoch has each row once."""
    for _ in range(config.num_epochs):
        yield from torch.randperm(n, device=device).chunk(config.num_minibatches)


def _frozen(model: GPT) -> GPT:
    """Copy without gradients, so that a policy can serve as its own reference."""
    return copy.deepcopy(model).eval().requires_grad_(False)


def _optimisation(
    model: M, config: RolloutConfig, lr: float, steps: int, name: str
) -> Optimisation[M]:
    adam = torch.optim.Adam(model.parameters(), lr=lr)
    final = config.final_lr * lr / config.lr
    limits = config.max_norm, config.ema
    return Optimisation(model, adam, steps, final, *limits, name=name)

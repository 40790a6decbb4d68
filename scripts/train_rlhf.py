"""Train a policy by human feedback: demonstrations, a reward model, then PPO, GRPO or DPO."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import tyro

from generative.rlhf.config import DPOConfig, GRPOConfig, TextPPOConfig
from generative.text.config import GPTConfig, TextLossConfig, gpt2_block
from generative.training.cli import Input, start
from generative.training.ranges import Checked, Count, Device, Ending, Folder, Range, Seed, Workers
from generative.training.reports import add_to_report
from generative.training.run import Run

if TYPE_CHECKING:
    from torch import Tensor

    from generative.known.requests import Requests
    from generative.rlhf import RewardModel
    from generative.text.gpt import GPT

LossConfig = (
    Annotated[TextPPOConfig, tyro.conf.subcommand("ppo")]
    | Annotated[GRPOConfig, tyro.conf.subcommand("grpo")]
    | Annotated[DPOConfig, tyro.conf.subcommand("dpo")]
)


@dataclass(frozen=True)
class Args(Checked):
    """Train a policy by human feedback: demonstrations, a reward model, then PPO, GRPO or DPO.

    Requests and answers are of a language so small that the best policy is known: the result says
    how far the trained one stays below it.

    The preset ppo takes 2 to 5 minutes on one core.
    """

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"steps"})

    out: Folder = Path("runs/rlhf")
    """Run folder; the policy is in its `model` folder, the models before it in the folders
    `sft` and `reward`."""
    start_from: Annotated[Path, Input("train_rlhf.py")] | None = None
    """Folder of an earlier run, whose `sft` and `reward` are used."""
    num_letters: Count = 3
    """Letters of the language; each is a request."""
    length: Count = 4
    """Most tokens of an answer."""
    model: GPTConfig = field(
        default_factory=lambda: GPTConfig(
            num_layers=2,
            block=gpt2_block(32, 4, dropout=0.0),
            tied=True,
            from_start=False,
        )
    )
    """Policy, reward model and value network; vocab_size and max_len follow from the language."""
    num_demonstrations: Count = 20_000
    """Answers that people gave."""
    sft: TextLossConfig = field(
        default_factory=lambda: TextLossConfig(lr=3e-3, final_lr=3e-5, warmup=20, clip=1.0)
    )
    sft_steps: Count = 100
    num_rankings: Count = 20_000
    """Groups of drawn answers that people ranked."""
    num_ranked: Annotated[int, Range(2, 2**20)] = 4
    """Answers in a group."""
    reward: TextLossConfig = field(
        default_factory=lambda: TextLossConfig(
            optimizer="muon", lr=1e-2, final_lr=1e-4, warmup=20, beta2=0.99, clip=1.0, ema=0.98
        )
    )
    reward_steps: Count = 350
    loss: LossConfig = field(default_factory=TextPPOConfig)
    """Each method has settings of its own; DPO learns from the rankings, the others from the reward
    model."""
    steps: Count = 100
    """Updates of the policy."""
    batch_size: Count = 384
    """Demonstrations or rankings of a step; answers that a policy draws for an update."""
    log_every: Count = 20
    report: Annotated[Path, Ending((".json",))] | None = None
    """JSON file to which the result is added, under the name of the run's folder."""
    threads: Workers = 0
    """CPU threads; 0 tries one and all for a few steps, and keeps the faster."""
    device: Device = "auto"
    seed: Seed = 1


DEFAULT_PRESET = "ppo"
PRESETS = {
    "ppo": Args(),
    "grpo": Args(
        out=Path("runs/rlhf-grpo"), loss=GRPOConfig(lr=3e-3, final_lr=3e-5), steps=200
    ),
    "dpo": Args(
        out=Path("runs/rlhf-dpo"),
        loss=DPOConfig(
            optimizer="muon", lr=2e-2, final_lr=2e-4, warmup=20, beta2=0.99, clip=1.0, ema=0.98
        ),
        steps=400,
    ),
    # Advantages divided by deviations, means over tokens, the price in the loss.
    "grpo-published": Args(
        out=Path("runs/rlhf-grpo-published"),
        loss=GRPOConfig(
            lr=3e-3, final_lr=3e-5, divide_by_std=True, mean_of_answer=True, kl_in="loss"
        ),
        steps=200,
    ),
    "smoke": Args(
        num_letters=2,
        length=3,
        model=GPTConfig(
            num_layers=1, block=gpt2_block(8, 2, dropout=0.0), tied=True, init="normal",
            from_start=False,
        ),
        num_demonstrations=100,
        sft_steps=5,
        num_rankings=50,
        reward_steps=5,
        steps=6,
        batch_size=16,
        log_every=2,
    ),
}  # fmt: skip


def main(args: Args) -> Path:
    """Returns the folder of the trained policy."""
    import torch

    from generative.known.requests import Requests
    from generative.rlhf import RewardModel
    from generative.text.gpt import GPT
    from generative.training.loop import fit

    with Run.open(args, kind="train_rlhf") as run:
        if run.done:
            return run.path / "model"
        if args.threads:
            torch.set_num_threads(args.threads)
        requests = Requests(args.num_letters, args.length)
        earlier = run.path if args.start_from is None else args.start_from
        if args.start_from is None:
            train_sft(args, requests)
        reference = GPT.from_pretrained(earlier / "sft" / "model").to(run.device)
        sizes = (reference.config.vocab_size, reference.config.max_len)
        if sizes != (requests.vocab_size, 1 + requests.length):
            raise ValueError(
                f"{earlier} has {sizes[0] - 2} letters and answers of {sizes[1] - 1}, this run "
                f"{args.num_letters} and {args.length}; give them the same"
            )
        exact = Exact(requests, reference, args.loss.beta)
        if args.start_from is None:
            train_reward(args, requests, exact)
        reward = RewardModel.from_pretrained(earlier / "reward" / "model").to(run.device)

        learner, batch = make_learner(args, run, requests, reference, reward)

        def show(step: int) -> None:
            outcome = exact.outcome(learner.kept)
            lines = [f"{name} {value:.4f}" for name, value in outcome.items()]
            run.metrics.log_text(
                step, "answers", "\n".join([*lines, "", show_answers(learner.kept, requests)])
            )

        fit(
            learner, batch, run, args.steps,
            log_every=args.log_every, what=f"training by {method(args)}", on_log=show,
        )  # fmt: skip
        policy = learner.kept
        policy.save_pretrained(run.path / "model")
        run.finish({**run.metrics.last(), **exact.outcome(policy), **exact.learned(reward)})
        if args.report is not None:
            add_to_report(args.report, run)
        return run.path / "model"


def method(args: Args) -> str:
    """Name of the method: PPO, GRPO or DPO."""
    return type(args.loss).__name__.removesuffix("Config")


def train_sft(args: Args, requests: Requests) -> None:
    """A policy from demonstrations, in the run's folder `sft`."""
    from dataclasses import replace
    from functools import partial

    import torch

    from generative.rlhf import answer_loss
    from generative.text.gpt import GPT
    from generative.text.tokens import TextLearner
    from generative.training.loop import fit

    with Run.open(args, args.out / "sft", kind="train_rlhf sft") as run:
        if run.done:
            return
        generator = torch.Generator().manual_seed(run.seed_for("demonstrations"))
        texts = requests.demonstrations(args.num_demonstrations, generator)
        torch.manual_seed(run.seed_for("weights"))
        config = replace(args.model, vocab_size=requests.vocab_size, max_len=1 + requests.length)
        model = GPT(config).to(run.device)
        learner = TextLearner(model, args.sft, args.sft_steps, partial(answer_loss, model))
        fit(
            learner, rows_of(texts, run, args.batch_size), run, args.sft_steps,
            log_every=args.log_every, what="learning from demonstrations",
        )  # fmt: skip
        learner.kept.save_pretrained(run.path / "model")
        people = requests.demonstration_log_probs()
        gap = people.exp() * (people - requests.log_probs(learner.kept))
        run.finish({**run.metrics.last(), "kl_from_people": float(gap.sum(1).mean())})


def train_reward(args: Args, requests: Requests, exact: Exact) -> None:
    """A reward model from rankings, in the run's folder `reward`."""
    import torch

    from generative.rlhf import RewardModel
    from generative.text.tokens import TextLearner
    from generative.training.loop import fit

    with Run.open(args, args.out / "reward", kind="train_rlhf reward") as run:
        if run.done:
            return
        ranked = rankings(args, run, requests, exact.policy)
        torch.manual_seed(run.seed_for("weights"))
        model = RewardModel.of(exact.policy).train()
        learner = TextLearner(model, args.reward, args.reward_steps, model.loss)
        fit(
            learner, rows_of(ranked, run, args.batch_size), run, args.reward_steps,
            log_every=args.log_every, what="learning from rankings",
        )  # fmt: skip
        learner.kept.save_pretrained(run.path / "model")
        run.finish({**run.metrics.last(), **exact.learned(learner.kept)})


def rankings(args: Args, run: Run, requests: Requests, policy: GPT) -> Tensor:
    """Answers of a policy as people rank them, int64 (num_rankings, num_ranked, T), best first.

    They depend on the seed alone, so that DPO sees those that the reward model has learnt from.
    """
    import torch

    device = next(policy.parameters()).device
    generator = torch.Generator(device).manual_seed(run.seed_for("answers"))
    people = torch.Generator().manual_seed(run.seed_for("people"))
    prompts = requests.ask(args.num_rankings, people).repeat_interleave(args.num_ranked, 0)
    texts = policy.generate(prompts.to(device), requests.length, generator=generator).cpu()
    return requests.rank(texts.view(args.num_rankings, args.num_ranked, -1), people)


def make_learner(
    args: Args, run: Run, requests: Requests, reference: GPT, reward: RewardModel
) -> tuple[Any, Any]:
    """The learner of the policy, and the batches that it takes."""
    import copy

    import torch

    from generative.rlhf import DPOLearner, GRPOLearner, PPOLearner, RewardModel

    policy, config = copy.deepcopy(reference), args.loss
    if isinstance(config, DPOConfig):
        ranked = rankings(args, run, requests, reference)
        return (
            DPOLearner(policy, reference, config, args.steps),
            rows_of(ranked, run, args.batch_size),
        )
    if isinstance(config, GRPOConfig):
        learner = GRPOLearner(policy, reference, reward, config, args.steps)
        num_prompts = max(1, args.batch_size // config.group_size)
    else:
        value = RewardModel.of(reward)
        learner = PPOLearner(policy, reference, reward, value, config, args.steps)
        num_prompts = args.batch_size

    def prompts(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(run.seed_for("prompts", step))
        return requests.ask(num_prompts, generator).to(run.device)

    return learner, prompts


def rows_of(texts: Tensor, run: Run, size: int) -> Any:
    """Batches of a step: random rows."""
    import torch

    def batch(step: int) -> Tensor:
        rows = run.rng("batch", step).integers(len(texts), size=size)
        return texts[torch.from_numpy(rows)].to(run.device)

    return batch


class Exact:
    """Exact figures, over all answers, of a policy and of a reward model."""

    def __init__(self, requests: Requests, reference: GPT, beta: float):
        self.requests, self.policy, self.beta = requests, reference, beta
        self.reference = requests.log_probs(reference)
        self.best = requests.optimum(self.reference, requests.rewards, beta)

    def outcome(self, policy: GPT) -> dict[str, float]:
        """Objective, reward and KL of a policy, the optimum, and how far it is below."""
        log_p = self.requests.log_probs(policy)
        found = self.requests.outcome(log_p, self.reference, self.requests.rewards, self.beta)
        names = {f"exact_{name}": value for name, value in found._asdict().items()}
        implied = self.beta * (log_p - self.reference)
        return {
            **names,
            "optimum": self.best.objective,
            "gap": self.best.objective - found.objective,
            "implied_reward_error": self._error(implied),
        }

    def learned(self, reward: RewardModel) -> dict[str, float]:
        """Error of a reward model, and the loss of the policy that is best by that reward model."""
        import torch

        requests = self.requests
        with torch.no_grad():
            device = next(reward.parameters()).device
            found = reward(requests.texts.flatten(0, 1).to(device)).cpu().double()
        found = found.view(requests.rewards.shape)
        misled = requests.optimum(self.reference, found, self.beta).log_prob
        outcome = requests.outcome(misled, self.reference, requests.rewards, self.beta)
        return {
            "reward_error": self._error(found),
            "reward_model_gap": self.best.objective - outcome.objective,
        }

    def _error(self, rewards: Tensor) -> float:
        """Under the reference, from which the ranked answers come."""
        from generative.known.requests import rms_difference

        return rms_difference(rewards, self.requests.rewards, self.reference)


def show_answers(policy: GPT, requests: Requests, num: int = 5) -> str:
    """The most probable answers to every request."""
    letters = "·?" + "abcdefghijklmnopqrstuvwxyz"
    lines = []
    for prompt, log_p in zip(requests.prompts, requests.log_probs(policy), strict=True):
        best = log_p.topk(min(num, len(log_p)))
        words = [
            "".join(letters[token] for token in requests.answers[i]) + f" {p:.3f}"
            for p, i in zip(best.values.exp().tolist(), best.indices.tolist(), strict=True)
        ]
        lines.append(f"{letters[int(prompt)]}: " + ", ".join(words))
    return "\n".join(lines)


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)

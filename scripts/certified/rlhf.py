"""Learning from human feedback against the best policy, by summing over all answers."""

from __future__ import annotations

from dataclasses import replace

from scripts.certified.common import Certificate, Line, Settings

__all__ = ["CERTIFICATES"]


def rlhf(settings: Settings) -> list[Line]:
    """PPO, GRPO and DPO from the same demonstrations and rankings."""
    from generative.training.run import read_result
    from scripts import train_rlhf

    lines, first = [], settings.work / "ppo"
    for name in ("ppo", "grpo", "dpo"):
        args = train_rlhf.PRESETS[name]
        if settings.smoke:
            args = replace(train_rlhf.PRESETS["smoke"], loss=args.loss)
        out, start_from = settings.work / name, None if name == "ppo" else first
        train_rlhf.main(replace(args, out=out, start_from=start_from, seed=settings.seed))
        found = read_result(out)
        value, best = found["exact_objective"], found["optimum"]
        what = f"{name.upper()}, expected reward less 0.5 KL from the reference, all answers"
        lines.append(Line(what, value, best, "beta log Z", best - value, 0.02))
    people = read_result(first / "sft")["kl_from_people"]
    reward = read_result(first / "reward")["reward_model_gap"]
    what = "the best policy by the reward model, what it loses by the true reward"
    return [
        Line("KL(people || SFT), nats an answer", people, 0.0, "exact", people, 0.01),
        Line(what, best - reward, best, "beta log Z", reward, 0.02),
        *lines,
    ]


CERTIFICATES = {"rlhf": Certificate("RLHF, a language of requests", rlhf, 9)}

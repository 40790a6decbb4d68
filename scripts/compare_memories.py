"""Train an LSTM and a Transformer as M on the same episodes, and compare their predictions.

python scripts/compare_memories.py quick --results docs/results/memories
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from generative.training.cli import Input, start
from generative.training.ranges import Checked, Count, Folder, Seed, Workers
from generative.training.run import Run
from scripts import (
    collect_rollouts,
    encode_rollouts,
    train_mdnrnn,
    train_transformer_memory,
)

if TYPE_CHECKING:
    from worldmodels.memory import Memory
    from worldmodels.sequences import EncodedRollouts

NAMES = {"lstm": "MDN-RNN (LSTM)", "transformer": "Transformer", "committed": "the agent's own M"}
COLOURS = {"lstm": "#2a6f97", "transformer": "#d1495b", "committed": "#6b705c"}


@dataclass(frozen=True)
class Args(Checked):
    """Train an LSTM and a Transformer as M on the same episodes, and compare their predictions.

    Both have about as many weights, see the same batches and take as many steps. Held-out episodes
    are driven without noise (for the dream gap) and with (for the errors).
    """

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"workers", "results"})

    out: Folder = Path("runs/compare_memories")
    """Run folder."""
    results: Folder | None = None
    """Folder that also gets compare.json and compare.png."""
    agent: Annotated[Path, Input("train_in_dream.py")] = Path("pretrained/carracing-dream")
    """Folder of the agent: its V encodes, and it drives."""
    driven: Count = 60
    """Training episodes that the agent drives with noise."""
    random: Count = 60
    """Training episodes that are driven at random."""
    held_out: Count = 12
    """Episodes of each held-out set."""
    decisions: Count = 150
    """Largest number of decisions of an episode."""
    steps: Count = 600
    """Optimiser steps."""
    batch_size: Count = 16
    """Windows per step."""
    length: Count = 64
    """Decisions per window."""
    seeds: tuple[Count, ...] = (1,)
    """Seeds of the trainings."""
    history: Count = 32
    """Decisions that M reads before a prediction."""
    horizon: Count = 50
    """Decisions that M predicts."""
    every: Count = 5
    """Decisions between two predictions."""
    dreams: Count = 8
    """Number of dreams from each moment."""
    lanes: Count = 256
    """Dreams in a batch for the measurement of speed."""
    workers: Workers = 1
    """Processes that record episodes; no result depends on their number."""
    smallest: bool = False
    """Use the smoke presets' sizes of both M."""
    seed: Seed = 1
    """Seed of the recordings and the dreams."""


PRESETS = {
    "quick": Args(),
    "smoke": Args(
        driven=2, random=2, held_out=2, decisions=16, steps=3, batch_size=4, length=8, seeds=(1,),
        history=4, horizon=6, dreams=2, lanes=8, workers=0, smallest=True,
    ),
}  # fmt: skip
DEFAULT_PRESET = "quick"


def main(args: Args) -> Path:
    """Returns the file of the comparison."""
    import torch

    from generative.training.files import (
        MAX_LIST_BYTES,
        read_file,
        read_json,
        write_file,
        write_json,
    )
    from worldmodels.memory import load_memory
    from worldmodels.sequences import EncodedRollouts

    with Run.open(args, kind="compare_memories") as run:
        report = run.path / "compare.json"
        if not run.done:
            torch.set_num_threads(1)
            data = record(args, run.path)
            held_out = {
                name: EncodedRollouts.load(data[name]) for name in ("held-out", "held-out-noise")
            }
            memories: dict[str, list[dict[str, Any]]] = {}
            for kind in ("lstm", "transformer"):
                for seed in args.seeds:
                    folder = train(kind, seed, args, data["train"], run.path)
                    found = measure(load_memory(folder), args, held_out)
                    memories.setdefault(kind, []).append({"seed": seed, **found})
            own = measure(load_memory(args.agent / "memory"), args, held_out)
            memories["committed"] = [own]
            write_json(
                report,
                {
                    "steps": args.steps,
                    "batch_size": args.batch_size,
                    "length": args.length,
                    "train_episodes": args.driven + args.random,
                    "train_decisions": int(EncodedRollouts.load(data["train"]).lengths.sum()),
                    "held_out_episodes": 2 * args.held_out,
                    "history": args.history,
                    "horizon": args.horizon,
                    "memories": memories,
                },
            )
            draw(read_json(report), run.path / "compare.png")
            run.finish({name: len(found) for name, found in memories.items()})
        if args.results is not None:
            args.results.mkdir(parents=True, exist_ok=True)
            for name in ("compare.json", "compare.png"):
                write_file(args.results / name, read_file(run.path / name, MAX_LIST_BYTES))
        print(table(read_json(report)))
        return report


def record(args: Args, folder: Path) -> dict[str, Path]:
    """Record and encode the training episodes and the two held-out sets."""
    from agents.world_model_agent import AgentConfig
    from generative.training.files import read_json
    from generative.training.settings import from_json

    repeat = from_json(AgentConfig, read_json(args.agent / "agent.json")).action_repeat
    common = collect_rollouts.Args(
        decisions=args.decisions, action_repeat=repeat, workers=args.workers
    )
    sets = {
        "driven": replace(common, agent=args.agent, episodes=args.driven, max_idle=20),
        "random": replace(common, episodes=args.random, max_idle=20, anywhere=0.8),
        "held-out": replace(common, agent=args.agent, episodes=args.held_out, noise=0.0),
        "held-out-noise": replace(common, agent=args.agent, episodes=args.held_out),
    }
    episodes = {
        name: collect_rollouts.main(
            replace(settings, out=folder / name, seed=1000 * args.seed + number)
        )
        for number, (name, settings) in enumerate(sets.items())
    }

    def encode(name: str, *parts: str) -> Path:
        rollouts = tuple(episodes[part] for part in parts)
        vision = args.agent / "vision"
        return encode_rollouts.main(
            encode_rollouts.Args(folder / f"encoded-{name}", rollouts, vision, device="cpu")
        )

    held_out = {name: encode(name, name) for name in ("held-out", "held-out-noise")}
    return {"train": encode("train", "driven", "random"), **held_out}


def train(kind: str, seed: int, args: Args, data: Path, folder: Path) -> Path:
    """Train an M; returns its folder."""
    script = {"lstm": train_mdnrnn, "transformer": train_transformer_memory}[kind]
    settings = script.PRESETS["smoke" if args.smallest else "quick"]
    settings = replace(
        settings,
        out=folder / f"{kind}-{seed}",
        encoded=(data,),
        loss=replace(settings.loss, lr=1e-3, final_lr=1e-4, bf16=False),
        steps=args.steps,
        batch_size=args.batch_size,
        length=args.length,
        threads=1,
        device="cpu",
        seed=seed,
    )
    return script.main(settings)


def measure(memory: Memory, args: Args, held_out: dict[str, EncodedRollouts]) -> dict[str, Any]:
    """Measure one M on the held-out episodes, and its speed."""
    import numpy as np

    from agents.world_model_agent import WorldModelAgent
    from worldmodels.dreaming.starts import warm_up
    from worldmodels.memory.scores import (
        Driver,
        dreamed_returns,
        moments,
        open_loop,
        real_returns,
    )

    noisy, calm = held_out["held-out-noise"], held_out["held-out"]
    rows = moments(noisy, args.horizon, args.history, args.every)
    errors = open_loop(
        memory, warm_up(memory, noisy), noisy, rows, args.horizon, args.dreams, seed=args.seed
    )

    agent = WorldModelAgent.from_pretrained(args.agent)
    own = agent.world.memory
    driver = Driver(agent.controller, own, warm_up(own, calm))
    rows = moments(calm, args.horizon, args.history, args.every)
    dreamed = dreamed_returns(
        memory, warm_up(memory, calm), driver, rows, args.horizon, args.dreams, seed=args.seed
    )
    real = real_returns(calm, rows, args.horizon)
    return {
        "weights": sum(p.numel() for p in memory.parameters() if p.requires_grad),
        "nll": one_step_nll(memory, noisy, args.length),
        "errors": {name: np.round(e, 5).tolist() for name, e in errors._asdict().items()},
        "dream": {
            "moments": len(rows),
            "real_return": float(real.mean()),
            "dreamed_return": float(dreamed.mean()),
            "absolute_gap": float(np.abs(dreamed - real).mean()),
            "correlation": float(np.corrcoef(dreamed, real)[0, 1]),
        },
        **speed(memory, args, noisy),
    }


def one_step_nll(memory: Memory, encoded: EncodedRollouts, length: int) -> float:
    """Nats per dimension of the next z, over windows from every episode."""
    import torch

    from worldmodels.configs import MemoryLossConfig
    from worldmodels.memory import memory_loss
    from worldmodels.sequences import SequenceBatches

    batch = SequenceBatches(encoded, 64, length, seed=0)(0)
    with torch.no_grad():
        out, _ = memory(batch["z"], batch["action"], None, batch["prev_reward"])
    return float(memory_loss(out, batch, memory.config, MemoryLossConfig()).nll)


def speed(
    memory: Memory, args: Args, encoded: EncodedRollouts, horizon: int = 10
) -> dict[str, float]:
    """Decisions per second of one core: in training, by `step`, and in a batch of dreams."""
    import copy

    import torch

    from worldmodels.configs import ControllerConfig, DreamConfig, MemoryLossConfig
    from worldmodels.dreaming.rollout import Dream
    from worldmodels.dreaming.starts import DreamStarts
    from worldmodels.memory import MemoryLearner
    from worldmodels.sequences import SequenceBatches

    mem, lanes = memory.config, args.lanes
    learner = MemoryLearner(copy.deepcopy(memory), MemoryLossConfig(), steps=100)
    batch = SequenceBatches(encoded, args.batch_size, args.length, seed=0)(0)
    z, action = torch.zeros(1, mem.latent_dim), torch.zeros(1, mem.action_dim)
    state = memory.initial_state(1)
    controller = ControllerConfig(mem.latent_dim, mem.hidden_dim, mem.action_dim)
    dream = Dream(memory, controller, DreamConfig(horizon))
    rollouts = max(1, lanes // 8)
    h, c = memory.initial_state(rollouts)
    starts = DreamStarts(torch.zeros(rollouts, mem.latent_dim), h, c, torch.zeros(rollouts))
    candidates = torch.zeros(lanes // rollouts, controller.num_parameters)

    @torch.no_grad()
    def drive() -> int:
        nonlocal state
        for _ in range(50):
            _, state = memory.step(z, action, state)
        return 50

    def learn() -> int:
        learner.update(batch)
        return args.batch_size * args.length

    def dreams() -> int:
        dream.evaluate(candidates, starts, seed=0)
        return lanes * horizon

    found = {}
    for name, work in {"training": learn, "step": drive, "dream": dreams}.items():
        work()  # compiles and warms up
        rates = []
        for _ in range(5):
            begun = time.process_time()
            done = work()
            rates.append(done / (time.process_time() - begun))
        found[f"{name}_decisions_per_second"] = round(sorted(rates)[2], 1)
    return found


def table(comparison: dict[str, Any]) -> str:
    """Means over the seeds as text, 80 columns wide."""
    ends = sorted({1, 10, comparison["horizon"]} & set(range(1, comparison["horizon"] + 1)))
    lines = {"": [NAMES[kind] for kind in comparison["memories"]]}

    def add(name: str, value, form: str = ".3f") -> None:
        columns = []
        for found in comparison["memories"].values():
            values = [value(one) for one in found]
            columns.append(format(sum(values) / len(values), form))
        lines[name] = columns

    add("weights", lambda m: m["weights"], ",.0f")
    add("one step, nats per dimension", lambda m: m["nll"])
    for end in ends:
        add(f"z error after {end}", lambda m, end=end: m["errors"]["z"][end - 1])
    add(f"return error after {ends[-1]}", lambda m: m["errors"]["paid"][-1], ".2f")
    add("real return", lambda m: m["dream"]["real_return"], ".1f")
    add("dreamed return", lambda m: m["dream"]["dreamed_return"], ".1f")
    add("gap of a moment", lambda m: m["dream"]["absolute_gap"], ".1f")
    add("correlation", lambda m: m["dream"]["correlation"], ".2f")
    add("training, decisions/s", lambda m: m["training_decisions_per_second"], ",.0f")
    add("step, decisions/s", lambda m: m["step_decisions_per_second"], ",.0f")
    add("dream, decisions/s", lambda m: m["dream_decisions_per_second"], ",.0f")
    return "\n".join(
        f"{name:29}" + "".join(f"{column:>17}" for column in columns)
        for name, columns in lines.items()
    )


def draw(comparison: dict[str, Any], path: Path) -> None:
    """Draw errors by horizon, one line per seed; and dreamed against real returns."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
    ahead = range(1, comparison["horizon"] + 1)
    bars: list[tuple[str, float, str]] = []
    for kind, found in comparison["memories"].items():
        style: dict[str, Any] = {"color": COLOURS[kind], "ls": "--" if kind == "committed" else "-"}
        for i, one in enumerate(found):
            label = {"label": NAMES[kind]} if i == 0 else {}
            left.plot(ahead, one["errors"]["z"], **style, **label)
            middle.plot(ahead, one["errors"]["paid"], **style, **label)
            name = NAMES[kind] + (f", seed {one['seed']}" if "seed" in one else "")
            bars.append((name, one["dream"]["dreamed_return"], COLOURS[kind]))
    still = comparison["memories"]["committed"][0]["errors"]["still"]
    left.plot(ahead, still, color="0.6", ls=":", label="z stays as it is")
    left.set(xlabel="decisions ahead", ylabel="RMS error of z, per dimension")
    middle.set(xlabel="decisions ahead", ylabel="mean error of the return so far")
    right.barh([b[0] for b in bars], [b[1] for b in bars], color=[b[2] for b in bars])
    real = comparison["memories"]["committed"][0]["dream"]["real_return"]
    right.axvline(real, color="0.2", ls="--")
    right.set(xlabel=f"dreamed return (dashed: real, {real:.0f})")
    right.invert_yaxis()
    for axes in (left, middle):
        axes.set_ylim(0)
        axes.grid(alpha=0.3)
    left.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=130)
    plt.close(figure)


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)

"""Settings of scripts/train_in_dream.py."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from generative.training.ranges import (
    Checked,
    Count,
    Device,
    Folder,
    Positive,
    Range,
    Seed,
    Workers,
)
from scripts import (
    collect_rollouts,
    standardise_vectors,
    train_controller,
    train_mdnrnn,
    train_transformer_memory,
    train_vae,
    train_vision,
)

FIRST = collect_rollouts.PRESETS["quick"]
LATER = replace(FIRST, episodes=50, decisions=100, max_idle=40, anywhere=0.7)
VISION = train_vae.PRESETS["quick"]
AUTOENCODER = train_vision.PRESETS["autoencoder"]
VisionArgs = (
    Annotated[train_vae.Args, tyro.conf.subcommand("vae")]
    | Annotated[train_vision.Args, tyro.conf.subcommand("autoencoder")]
    | Annotated[standardise_vectors.Args, tyro.conf.subcommand("vector")]
)
"""V has the settings of the script that trains its family."""
MemorySettings = (
    Annotated[train_mdnrnn.Args, tyro.conf.subcommand("mdnrnn")]
    | Annotated[train_transformer_memory.Args, tyro.conf.subcommand("transformer")]
)
"""M has the settings of the script that trains its kind."""
MEMORY = train_mdnrnn.PRESETS["quick"]
TRANSFORMER = train_transformer_memory.PRESETS["quick"]
CONTROLLER = train_controller.PRESETS["quick"]


@dataclass(frozen=True)
class Args(Checked):
    """Train an agent inside its own dream, end to end: for CarRacing, or for --env ID.

    Settings of the stages (collect, vision, memory, controller) are those of the scripts that run
    them; their paths, seeds and workers are set here.
    """

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"rounds", "workers"})

    out: Folder = Path("runs/dream")
    """Run folder; the agent is in its `agent` folder, the report in report.html."""
    env: str = ""
    """Any Gymnasium environment of images or vectors with a Box of actions or discrete ones; empty:
    CarRacing, trained in our own drawing and scored on the stock game."""
    env_kwargs: str = "{}"
    """For gymnasium.make, as a JSON object: '{"continuous": false}'."""
    rounds: Count = 6
    """Rounds of collecting, training V and M, dreaming and choosing. A finished run goes on if it
    is given more; its agent is then chosen, and scored, again."""
    action_repeat: Count = 3
    """Environment steps per decision."""
    first: collect_rollouts.Args = FIRST
    """The first recording, by random drivers."""
    collect: collect_rollouts.Args = LATER
    """Every later recording, by the agent of the round before."""
    vision: VisionArgs = VISION
    """V in the first round. Presets like quick-autoencoder have one of another family than the VAE,
    with settings of its own."""
    vision_rounds: Count = 3
    """Rounds that train V; then it stays as it is."""
    vision_steps: Count = 500
    """Steps of V in the later of these rounds."""
    memory: MemorySettings = MEMORY
    """M in the first round. Presets like quick-transformer have a Transformer in place of the LSTM,
    with settings of its own."""
    memory_steps: Count = 500
    """Steps of M in later rounds."""
    memory_from_recording: bool = False
    """Take from the first recording M's reward_scale, the root mean square of its rewards, and
    leave the end head out where no episode of it ended."""
    controller: train_controller.Args = CONTROLLER
    """C, from zero in every round: what an early M taught would hold it back."""
    pace: Positive | None = 0.9
    """Dreams of CarRacing pay no more than this multiple of the pace that finishes a lap just in
    time. Haste earns next to nothing in the game, and dreams show fewer sharp bends than there are.
    None: dreams pay what M says."""
    choose_episodes: Count = 6
    """Real episodes per controller to choose between those of a round."""
    final_agents: Count = 3
    """Controllers, the best of all rounds, that drive again at the end."""
    final_episodes: Count = 16
    """Real episodes for each of them."""
    test_episodes: Annotated[int, Range(1, 100)] = 20
    """Published seeds that the final agent is scored on: tracks of the stock game, or episodes of
    the environment."""
    episode_steps: Count | None = 1000
    """Environment steps of the real episodes that choose and score (CarRacing ends at 1000); None:
    as many as the environment allows."""
    film_steps: Count = 500
    """Environment steps that the film in the report shows (of CarRacing; 50 are a second)."""
    workers: Workers = 2
    """Processes that collect, dream and choose. Results do not depend on it."""
    threads: Workers = 0
    """CPU threads that train V and M; 0 tries one and all for a few steps, and keeps what is
    quicker."""
    device: Device = "auto"
    seed: Seed = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.controller.where != "dream" or not self.memory.model.predict_reward:
            raise ValueError(
                "here C learns in the dream alone: controller.where must be dream and M needs "
                "memory.model.predict_reward (train_controller.py trains on real tracks)"
            )
        if self.controller.dream.pace_cap is not None:
            raise ValueError(
                f"controller.dream.pace_cap is {self.controller.dream.pace_cap}; here it follows "
                "from --pace: set that, and leave the cap out"
            )

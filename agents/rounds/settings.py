"""Settings of the rounds that train an agent inside its own dream."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar

import tyro

from agents.rounds.controller import QUICK_CONTROLLER, ControllerSettings, ControllerTraining
from agents.rounds.memory import (
    QUICK_MDNRNN,
    MDNRNNSettings,
    MDNRNNTraining,
    TransformerSettings,
)
from agents.rounds.recording import (
    QUICK_FIRST,
    QUICK_LATER,
    AgentRecording,
    RandomRecording,
    Recording,
)
from agents.rounds.vision import (
    QUICK_VAE,
    AutoencoderSettings,
    VAESettings,
    VAETraining,
    VectorSettings,
)
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
from worldmodels.configs import MDNRNNConfig

__all__ = ["AnyMemory", "RoundsSettings", "AnyVision", "without_places"]

AnyVision = (
    Annotated[VAESettings, tyro.conf.subcommand("vae")]
    | Annotated[AutoencoderSettings, tyro.conf.subcommand("autoencoder")]
    | Annotated[VectorSettings, tyro.conf.subcommand("vector")]
)
"""V of any family."""
AnyMemory = (
    Annotated[MDNRNNSettings, tyro.conf.subcommand("mdnrnn")]
    | Annotated[TransformerSettings, tyro.conf.subcommand("transformer")]
)
"""M of either kind."""


@dataclass(frozen=True)
class RoundsSettings(Checked):
    """Train an agent inside its own dream, end to end: for CarRacing, or for --env ID.

    Stages (first, collect, vision, memory, controller) have the settings of the commands that run
    them alone, without folders, seed, workers, threads and device, which are the same for all.

    The preset quick takes 7 to 10 minutes on 2 cores with bfloat16, 35 without it.
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
    first: RandomRecording = QUICK_FIRST
    """The first recording, by random drivers."""
    collect: AgentRecording = QUICK_LATER
    """Every later recording, by the agent of the round before."""
    vision: AnyVision = QUICK_VAE
    """V in the first round. Presets like quick-autoencoder have one of another family than the VAE,
    with settings of its own."""
    vision_rounds: Count = 3
    """Rounds that train V; then it stays as it is."""
    vision_steps: Count = 500
    """Steps of V in the later of these rounds."""
    memory: AnyMemory = QUICK_MDNRNN
    """M in the first round; its latent_dim and action_dim follow from V and the environment.
    Presets like quick-transformer have a Transformer in place of the LSTM."""
    memory_steps: Count = 500
    """Steps of M in later rounds."""
    memory_from_recording: bool = False
    """Take M's reward_scale from the first recording, the root mean square of its rewards, in place
    of memory.model.reward_scale, and leave the end head out where no episode of it ended."""
    controller: ControllerSettings = QUICK_CONTROLLER
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
    """Processes that collect, dream and choose; on a GPU one process dreams. Results do not depend
    on it."""
    threads: Workers = 0
    """CPU threads that train V and M; 0 tries one and all for a few steps, and keeps the
    faster."""
    device: Device = "auto"
    seed: Seed = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.memory.model.predict_reward:
            raise ValueError("dreams need rewards: M needs memory.model.predict_reward")
        for name in ("pace_cap", "reward_clip"):
            value = getattr(self.controller.dream, name)
            source = {"pace_cap": "--pace", "reward_clip": "--controller.reward-quantile"}[name]
            if value is not None:
                raise ValueError(
                    f"controller.dream.{name} is {value}; here it follows from {source}: set that, "
                    "and leave this out"
                )
        if self.controller.evaluation.racing:
            raise ValueError(
                f"controller.evaluation.racing is {self.controller.evaluation.racing}, but the "
                "dreams of a candidate run at once; it saves time on real tracks only"
            )
        model, default = self.memory.model, MDNRNNConfig()
        latent_dim = getattr(self.vision, "model", default).latent_dim
        if model.latent_dim not in (default.latent_dim, latent_dim):
            raise ValueError(
                f"memory.model.latent_dim is {model.latent_dim}; here it follows from V: leave it "
                "out (and set vision.model.latent_dim where V has a model)"
            )
        if model.action_dim != default.action_dim:
            raise ValueError(
                f"memory.model.action_dim is {model.action_dim}; here it follows from the actions "
                "of the environment: leave it out"
            )

    @classmethod
    def upgrade(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """Older runs held places for every stage too; only one of them was used."""
        groups = {name: settings[name] for name in STAGES if isinstance(settings.get(name), dict)}
        start = groups.get("controller", {}).get("start_from")
        if start is not None:
            raise ValueError(
                f"every round of this run begins with the controller of {start} "
                "(controller.start_from), which rounds no longer do; begin a new run"
            )
        memory = groups.get("memory", {})
        if "encoded" in memory and isinstance(memory.get("model"), dict):  # its sizes meant nothing
            default = MDNRNNConfig()
            sizes = {"latent_dim": default.latent_dim, "action_dim": default.action_dim}
            groups["memory"] = {**memory, "model": {**memory["model"], **sizes}}
        stages = {name: without_places(data, *STAGES[name]) for name, data in groups.items()}
        return {**settings, **stages}


STAGES = {
    "first": (RandomRecording, Recording),
    "collect": (AgentRecording, Recording),
    "vision": (VAESettings, VAETraining),
    "memory": (MDNRNNSettings, MDNRNNTraining),
    "controller": (ControllerSettings, ControllerTraining),
}
"""The settings of every stage, alone and joined with its places."""


def without_places(data: dict[str, Any], kind: type, placed: type) -> dict[str, Any]:
    """A stage's settings in JSON form, without its places if they are among them.

    Args:
        kind: dataclass of the settings.
        placed: the one that has the places as well.
    """
    places = {f.name for f in fields(placed)} - {f.name for f in fields(kind)}
    return {name: value for name, value in data.items() if name not in places}

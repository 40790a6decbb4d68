"""The game behind the page: a real track and a dream under the same actions, with rewind.

    session = Session(WorldModelAgent.from_pretrained("pretrained/carracing-dream"), track=3)
    session.apply({"keys": ["gas"]})
    session.advance()                        # one decision: three steps of the game, one of M
    session.view().pictures["dream"]         # uint8 (64, 64, 3)

An immutable `Moment` holds everything known at a decision. Rewinding takes an earlier one. Only the
physics of the real track cannot be stored: it is simulated again from the start of the episode,
with the same actions and so with the same bits.
"""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch

import envs  # noqa: F401  registers this project's environments
from agents.play.requests import KEYS, checked_request
from agents.video import GAME_FPS, Decision, LoneDream, dream_temperature
from agents.world_model_agent import AgentState, WorldModelAgent
from envs.car_racing import resize_frames
from envs.car_renderer import BAR_TOP
from worldmodels.dreaming.step import DreamState
from worldmodels.memory import MemoryOutput
from worldmodels.world_model import WorldModel

__all__ = ["KEYS", "Dreaming", "Moment", "Session", "View", "foresee", "keyboard_action"]

GAS, BRAKE = 0.6, 0.6  # with more, the rear wheels slide in every bend
TURN, STRAIGHTEN = 0.25, 0.5


def keyboard_action(keys: frozenset[str], steering: float) -> np.ndarray:
    """Action of the held keys: float32 (3,), steering, gas and brake.

    A key is held or not, so steering moves in steps: `TURN` per decision towards the held side,
    `STRAIGHTEN` back to the middle.

    Args:
        keys: some of `KEYS`.
        steering: steering of the previous decision.
    """
    goal = float("right" in keys) - float("left" in keys)
    rate = STRAIGHTEN if goal == 0 or goal * steering < 0 else TURN
    turned = steering + min(max(goal - steering, -rate), rate)
    return np.array([turned, GAS * ("gas" in keys), BRAKE * ("brake" in keys)], np.float32)


@torch.no_grad()
def foresee(world: WorldModel, before: Decision | DreamState, action: np.ndarray) -> MemoryOutput:
    """Prediction of M for an action (3,) at a real or a dreamed moment."""
    chosen = torch.as_tensor(action, device=world.device).unsqueeze(0)
    out, _ = world.memory.step(before.z, chosen, (before.h, before.c), before.prev_reward)
    return out


class Dreaming(NamedTuple):
    """State of a dream at one moment, and M's prediction for its last decision."""

    dream: LoneDream
    """Dream that is never stepped again: the next moment has a copy."""
    score: float = 0.0
    """Sum of the rewards that M predicted since it looked at the game."""
    reward: float | None = None
    spread: float | None = None
    """Standard deviation of M's mixture, mean over the dimensions of z."""
    end: float | None = None
    """Probability that the episode ends with this decision."""


class Moment(NamedTuple):
    """All that is known when a decision is due, except the picture and the physics."""

    index: int
    """Decisions before this one."""
    state: AgentState
    """State of the agent after its observation; the action in it is the controller's own."""
    dreaming: Dreaming
    score: float = 0.0
    speed: float = 0.0
    """Speed of the car, in metres of the game per second (the car is 5 m long)."""
    off_road: int = 0
    """Decisions since a wheel was last on the road."""
    reward: float | None = None
    """Real reward of the last decision."""
    expected: float | None = None
    """Reward that M had predicted for it."""
    surprise: float | None = None
    """-log p(z) of V's present z under M's prediction, in nats per dimension of z."""
    over: str = ""
    """Reason why the episode is over; empty while it runs."""


class View(NamedTuple):
    """Content of a page."""

    pictures: dict[str, np.ndarray]
    """Pictures uint8 (H, W, 3): track (the game's own size), seen and kept (V's), dream."""
    numbers: dict[str, Any]
    """Numbers and texts in JSON types."""


class Session:
    """Game of one person. It is not thread-safe; the server has a lock.

    Args:
        agent: V and M, and the controller that can drive.
        track: seed of the first track; `new_track` takes the next numbers.
        seconds: length of an episode; the stock game's is 20.
        temperature: temperature of the dream's draws; see `agents.video.dream_temperature`.
        wake_after: seconds until the dream looks at the game again; None for never.
    """

    def __init__(
        self,
        agent: WorldModelAgent,
        track: int = 0,
        *,
        seconds: float = 60.0,
        temperature: float | None = None,
        wake_after: float | None = 3.0,
    ):
        self.agent = agent
        self.repeat = agent.config.action_repeat
        self.seconds_per_decision = self.repeat / GAME_FPS
        self.max_steps = max(self.repeat, round(seconds * GAME_FPS))
        self.env = gymnasium.make(
            "WorldModels/FastCarRacing-v0",
            max_episode_steps=self.max_steps,
            disable_env_checker=True,
        )
        self.temperature = dream_temperature(agent, temperature)
        self.wake_after = wake_after
        self.driver, self.eyes, self.paused = "you", "track", True
        self.keys: frozenset[str] = frozenset()
        self._num_dreams = 0
        self.new_track(track)

    # Time ------------------------------------------------------------------------------------

    @property
    def now(self) -> Moment:
        """The latest moment."""
        return self._moments[-1]

    def new_track(self, track: int | None = None) -> None:
        """Begin an episode on the track of this seed, or on the next one."""
        self.track = self.track + 1 if track is None else track
        self.frame, _ = self.env.reset(seed=self.track)
        self._actions: list[np.ndarray] = []
        _, state = self.agent.predict(self.frame)
        self._moments = [Moment(0, state, self._fall_asleep(state))]

    def advance(self) -> bool:
        """Advance by one decision; False, without a change, while paused or at the end."""
        now = self.now
        if self.paused or now.over:
            return False
        action = self.next_action()
        world, decision = self.agent.world, self._decision(now.state)
        out = foresee(world, decision, action)
        reward, over = self._drive(action)
        # The executed action may not be the agent's own.
        waiting = now.state.executed(action[None])
        waiting = waiting._replace(countdown=np.zeros_like(waiting.countdown))
        _, state = self.agent.predict(self.frame, waiting)
        car = self.env.unwrapped.car  # type: ignore[attr-defined]
        on_road = any(wheel.tiles for wheel in car.wheels)
        self._actions.append(action)
        self._moments.append(
            Moment(
                now.index + 1,
                state,
                self._dream_on(now.dreaming, action, state),
                now.score + reward,
                math.hypot(*car.hull.linearVelocity),
                0 if on_road else now.off_road + 1,
                reward,
                None if out.reward is None else float(out.reward),
                float(-out.mixture.log_prob(state.z).mean()),
                over,
            )
        )
        return True

    def rewind(self, to: int) -> None:
        """Go back to the moment before decision `to` (the first is 0), and pause there.

        The real track is simulated again from its start, equal bit for bit.
        """
        to = min(max(to, 0), self.now.index)
        self.paused = True
        if to == self.now.index:
            return
        self.frame, _ = self.env.reset(seed=self.track)
        del self._actions[to:], self._moments[to + 1 :]
        for action in self._actions:
            self._drive(action)

    def dream_from_here(self) -> None:
        """Let the dream look at the real track, and begin again from this observation."""
        now = self.now
        self._moments[-1] = now._replace(dreaming=self._fall_asleep(now.state))

    def next_action(self) -> np.ndarray:
        """Action of the next decision on track and dream, (3,): of the keys, or of the agent."""
        if self.driver == "you":
            return keyboard_action(self.keys, float(self._actions[-1][0]) if self._actions else 0.0)
        if self.eyes == "track":
            return self.now.state.action[0].copy()
        return self.now.dreaming.dream.own_action()[0].cpu().numpy()

    def close(self) -> None:
        """Release the game."""
        self.env.close()

    def _drive(self, action: np.ndarray) -> tuple[float, str]:
        """Hold an action on the real track; returns the reward, and why the episode is over."""
        total = 0.0
        for _ in range(self.repeat):
            self.frame, reward, terminated, truncated, info = self.env.step(action)
            total += float(reward)
            if terminated:
                return total, "lap finished" if info.get("lap_finished") else "left the field"
            if truncated:
                return total, "time is up"
        return total, ""

    def _decision(self, state: AgentState) -> Decision:
        seen = resize_frames(self.frame)
        return Decision(seen, state.z, state.h, state.c, state.prev_reward, state.action[0])

    def _fall_asleep(self, state: AgentState) -> Dreaming:
        self._num_dreams += 1
        seed = self.track + self._num_dreams
        return Dreaming(LoneDream(self.agent, self._decision(state), self.temperature, seed))

    def _dream_on(self, before: Dreaming, action: np.ndarray, state: AgentState) -> Dreaming:
        age = before.dream.age * self.seconds_per_decision
        if self.wake_after is not None and age >= self.wake_after:
            return self._fall_asleep(state)
        dream = copy.copy(before.dream)  # its step replaces tensors and changes none in place
        dream.generator = torch.Generator(self.agent.world.device)
        dream.generator.set_state(before.dream.generator.get_state())
        dream.config = replace(dream.config, temperature=self.temperature)
        out = foresee(self.agent.world, dream.state, action)
        outcome = dream.step(action)
        reward = None if outcome.reward is None else float(outcome.reward)
        return Dreaming(
            dream,
            before.score + (reward or 0.0),
            reward,
            float(out.mixture.variance().sqrt().mean()),
            None if outcome.p_end is None else float(outcome.p_end),
        )

    # Requests --------------------------------------------------------------------------------

    def apply(self, request: Any) -> None:
        """Apply the request of a page, in its order; see `agents.play.requests`.

        Raises:
            ValueError: a part of it is not possible; then nothing is changed.
        """
        for name, value in checked_request(request).items():
            self._do(name, value)

    def _do(self, name: str, value: Any) -> None:
        match name:
            case "rewind":
                self.rewind(self.now.index - value)
            case "rewind_to":
                self.rewind(value)
            case "dream" if value:
                self.dream_from_here()
            case "track":
                self.new_track(value)
            case "keys" | "paused" | "driver" | "eyes" | "temperature" | "wake_after":
                setattr(self, name, value)
        takes_over = "agent" if name == "driver" else "you"
        if name in ("keys", "driver") and value and self.driver == takes_over:
            self.paused = False

    # View ---------------------------------------------------------------------------

    def view(self) -> View:
        """Present pictures and numbers."""
        now, dreaming = self.now, self.now.dreaming
        world = self.agent.world
        kept, dreamed = world.decode(torch.cat([now.state.z, dreaming.dream.z]))
        pictures = {
            "track": self.frame[:BAR_TOP],
            "seen": resize_frames(self.frame),
            "kept": kept,
            "dream": dreamed,
        }
        action = self._actions[-1] if self._actions else np.zeros(3)
        seconds = self.seconds_per_decision
        numbers = {
            "track": self.track,
            "index": now.index,
            "decisions": -(-self.max_steps // self.repeat),
            "second": max(1, round(1 / seconds)),
            "time_step": seconds,
            "time": now.index * seconds,
            "score": now.score,
            "speed": now.speed,
            "off_road": now.off_road * seconds,
            "reward": now.reward,
            "expected": now.expected,
            "surprise": now.surprise,
            "action": [float(a) for a in action],
            "over": now.over,
            "paused": self.paused,
            "driver": self.driver,
            "eyes": self.eyes,
            "temperature": self.temperature,
            "wake_after": self.wake_after,
            "latent_dim": world.memory.config.latent_dim,
            "dream": {
                "age": dreaming.dream.age * seconds,
                "score": dreaming.score,
                "reward": dreaming.reward,
                "spread": dreaming.spread,
                "end": dreaming.end,
            },
        }
        return View(pictures, numbers)

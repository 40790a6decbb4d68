"""Types of numbers: V, M, C, dreams and the agent compute in that of their weights."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from agents.world_model_agent import AgentConfig, WorldModelAgent
from envs.dream import DreamVectorEnv
from envs.sb3 import DreamVecEnv
from envs.task import Task
from generative.vae import ConvVAEConfig
from tests.dtypes import default_dtype
from worldmodels.configs import (
    ControllerConfig,
    DreamConfig,
    GradientConfig,
    MDNRNNConfig,
    MemoryLossConfig,
    TransformerMemoryConfig,
)
from worldmodels.controller import LinearController
from worldmodels.dreaming.gradient import climb
from worldmodels.dreaming.rollout import Dream
from worldmodels.dreaming.starts import DreamStarts, warm_up
from worldmodels.memory import MDNRNN, MemoryLearner, TransformerMemory, memory_loss
from worldmodels.sequences import EncodedRollouts
from worldmodels.vision import VectorVision
from worldmodels.world_model import WorldModel

torch.set_num_threads(1)
D, A, H = 4, 3, 8
HEADS = {
    "reward_input": True,
    "predict_reward": True,
    "predict_end": True,
    "residual": True,
    "dropout": 0.3,
    "reward_scale": 2.0,
}
MEMORIES = {
    "MDNRNN": lambda: MDNRNN(MDNRNNConfig(D, A, H, 2, **HEADS)),
    "TransformerMemory": lambda: TransformerMemory(
        TransformerMemoryConfig(
            latent_dim=D, action_dim=A, hidden_dim=H, num_mixtures=2, num_layers=1, num_heads=2,
            head_dim=4, ff_dim=16, context=4, **HEADS,
        )
    ),
}  # fmt: skip
every_memory = pytest.mark.parametrize("name", MEMORIES)
every_type = pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)


def make_memory(name: str):
    torch.manual_seed(0)
    return MEMORIES[name]().eval()


def make_controller() -> LinearController:
    torch.manual_seed(1)
    config = ControllerConfig(D, H, A, "zh")
    return LinearController(config).load_vector(torch.randn(config.num_parameters)).eval()


def make_world(name: str = "MDNRNN") -> WorldModel:
    torch.manual_seed(2)
    return WorldModel(ConvVAEConfig(D, (2, 3, 4, 5)).build(), make_memory(name)).eval()


def numbers(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.rand(shape, generator=generator, dtype=torch.float32).to(dtype)


def windows(dtype: torch.dtype = torch.float32, n: int = 3, length: int = 5):
    rows = {name: numbers(n, length, dtype=dtype) for name in ("prev_reward", "reward")}
    rows |= {"terminated": rows["reward"].round(), "mask": torch.ones_like(rows["reward"])}
    sizes = {"z": D, "next_z": D, "action": A}
    return rows | {name: numbers(n, length, size, dtype=dtype) for name, size in sizes.items()}


def make_starts(memory, n: int = 5) -> DreamStarts:
    sizes = D, H, memory.config.state_dim
    z, h, c = (torch.zeros(n, size, dtype=torch.float32) for size in sizes)
    return DreamStarts(z + 0.5, h, c, torch.zeros(n, dtype=torch.float32))


def episodes() -> EncodedRollouts:
    rng, frames = np.random.default_rng(0), 12
    z = rng.normal(size=(frames, D)).astype(np.float16)
    actions = rng.random((frames, A)).astype(np.float32)
    rewards = rng.random(frames).astype(np.float32)
    starts, ended = np.array([0, 5, frames]), np.zeros(frames, bool)
    actions[starts[1:] - 1], rewards[starts[1:] - 1] = 0, 0
    return EncodedRollouts(z, np.zeros_like(z), actions, rewards, ended, starts)


def flat(value) -> list:
    """Tensors and arrays of nested results, in their order."""
    if isinstance(value, dict):
        return flat(list(value.values()))
    if isinstance(value, (tuple, list)):
        return [part for item in value for part in flat(item)]
    return [torch.as_tensor(value)] if isinstance(value, (torch.Tensor, np.ndarray, float)) else []


def assert_equal(found, expected) -> None:
    found, expected = flat(found), flat(expected)
    assert len(found) == len(expected) > 0
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)


def whole_cycle(world: WorldModel, controller: LinearController) -> list:
    """Everything from a step of M's training to a driven frame, without V's and C's."""
    memory, found = world.memory, []
    trained = copy.deepcopy(memory)
    torch.manual_seed(3)
    learner = MemoryLearner(trained, MemoryLossConfig(bf16=False), 2)
    found += [learner.update(windows()) for _ in range(2)]
    out, _ = memory(windows()["z"], windows()["action"], None, windows()["prev_reward"])
    found += [list(memory_loss(out, windows(), memory.config, MemoryLossConfig()))]
    found += [list(vars(warm_up(memory, episodes())).values())]
    config = DreamConfig(horizon=4, bf16=False, pace_cap=0.5, pace_window=2)
    dream = Dream(memory, controller.config, config)
    candidates, starts = controller.to_vector()[None], make_starts(memory)
    found += [dream.rollout(candidates, starts, torch.Generator().manual_seed(0))]
    found += [dream.evaluate(candidates, starts, 0)]
    settings = GradientConfig(steps=2, lanes=2, check_every=2, check_dreams=2)
    found += [climb(dream, starts, candidates[0], settings, seed=0).vector]
    agent = WorldModelAgent(world, controller, AgentConfig())
    frames = (255 * numbers(3, 64, 64, 3)).byte().numpy()
    state = None
    for frame in frames:
        action, state = agent.predict(frame, state, deterministic=False)
        found += [action, list(state)]
    env = DreamVectorEnv(2, world, starts, horizon=3, task=Task())
    found += [env.reset(seed=1)[0], list(env.step(np.zeros((2, A), np.float32))[:4])]
    lanes = DreamVecEnv(2, world, starts, horizon=3, task=Task())
    found += [lanes.reset(), list(lanes.step(np.zeros((2, A), np.float32))[:2])]
    return found


@every_memory
def test_default_dtype_changes_nothing(name):
    models = make_world(name), make_controller()
    expected = whole_cycle(*models)
    with default_dtype(torch.float64):
        assert_equal(whole_cycle(*models), expected)


@every_memory
@every_type
def test_memory_of_another_type_computes_in_it(name, dtype):
    memory, batch = make_memory(name).to(dtype), windows(dtype)
    out, state = memory(batch["z"], batch["action"], None, batch["prev_reward"])
    stepped, after = memory.step(
        batch["z"][:, 0], batch["action"][:, 0], state, batch["prev_reward"][:, 0]
    )
    drawn = stepped.mixture.sample(1.0, torch.Generator().manual_seed(0))
    loss = memory_loss(out, batch, memory.config, MemoryLossConfig())
    for value in flat([list(out), list(state), list(stepped), list(after), drawn, list(loss)]):
        assert value.dtype == dtype
        assert value.isfinite().all()
    learner = MemoryLearner(memory, MemoryLossConfig(bf16=False), 2)
    logged = learner.update(batch)
    assert all(value.isfinite() and value.dtype == dtype for value in logged.values())
    assert {p.dtype for p in memory.parameters()} == {dtype}


@every_memory
@every_type
def test_dream_in_a_memory_of_another_type(name, dtype):
    """z, h and rewards are of M's type; what is counted over decisions has at least float32."""
    memory, controller = make_memory(name).to(dtype), make_controller().to(dtype)
    dream = Dream(memory, controller.config, DreamConfig(horizon=4, bf16=False))
    candidates, starts = controller.to_vector()[None].requires_grad_(), make_starts(memory)
    result = dream.rollout(candidates, starts, torch.Generator().manual_seed(0))
    result.returns.sum().backward()
    assert candidates.grad.dtype == dtype
    assert candidates.grad.isfinite().all()
    for value in (*result, *dream.evaluate(candidates.detach(), starts, 0)):
        assert value.dtype == torch.promote_types(dtype, torch.float32)
        assert value.isfinite().all()
    assert vars(warm_up(memory, episodes()))["h"].isfinite().all()


@every_type
def test_world_agent_and_environments_of_another_type(dtype):
    world, controller = make_world().to(dtype), make_controller().to(dtype)
    frames = (255 * numbers(2, 64, 64, 3)).byte().numpy()
    z = world.encode(frames, sample=True)
    dreamed = world.imagine(z, numbers(2, 3, A, dtype=dtype))
    assert {t.dtype for t in (z, *dreamed)} == {dtype}
    assert world.decode(dreamed.z).dtype == np.uint8
    action, state = WorldModelAgent(world, controller).predict(frames)
    assert action.dtype == np.float32
    assert {state.h.dtype, state.c.dtype, state.z.dtype} == {dtype}
    starts = make_starts(world.memory)
    for env in (kind(2, world, starts, task=Task()) for kind in (DreamVectorEnv, DreamVecEnv)):
        env.reset()
        obs, reward, *_ = env.step(np.zeros((2, A), np.float32))
        assert obs.dtype == np.float32
        assert np.isfinite(obs).all()
        assert np.isfinite(reward).all()


@every_memory
@pytest.mark.parametrize("dtype", [torch.float64, torch.int64, torch.bool], ids=str)
def test_memory_refuses_another_type_by_name(name, dtype):
    memory, batch = make_memory(name), windows()
    for key, what in (("z", "z"), ("action", "actions"), ("prev_reward", "prev_reward")):
        given = {**batch, key: batch[key].to(dtype)}
        with pytest.raises(ValueError, match=f"got {what} of {dtype}; {name} computes in float32"):
            memory(given["z"], given["action"], None, given["prev_reward"])
        with pytest.raises(ValueError, match=f"got {what} of {dtype}; {name} computes in float32"):
            MemoryLearner(make_memory(name), MemoryLossConfig(bf16=False), 2).update(given)


def test_controller_vision_and_dream_refuse_another_type_by_name():
    memory, controller, world = make_memory("MDNRNN"), make_controller(), make_world()
    z, h = numbers(2, D), numbers(2, H)
    with pytest.raises(ValueError, match=r"z and h of torch\.float64; LinearController"):
        controller.act(z.double(), h, h)
    dream = Dream(memory, controller.config, DreamConfig(horizon=2, bf16=False))
    candidates, starts = controller.to_vector()[None].double(), make_starts(memory)
    with pytest.raises(ValueError, match=r"candidates of torch\.float64; MDNRNN"):
        dream.evaluate(candidates, starts, 0)
    with pytest.raises(ValueError, match=r"candidates of torch\.float64; MDNRNN"):
        dream.rollout(candidates, starts, torch.Generator())
    vision = VectorVision.of(numbers(9, D))
    with pytest.raises(ValueError, match=r"vectors of torch\.float64; VectorVision"):
        vision.encode(numbers(2, D).double())
    with pytest.raises(ValueError, match=r"z of torch\.float64; VectorVision"):
        vision.decode(numbers(2, D).double())
    with pytest.raises(ValueError, match=r"codes of torch\.float64; ConvVAE"):
        world.decode(numbers(2, D).double())


@every_memory
def test_nothing_to_read(name):
    memory = make_memory(name)
    out, state = memory(torch.zeros(0, 5, D), torch.zeros(0, 5, A), None, torch.zeros(0, 5))
    assert out.h.shape == (0, 5, H)
    assert out.mixture.mu.shape == (0, 5, D, 2)
    assert state[1].shape == (0, memory.config.state_dim)
    out, _ = memory.step(torch.zeros(0, D), torch.zeros(0, A), state, torch.zeros(0))
    assert out.reward.shape == (0,)
    assert out.mixture.sample().shape == (0, D)
    out, _ = memory(torch.zeros(0, 5, D), torch.zeros(0, 5, A), None, torch.zeros(0, 5))
    with pytest.raises(ValueError, match="batch of 0 windows"):
        memory_loss(out, windows(n=0), memory.config, MemoryLossConfig())
    with pytest.raises(ValueError, match="batch of 0 windows"):
        MemoryLearner(memory, MemoryLossConfig(), 2).update(windows(n=0))


def test_empty_batches_of_the_other_parts():
    world, controller = make_world(), make_controller()
    z, h = torch.zeros(0, D), torch.zeros(0, H)
    assert controller.act(z, h, h).shape == (0, A)
    assert world.encode(np.zeros((0, 64, 64, 3), np.uint8)).shape == (0, D)
    assert world.decode(z).shape == (0, 64, 64, 3)
    assert world.imagine(z, torch.zeros(0, 3, A)).z.shape == (0, 3, D)
    vision = VectorVision.of(numbers(9, D))
    assert vision.decode(vision.encode(z)).shape == (0, D)


@every_memory
def test_agent_loaded_inside_inference_mode_learns(name, tmp_path):
    world = make_world(name)
    WorldModelAgent(world, make_controller()).save_pretrained(tmp_path / "agent")
    with torch.inference_mode(), default_dtype(torch.float64):
        agent = WorldModelAgent.from_pretrained(tmp_path / "agent")
    world, batch = agent.world.float(), windows()
    parts: list[nn.Module] = [world.vision, world.memory, agent.controller]
    assert {p.dtype for part in parts for p in part.parameters()} == {torch.float32}
    learner = MemoryLearner(world.memory, MemoryLossConfig(bf16=False), 2)
    before = world.memory.mixture_head.linear.weight.clone()
    learner.update(batch)
    assert not torch.equal(before, world.memory.mixture_head.linear.weight)
    world.vision.loss(numbers(2, 3, 64, 64)).loss.backward()
    agent.controller.act(numbers(2, D), numbers(2, H), numbers(2, H)).sum().backward()

"""Settings of the rounds: every one is used, and older runs are read."""

import json
import types
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from agents.rounds.controller import ControllerTraining
from agents.rounds.memory import MDNRNNTraining
from agents.rounds.recording import Recording
from agents.rounds.rounds import Rounds
from agents.rounds.settings import RoundsSettings
from agents.rounds.train import train_in_dream
from agents.rounds.vision import AutoencoderTraining, VAETraining, VectorScaling
from generative.training.run import Run, SettingsChangedError
from generative.training.settings import differences, flatten, from_json, recast, to_json
from scripts.train_in_dream import PRESETS

OTHERS = {
    "controller.method": "both",
    "controller.features": "z",
    "controller.evaluation.on_nan": "worst",
    "controller.evaluation.racing": 2,
    "controller.evolution.restart_by": "bipop",
    "controller.gradient.ends": "drawn",
    "vision.loss.kind": "mse",
    "controller.dream.truncation": 3,
    "device": "cpu",
    "out": "elsewhere",
}
"""Values that differ from those of the preset, where a type alone does not tell one."""
FOLLOW = {
    "memory.model.latent_dim",
    "memory.model.action_dim",
    "memory.model.predict_reward",
    "controller.dream.reward_clip",
    "controller.dream.pace_cap",
    "controller.evaluation.racing",
}
"""Settings of a stage that follow from others in the rounds; another value is refused."""
OF_THE_ROUNDS = {
    "rounds",
    "vision_rounds",
    "choose_episodes",
    "final_agents",
    "final_episodes",
    "test_episodes",
    "episode_steps",
    "film_steps",
}
"""Settings that decide which stages there are and which episodes are played:
tests/scripts/test_train_in_dream.py and test_any_environment.py compare what comes of them."""


def other(name, value):
    """Another value for the setting of this name."""
    if name in OTHERS:
        return OTHERS[name]
    if name.endswith("bf16"):
        return value is not True
    if name.endswith("final_lr"):
        return 1e-6
    if name.endswith("reward_clip"):
        return [-1.0, 1.0]
    if name.endswith("pace_cap"):
        return 2.0
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + (-1 if name == "test_episodes" else 1)
    if isinstance(value, float):
        return value / 2 if value else 0.5
    if isinstance(value, list):
        return [2 * number for number in value]
    assert value is None, name
    return 5


def changed(args, name):
    """The settings with another value under this dotted name."""
    data = json.loads(json.dumps(to_json(args)))
    *groups, last = name.split(".")
    group = data
    for key in groups:
        group = group[key]
    group[last] = other(name, group[last])
    return from_json(RoundsSettings, data)


def stages(args, device="cpu"):
    """Everything that two rounds ask of their stages, as flat JSON."""
    run = types.SimpleNamespace(
        path=args.out,
        device=torch.device(device),
        seed_for=lambda name, index: 100 * args.seed + index,
    )
    rounds = Rounds(args, run)
    rounds.vision = rounds.memory = Path("v")
    return flatten(
        {
            f"{index} {stage.__name__}": to_json(stage(index))
            for index in (0, 1)
            for stage in (rounds.collecting, rounds.seeing, rounds.remembering, rounds.dreaming)
        }
    )


def plain(args):
    """Without "auto", which a run keeps an answer to, and with tests that others depend on."""
    loss = replace(args.memory.loss, bf16=False)
    controller = replace(
        args.controller,
        dream=replace(args.controller.dream, bf16=False),
        evolution=replace(args.controller.evolution, test_every=5, target=9.0, patience=2),
    )
    vision = args.vision
    if hasattr(getattr(vision, "loss", None), "bf16"):
        vision = replace(vision, loss=replace(vision.loss, bf16=False))
    return replace(
        args,
        vision=vision,
        memory=replace(args.memory, loss=loss),
        controller=controller,
        first=replace(args.first, anywhere=0.0),
        collect=replace(args.collect, anywhere=0.0),
        memory_from_recording=False,  # there is none
        pace=None,
    )


@pytest.mark.parametrize(
    ("preset", "more"),
    [
        ("quick", set()),
        ("quick-autoencoder", {"vision.model.image_shape"}),
        ("vector", {"pace", "first.anywhere", "collect.anywhere"}),  # of the car race
    ],
)
def test_every_setting_reaches_a_stage_or_is_refused(preset, more):
    args, without_steps = plain(PRESETS[preset]), set()
    if preset == "vector":
        args = replace(args, env="CartPole-v1")
        without_steps = {"vision_steps"}  # the scale of vectors has none
    refused = FOLLOW | more
    names = set(flatten(to_json(args))) - {"env", "env_kwargs", "memory_from_recording"}
    for name in refused:
        with pytest.raises(ValueError, match="vision" if "vision" in name else name):
            stages(changed(args, name))
    before = stages(args)
    unused = {name for name in names - refused if stages(changed(args, name)) == before}
    assert unused == OF_THE_ROUNDS | without_steps


def test_the_environment_reaches_the_recording():
    args = plain(PRESETS["quick"])
    kwargs = '{"continuous": false}'
    flat = stages(replace(args, env="CarRacing-v3", env_kwargs=kwargs))
    assert flat["1 collecting.env"] == "CarRacing-v3"
    assert flat["1 collecting.env_kwargs"] == kwargs
    assert flat["0 dreaming.action.kind"] == "discrete"
    assert flat["0 remembering.model.action_dim"] == 5


def test_the_pace_caps_what_a_dreamed_decision_pays():
    args = replace(PRESETS["quick"], pace=0.5, action_repeat=4)
    assert stages(plain(args))["0 dreaming.dream.pace_cap"] is None
    assert stages(replace(plain(args), pace=0.5))["0 dreaming.dream.pace_cap"] == 0.5 * 4


def test_one_process_dreams_on_a_gpu():
    """Several would share it."""
    args = plain(PRESETS["gpu"])
    assert args.workers == 16
    on_gpu, on_cpu = stages(args, "cuda"), stages(args)
    assert (on_gpu["0 dreaming.workers"], on_cpu["0 dreaming.workers"]) == (0, 16)
    assert on_gpu["0 collecting.workers"] == 16


# ---------------------------------------------------------------------------------------------
# Before the first stage
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"device": "cuda:99"}, "device is cuda:99, and torch sees"),
        ({"rounds": 10_000}, "need .* tracks, there are 10000; lower rounds"),
        ({"env": "CarRacing-v3"}, r"first\.anywhere is 0\.5"),
        ({"env": "CartPole-v1"}, "shows vectors of .* begin with the preset vector"),
        ({"env_kwargs": "{"}, "which is no JSON"),
    ],
)
def test_what_cannot_work_is_told_before_anything_is_made(changes, told, tmp_path):
    args = replace(PRESETS["smoke"], out=tmp_path / "run", **changes)
    with pytest.raises(ValueError, match=told):
        train_in_dream(args)
    assert not (tmp_path / "run").exists()


# ---------------------------------------------------------------------------------------------
# Older runs
# ---------------------------------------------------------------------------------------------


def as_before(args):
    """The settings as runs recorded them when every stage had its places too."""
    kinds = {"first": Recording, "collect": Recording, "memory": MDNRNNTraining}
    visions = {"smoke": VAETraining, "smoke-autoencoder": AutoencoderTraining}
    kinds["vision"] = next(
        (visions[name] for name in visions if type(PRESETS[name].vision) is type(args.vision)),
        VectorScaling,
    )
    data = to_json(args)
    for stage, kind in kinds.items():
        data[stage] = to_json(recast(kind, getattr(args, stage)))
    data["controller"] = to_json(recast(ControllerTraining, args.controller))
    data["controller"]["action_repeat"] = 3
    data["memory"]["model"]["action_dim"] = 7  # which the environment decided
    return data


@pytest.mark.parametrize("preset", ["smoke", "smoke-autoencoder", "smoke-vector", "quick"])
def test_an_older_run_goes_on(preset, tmp_path):
    args = replace(PRESETS[preset], out=tmp_path / "run")
    old = as_before(args)
    assert differences(old, to_json(args))
    assert from_json(RoundsSettings, old) == args
    with Run.open(args, kind="train_in_dream"):
        pass
    file = tmp_path / "run" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "settings": old}))
    with Run.open(args, kind="train_in_dream") as run:
        assert json.loads((run.path / "config.json").read_text())["settings"] == to_json(args)
    file.write_text(json.dumps({**json.loads(file.read_text()), "settings": old}))
    with pytest.raises(SettingsChangedError, match="seed: it has 1, you ask for 2"):
        Run.open(replace(args, seed=2), kind="train_in_dream")


def test_an_older_run_whose_rounds_began_with_a_controller_is_refused():
    old = as_before(PRESETS["smoke"])
    old["controller"]["start_from"] = "runs/c"
    with pytest.raises(ValueError, match=r"begins with the controller of runs/c .*begin a new run"):
        from_json(RoundsSettings, old)


@pytest.mark.parametrize("value", [None, 3, "x", []])
@pytest.mark.parametrize("stage", ["first", "vision", "memory", "controller"])
def test_a_stage_that_is_no_group_of_settings_is_named(stage, value):
    with pytest.raises(ValueError, match=stage):
        from_json(RoundsSettings, {**to_json(PRESETS["smoke"]), stage: value})


def test_an_older_controller_of_dreams_has_lost_its_action_repeat():
    """It meant nothing there; on real tracks it counts."""
    dreamed = {**to_json(ControllerTraining()), "action_repeat": 3}
    assert from_json(ControllerTraining, dreamed) == ControllerTraining()
    real = to_json(ControllerTraining(where="real", action_repeat=3))
    assert from_json(ControllerTraining, real).action_repeat == 3
    with pytest.raises(ValueError, match="holds actions on real tracks"):
        ControllerTraining(action_repeat=3)

"""What programs of `tests.warm` find loaded; imported by the process that they are forked from."""

import gc
import os
from importlib import import_module

from generative.training.cli import parse
from scripts import train_in_dream

for name in (
    "torch.utils.tensorboard",
    "torch._dynamo",  # which the first step of an optimiser imports
    "matplotlib.pyplot",
    "numba",
    "scipy.stats",
    "sklearn.decomposition",
    "gymnasium.envs.box2d",
    "stable_baselines3",
    "cma",
    "tyro",
    "pytest",
    "hypothesis",
    "tests.generative.families",
    "tests.warm",
):
    import_module(name)
os.fsync = lambda descriptor: None  # as in tests/conftest.py
parse(train_in_dream.PRESETS, argv=["smoke"])  # loads the parts of tyro
gc.collect()
gc.freeze()  # so that no fork copies these objects only to find that nothing is garbage

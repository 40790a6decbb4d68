"""Lets `gymnasium.make("WorldModels/...")` find this project's environments without an import.

Gymnasium stopped reading the entry points of the group `gymnasium.envs` with its version 1.0.
Installing this project therefore puts a copy of this file into site-packages, beside a .pth file
that imports it when Python starts (see setup.py). It waits for Gymnasium to be imported, and then
calls our own entry point of that group. It imports nothing by itself.
"""

import sys

ENTRY_POINT = "WorldModels"


class _AfterGymnasium:
    """Finder that finds no module itself, but adds a step to the loading of Gymnasium."""

    def find_spec(self, name, path=None, target=None):
        if name != "gymnasium":
            return None
        import importlib.util

        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module):
                execute(module)
                _register()

            spec.loader.exec_module = exec_module
        return spec


def _register():
    import importlib.metadata
    import warnings

    try:
        for entry in importlib.metadata.entry_points(group="gymnasium.envs", name=ENTRY_POINT):
            entry.load()()
    except Exception as error:  # Gymnasium must stay usable if our registration fails
        warnings.warn(f"the WorldModels environments are not registered: {error!r}", stacklevel=2)


if "gymnasium" not in sys.modules:
    sys.meta_path.insert(0, _AfterGymnasium())

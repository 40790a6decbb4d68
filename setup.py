"""Everything is in pyproject.toml, except that a wheel has the commands inside `worldmodels`."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithCommands(build_py):
    """Moves `scripts` to worldmodels/commands, as a package of that name would be everybody's."""

    def run(self):
        super().run()
        if not self.editable_mode:  # see worldmodels/__main__.py
            root = Path(self.build_lib)
            target = root / "worldmodels" / "commands" / "scripts"
            shutil.rmtree(target, ignore_errors=True)  # of an earlier build
            target.parent.mkdir(exist_ok=True)
            (root / "scripts").rename(target)


setup(cmdclass={"build_py": BuildWithCommands})

"""Everything is in pyproject.toml, except what makes Gymnasium find our environments."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

MODULE = "_worldmodels_gymnasium"


class BuildWithStartupFile(build_py):
    """Adds envs/gymnasium_startup.py and the .pth that imports it at the root of site-packages."""

    def run(self):
        super().run()
        # An editable install ignores build_lib; install_lib is then the root of its wheel.
        install = self.get_finalized_command("install")
        root = Path(install.install_lib if self.editable_mode else self.build_lib)
        source = Path(__file__).parent / "envs" / "gymnasium_startup.py"
        (root / f"{MODULE}.py").write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
        (root / f"{MODULE}.pth").write_text(f"import {MODULE}\n", encoding="utf-8")
        if not self.editable_mode:  # see worldmodels/__main__.py
            target = root / "worldmodels" / "commands" / "scripts"
            shutil.rmtree(target, ignore_errors=True)  # of an earlier build
            target.parent.mkdir(exist_ok=True)
            (root / "scripts").rename(target)


setup(cmdclass={"build_py": BuildWithStartupFile})

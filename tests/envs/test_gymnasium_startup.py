"""An installed project's environments are found by `gymnasium.make` without an import of ours."""

import importlib.metadata
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import envs.gymnasium_startup


def run(code: str, folder: Path, *paths: Path) -> str:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return result.stdout + result.stderr


def test_ids_are_found_without_an_import(tmp_path):
    try:
        importlib.metadata.distribution("worldmodels-toolkit")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the project is not installed")
    output = run(
        "import sys, gymnasium\n"
        "print(sorted(i for i in gymnasium.registry if i.startswith('WorldModels/')))\n"
        "print('torch' in sys.modules, 'numba' in sys.modules)",
        tmp_path,
    )
    assert "WorldModels/CarRacing64-v0" in output
    assert output.endswith("False False\n")


@pytest.mark.parametrize("broken", [False, True])
def test_startup_file_calls_the_entry_point(tmp_path, broken):
    """With a Gymnasium and a project of the test's own, so nothing needs to be installed."""
    (tmp_path / "gymnasium.py").write_text("registry = []\n")
    (tmp_path / "wm_test_plugin.py").write_text(
        "import gymnasium\n"
        "def register(): gymnasium.registry.append('ours')\n" + ("1 / 0\n" if broken else "")
    )
    info = tmp_path / "wm_test-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: wm-test\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[gymnasium.envs]\nWorldModelsTest = wm_test_plugin:register\n"
    )
    source = Path(envs.gymnasium_startup.__file__)
    shutil.copy(source, tmp_path / "startup.py")
    output = run(
        "import sys\n"
        "sys.meta_path[:] = [f for f in sys.meta_path if type(f).__name__ != '_AfterGymnasium']\n"
        "import startup\n"
        "startup.ENTRY_POINT = 'WorldModelsTest'\n"
        "assert 'gymnasium' not in sys.modules\n"
        "import gymnasium\n"
        "print(gymnasium.registry)",
        tmp_path,
        tmp_path,
    )
    if broken:
        assert "[]\n" in output
        assert "environments are not registered: ZeroDivisionError" in output
    else:
        assert output == "['ours']\n"

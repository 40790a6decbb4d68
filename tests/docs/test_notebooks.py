"""The notebooks run from their first cell to their last, and hold what they printed and drew."""

import json

import pytest
import torch

from tests.commands import ROOT

torch.set_num_threads(1)

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


def code_cells(path):
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("steps", [11, pytest.param(301, marks=pytest.mark.nightly)])
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, steps, tmp_path, monkeypatch):
    """In every run with trainings of 11 steps, every night as it stands."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pretrained").symlink_to(ROOT / "pretrained")
    namespace = {"__name__": "__main__"}
    for cell in code_cells(path):
        code = "".join(cell["source"]).replace("range(301)", f"range({steps})")
        exec(compile(code, f"a cell of {path.name}", "exec"), namespace)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_small_and_was_run(path):
    assert path.stat().st_size < 2**20
    outputs = [output for cell in code_cells(path) for output in cell["outputs"]]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not any(output["output_type"] == "error" for output in outputs)
    counts = [cell["execution_count"] for cell in code_cells(path)]
    assert counts == [*range(1, len(counts) + 1)]

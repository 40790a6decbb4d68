import platform
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from generative.training import precision
from generative.training.precision import bf16_of_run, default_bf16, uses_bf16
from generative.training.run import Run
from generative.training.settings import from_json, to_json

VARIABLES = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")


@pytest.fixture
def able(monkeypatch):
    """A processor with the instructions, and no variable that forbids them."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})


def test_the_processor_is_asked(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert default_bf16("cuda") in (False, torch.cuda.is_available())
    assert default_bf16("meta") is False
    flags = Path("/proc/cpuinfo")
    if platform.machine() == "x86_64" and flags.exists():
        words = flags.read_text().split()
        assert default_bf16() == ("avx512_bf16" in words or "amx_bf16" in words)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("ONEDNN_MAX_CPU_ISA", "AVX2", False),
        ("ONEDNN_MAX_CPU_ISA", "avx512_core", False),
        ("DNNL_MAX_CPU_ISA", "AVX512_CORE_VNNI", False),
        ("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16", True),
        ("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_AMX", True),
        ("ONEDNN_MAX_CPU_ISA", "ALL", True),
        ("ATEN_CPU_CAPABILITY", "default", False),
        ("ATEN_CPU_CAPABILITY", "avx2", False),
        ("ATEN_CPU_CAPABILITY", "avx512", True),
    ],
)
def test_a_limited_instruction_set_counts(able, monkeypatch, name, value, allowed):
    assert default_bf16() is True
    monkeypatch.setenv(name, value)
    assert default_bf16() is allowed
    assert uses_bf16("auto", "cpu") is allowed
    assert uses_bf16(True, "cpu") is True
    assert uses_bf16(False, "cpu") is False


@dataclass(frozen=True)
class Settings:
    out: Path
    bf16: precision.BF16 = "auto"
    device: str = "cpu"


def test_a_run_keeps_its_choice_and_says_it_once(able, tmp_path, monkeypatch, capsys):
    with Run.open(Settings(tmp_path / "run"), kind="test") as run:
        assert bf16_of_run("auto", run) is True
    assert capsys.readouterr().out == "bfloat16: yes, this CPU has instructions for it\n"
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")  # continued on another processor
    with Run.open(Settings(tmp_path / "run"), kind="test") as run:
        assert bf16_of_run("auto", run) is True
        assert bf16_of_run(False, run) is False
    assert not capsys.readouterr().out
    with Run.open(Settings(tmp_path / "other"), kind="test") as run:
        assert bf16_of_run("auto", run) is False
        (run.path / precision.RECORD_NAME).write_text('{"bf16": "yes"}')
        with pytest.raises(ValueError, match="precision"):
            bf16_of_run("auto", run)
    assert capsys.readouterr().out == "bfloat16: no, this CPU has no instructions for it\n"


@pytest.mark.parametrize("value", ["auto", True, False])
def test_settings_of_old_and_new_runs_are_read(value, tmp_path):
    data = to_json(Settings(tmp_path, value))
    assert from_json(Settings, data).bf16 is value
    with pytest.raises(ValueError, match="bf16"):
        from_json(Settings, {**data, "bf16": 1})


def test_no_preset_takes_it_for_granted():
    """bfloat16 is asked for by `auto` alone: emulated, it is up to sixty times slower."""
    from generative.training.settings import flatten
    from scripts import (
        temperature_sweep,
        train_controller,
        train_in_dream,
        train_mdnrnn,
        train_transformer_memory,
        train_vae,
    )

    scripts = (
        temperature_sweep,
        train_controller,
        train_in_dream,
        train_mdnrnn,
        train_transformer_memory,
        train_vae,
    )
    for script in scripts:
        values = [flatten(to_json(args)) for args in script.PRESETS.values()]
        asked = [v for settings in values for name, v in settings.items() if name.endswith("bf16")]
        assert "auto" in asked
        assert set(asked) <= {"auto", False}

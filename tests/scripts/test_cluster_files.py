"""The files for clusters: what their programs can read, and what they must not open."""

import importlib.util
import json
import os
import re
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml

from generative.training.cli import parse
from scripts import train_controller
from tests.commands import ROOT, run_python, run_script

CLUSTER = ROOT / "scripts" / "cluster"
SCRIPTS = sorted(CLUSTER.glob("*.sh"))


def test_cluster_file_is_what_ray_up_takes():
    # Not imported here: a process that starts a cluster sets Ray's variables before it does so.
    ray = importlib.util.find_spec("ray").submodule_search_locations[0]
    schema = json.loads((Path(ray) / "autoscaler/ray-schema.json").read_text())
    config = yaml.safe_load((CLUSTER / "cluster.yaml").read_text())
    jsonschema.validate(config, schema)
    types = config["available_node_types"]
    assert types[config["head_node_type"]]["resources"] == {"CPU": 0}
    assert any(kind["resources"].get("GPU") for kind in types.values())
    for command in (*config["head_start_ray_commands"], *config["worker_start_ray_commands"]):
        assert "RAY_AUTH_MODE=token" in command
        assert "--disable-usage-stats" in command
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][0]


def test_ray_job_asks_for_a_token_and_runs_a_command_that_there_is():
    job = yaml.safe_load((CLUSTER / "rayjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        container = group["template"]["spec"]["containers"][0]
        env = {item["name"]: item["value"] for item in container["env"]}
        assert env == {"RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
        assert container["volumeMounts"] == [{"name": "runs", "mountPath": "/runs"}]
    _, script, *words = job["spec"]["entrypoint"].split()
    assert Path(script).name == "train_controller.py"
    args = parse(train_controller.PRESETS, argv=words)
    assert (args.backend, args.ray_address, args.workers) == ("ray", "auto", 0)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_shell_scripts_can_be_read_and_are_closed_to_others(path):
    shell = path.read_text().splitlines()[0].removeprefix("#!")
    assert subprocess.run([shell, "-n", path]).returncode == 0
    assert os.access(path, os.X_OK)
    text = path.read_text()
    assert "RAY_AUTH_MODE=token" in text
    assert "--disable-usage-stats" in text
    assert "0.0.0.0" not in text
    assert ("--dashboard-host=127.0.0.1" in text) == ("--head" in text)


def test_a_worker_without_a_token_is_told(tmp_path):
    env = {**os.environ, "HOME": str(tmp_path)}
    env.pop("RAY_AUTH_TOKEN", None)
    done = subprocess.run(
        [CLUSTER / "worker.sh", "127.0.0.1"], env=env, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "there is no token" in done.stderr


def test_page_names_files_and_options_that_there_are():
    page = (ROOT / "docs" / "cluster.md").read_text()
    for name in re.findall(r"(?<![\w/])(?:scripts|examples|benchmarks)/[\w/]+\.\w+", page):
        assert (ROOT / name).exists(), name
    done = run_script("train_controller", "--help")
    for option in re.findall(r"`(--[a-z.-]+)`", page):
        assert option in done.stdout, option


# ---------------------------------------------------------------------------------------------
# Examples
# ---------------------------------------------------------------------------------------------


def test_the_example_of_a_function_finds_its_maximum():
    done = run_example("evolve_function.py")
    assert "[1. 1. 1. 1. 1.]" in done.stdout


@pytest.mark.nightly
def test_the_example_of_an_environment_learns_to_balance():
    found = run_example("evolve_cartpole.py", "serial").stdout
    assert float(re.search(r"20 new episodes: ([\d.]+) of 500", found)[1]) > 300


@pytest.mark.nightly
def test_the_example_of_an_environment_is_the_same_on_ray():
    """In every run tests/reliability/test_cluster.py compares scores on Ray with those here."""
    found = [run_example("evolve_cartpole.py", backend).stdout for backend in ("serial", "ray")]
    assert found[0] == found[1]


def run_example(*words: str) -> subprocess.CompletedProcess:
    done = run_python(ROOT / "examples" / words[0], *words[1:])
    assert done.returncode == 0, done.stderr
    return done

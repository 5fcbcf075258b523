"""Cluster files: valid by Ray's own schema where it has one, by shape elsewhere."""

import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

import ray_configs
from proxy.sweeps.config import load_config
from proxy.sweeps.placement import GIB, GPU_MEMORY_GB, UNKNOWN_GPU_GB, Demand, Node, demand, misfits

CLUSTERS = Path(ray_configs.__file__).parent / "clusters"
SHIPPED = {"on_prem.yaml", "aws.yaml", "gcp.yaml", "kuberay_cluster.yaml", "kuberay_job.yaml", "slurm.sh"}


def exactly(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    """A schema of an object with these properties and no others."""
    properties = required | optional
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


# Of KubeRay's custom resource definitions (ray.io/v1) and of a pod, what they require and what these manifests use. The
# whole of it, a pod's template written out several times, is megabytes; the API server itself checks that at `apply`.
TEXT, COUNT, SWITCH = {"type": "string", "minLength": 1}, {"type": "integer", "minimum": 0}, {"type": "boolean"}
TEXTS = {"type": "object", "additionalProperties": TEXT}
PORT = exactly({"containerPort": {"type": "integer", "minimum": 1, "maximum": 65535}}, name=TEXT)
SECRET = exactly({"key": TEXT}, name=TEXT, optional=SWITCH)
VARIABLE = exactly({"name": TEXT}, valueFrom=exactly({}, secretKeyRef=SECRET))
CONTAINER = exactly(
    {"name": TEXT, "image": TEXT, "resources": exactly({"requests": TEXTS, "limits": TEXTS})},
    ports={"type": "array", "items": PORT},
    env={"type": "array", "items": VARIABLE},
)
POD = exactly({"containers": {"type": "array", "items": CONTAINER, "minItems": 1}}, nodeSelector=TEXTS)
HEAD: dict[str, Any] = {"rayStartParams": TEXTS, "template": exactly({"spec": POD})}
REPLICAS = {"replicas": COUNT, "minReplicas": COUNT, "maxReplicas": COUNT}
WORKERS = exactly(HEAD | REPLICAS | {"groupName": TEXT})
CLUSTER = exactly(
    {"headGroupSpec": exactly(HEAD), "workerGroupSpecs": {"type": "array", "items": WORKERS, "minItems": 1}},
    rayVersion=TEXT,
    authOptions=exactly({"mode": {"enum": ["disabled", "token"]}}),
    enableInTreeAutoscaling=SWITCH,
    autoscalerOptions=exactly({}, idleTimeoutSeconds=COUNT),
)
JOB = exactly(
    {
        "entrypoint": TEXT,
        "backoffLimit": COUNT,
        "shutdownAfterJobFinishes": SWITCH,
        "ttlSecondsAfterFinished": COUNT,
        "rayClusterSpec": CLUSTER,
    }
)


def manifest(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    """The schema of a manifest of KubeRay."""
    head = {"apiVersion": {"const": "ray.io/v1"}, "kind": {"const": kind}}
    return exactly(head | {"metadata": exactly({"name": TEXT}), "spec": spec})


def content(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((CLUSTERS / name).read_text())
    return loaded


def test_all_of_them_are_here() -> None:
    assert {path.name for path in CLUSTERS.iterdir() if path.is_file()} == SHIPPED


@pytest.mark.parametrize("name", ["on_prem.yaml", "aws.yaml", "gcp.yaml"])
def test_launcher_files_pass_rays_schema(name: str) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(content(name))
    validate_config(prepared)
    types = prepared["available_node_types"]
    assert sum(kind.get("max_workers", 0) for kind in types.values()) >= 1
    assert prepared["head_node_type"] in types


@pytest.mark.parametrize("name", ["on_prem.yaml", "aws.yaml", "gcp.yaml"])
def test_a_wrong_key_would_not_pass(name: str) -> None:
    import jsonschema
    from ray.autoscaler._private.util import prepare_config, validate_config

    with pytest.raises(jsonschema.ValidationError, match="max_wokers"):
        validate_config(prepare_config({**content(name), "max_wokers": 3}))


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_the_header_names_three_commands(name: str) -> None:
    header = []
    for line in (CLUSTERS / name).read_text().splitlines():
        if not line.startswith("#"):
            break
        header.append(line)
    assert len([line for line in header if re.match(r"#   \S", line)]) == 3


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_nothing_ends_the_ray_of_others(name: str) -> None:
    assert "ray stop" not in (CLUSTERS / name).read_text()


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_the_sweep_it_runs_is_one_that_is_shipped(name: str) -> None:
    from proxy.sweeps.config import shipped_sweeps

    text = (CLUSTERS / name).read_text()
    named = set(re.findall(r"emergence sweep ([a-z]\w*)", text)) | set(re.findall(r"slurm\.sh (\w+)", text))
    assert named - {"CONFIG"} <= set(shipped_sweeps())
    assert named


def check_groups(spec: dict[str, Any]) -> None:
    for group in spec["workerGroupSpecs"]:
        assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", group["groupName"])


def test_kuberay_manifests_have_the_shape_of_their_resources() -> None:
    import jsonschema

    cluster, job = content("kuberay_cluster.yaml"), content("kuberay_job.yaml")
    jsonschema.validate(cluster, manifest("RayCluster", CLUSTER))
    jsonschema.validate(job, manifest("RayJob", JOB))
    check_groups(cluster["spec"])
    check_groups(job["spec"]["rayClusterSpec"])
    job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["maxReplica"] = 3
    with pytest.raises(jsonschema.ValidationError, match="maxReplica"):
        jsonschema.validate(job, manifest("RayJob", JOB))


def test_the_slurm_script_parses_and_names_what_it_needs() -> None:
    script = CLUSTERS / "slurm.sh"
    subprocess.run(["bash", "-n", str(script)], check=True)
    outcome = subprocess.run(["bash", str(script)], capture_output=True, text=True, check=False)
    assert outcome.returncode == 1
    assert "usage: sbatch slurm.sh CONFIG RESULTS" in outcome.stderr


def programs(folder: Path, sweep: str) -> dict[str, str]:
    """Stand-ins for Slurm's and Ray's programs; each `ray start` leaves its process id."""
    content = {
        "scontrol": "printf 'one\\ntwo\\n'",
        "srun": 'while [[ $1 == --* ]]; do shift; done; if [ "$1" = hostname ]; then echo 10.0.0.1; else exec "$@"; fi',
        "ray": f"""case $1 in
          start) echo $$ > {folder}/$$.ray; echo "$@" >> {folder}/started; exec sleep 60 ;;
          status) echo ' 1 node_0' ;;
        esac""",
        "emergence": sweep,
    }
    (folder / "bin").mkdir()
    (folder / "bin" / "activate").touch()
    for name, text in content.items():
        (folder / "bin" / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / "bin" / name).chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "EMERGENCE_VENV": str(folder),
        "SLURM_JOB_NODELIST": "one,two",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_PER_TASK": "16",
        "SLURM_GPUS_ON_NODE": "4",
    }


def assert_its_ray_is_gone(folder: Path) -> None:
    started = [int(path.stem) for path in folder.glob("*.ray")]
    assert len(started) == 2
    assert not any(psutil.pid_exists(pid) for pid in started)


def test_the_slurm_script_ends_its_own_ray_and_hands_on_how_the_sweep_went(tmp_path: Path) -> None:
    waits = f"until [ $(ls {tmp_path} | grep -c ray$) = 2 ]; do sleep 0.1; done"
    environment = programs(tmp_path, f'{waits}; echo "$@" > {tmp_path}/sweep; exit 3')
    script = ["bash", str(CLUSTERS / "slurm.sh"), "pythia", "/shared/pythia"]
    outcome = subprocess.run(script, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert outcome.returncode == 3, outcome.stderr
    asked = (tmp_path / "sweep").read_text().strip()
    assert asked == "sweep pythia --address 10.0.0.1:6379 --results /shared/pythia"
    assert sorted(line.split()[1] for line in (tmp_path / "started").read_text().splitlines()) == [
        "--address=10.0.0.1:6379",
        "--head",
    ]
    assert_its_ray_is_gone(tmp_path)


def test_the_slurm_script_lets_the_sweep_end_before_the_time_is_up(tmp_path: Path) -> None:
    sweep = f"trap 'echo kept > {tmp_path}/kept; exit 130' TERM; touch {tmp_path}/running; while :; do sleep 0.1; done"
    script = ["bash", str(CLUSTERS / "slurm.sh"), "pythia", "/shared/pythia"]
    job = subprocess.Popen(script, env=programs(tmp_path, sweep), stderr=subprocess.PIPE)
    while not (tmp_path / "running").exists() or len(list(tmp_path.glob("*.ray"))) < 2:
        assert job.poll() is None
        time.sleep(0.05)
    job.terminate()
    job.communicate(timeout=60)
    assert job.returncode == 143
    assert (tmp_path / "kept").exists()
    assert_its_ray_is_gone(tmp_path)


# GPUs, their kind, cores and main memory in GiB of the machines that the cluster files ask for, by their makers.
MACHINES = {"g6e.2xlarge": (1, "L40S", 8, 64), "g2-standard-24": (2, "L4", 24, 96)}


def node_of(name: str) -> Node:
    """One worker node of a cluster file; Ray keeps about a third of its memory to itself."""
    spec = content(name) if name.endswith(".yaml") else {}
    if name.startswith("kuberay"):
        group = spec["spec"].get("rayClusterSpec", spec["spec"])["workerGroupSpecs"][0]
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        gpus, kind = int(limits["nvidia.com/gpu"]), "L4"
        cpus, memory = int(limits["cpu"]), int(limits["memory"].removesuffix("Gi"))
        assert group["template"]["spec"]["nodeSelector"] == {"cloud.google.com/gke-accelerator": "nvidia-l4"}
    elif name == "slurm.sh":
        text = (CLUSTERS / name).read_text()
        gpus, kind = int(re.findall(r"--gpus-per-node=(\d+)", text)[0]), "unknown"
        cpus, memory = int(re.findall(r"--cpus-per-task=(\d+)", text)[0]), 128
    else:
        workers = [kind for type_, kind in spec["available_node_types"].items() if type_ != spec["head_node_type"]]
        machine = workers[0]["node_config"]
        gpus, kind, cpus, memory = MACHINES[machine.get("InstanceType") or machine["machineType"]]
        declared = workers[0]["resources"]
        assert declared in ({}, {"CPU": cpus, "GPU": gpus})
    return Node(Demand(gpus, int(memory * GIB * 0.65), cpus), GPU_MEMORY_GB.get(kind, UNKNOWN_GPU_GB))


@pytest.mark.parametrize("name", sorted(SHIPPED - {"on_prem.yaml"}))  # whose machines are the reader's
def test_a_node_has_room_for_every_model_of_the_sweep_that_is_named(name: str) -> None:
    text = (CLUSTERS / name).read_text()
    sweeps = set(re.findall(r"emergence sweep ([a-z]\w*)", text)) | set(re.findall(r"slurm\.sh (\w+)", text))
    node = node_of(name)
    for sweep in sweeps - {"CONFIG"}:
        config = load_config(sweep)
        wanted = {model.id: demand(model, config.resources, [node]) for model in config.models}
        assert {model for model, needed in wanted.items() if misfits(needed, [node])} == set()


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_a_cluster_asks_for_a_token(name: str) -> None:
    text = (CLUSTERS / name).read_text()
    assert "authOptions: {mode: token}" in text or "export RAY_AUTH_MODE=token" in text

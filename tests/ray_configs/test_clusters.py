"""Cluster files: valid by Ray's own schema where it has one, by shape elsewhere."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

import ray_configs

CLUSTERS = Path(ray_configs.__file__).parent / "clusters"
SHIPPED = {"on_prem.yaml", "aws.yaml", "gcp.yaml", "kuberay_cluster.yaml", "kuberay_job.yaml", "slurm.sh"}

# The fields that KubeRay's custom resource definitions (v1) require or that these manifests use.
CLUSTER_FIELDS = {
    "rayVersion",
    "authOptions",
    "enableInTreeAutoscaling",
    "autoscalerOptions",
    "headGroupSpec",
    "workerGroupSpecs",
}
JOB_FIELDS = {"entrypoint", "backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "rayClusterSpec"}
WORKER_FIELDS = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}


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
    from proxy.config import shipped_sweeps

    text = (CLUSTERS / name).read_text()
    named = set(re.findall(r"emergence sweep ([a-z]\w*)", text)) | set(re.findall(r"slurm\.sh (\w+)", text))
    assert named - {"CONFIG"} <= set(shipped_sweeps())
    assert named


def check_cluster(spec: dict[str, Any]) -> None:
    assert set(spec) <= CLUSTER_FIELDS
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    for group in groups:
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        for container in group["template"]["spec"]["containers"]:
            assert {"name", "image", "resources"} <= set(container)
            assert all(isinstance(value, str) for value in container["resources"]["limits"].values())
    for group in spec["workerGroupSpecs"]:
        assert set(group) == WORKER_FIELDS
        assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", group["groupName"])


def test_kuberay_manifests_have_the_shape_of_their_resources() -> None:
    cluster, job = content("kuberay_cluster.yaml"), content("kuberay_job.yaml")
    assert (cluster["apiVersion"], cluster["kind"]) == ("ray.io/v1", "RayCluster")
    check_cluster(cluster["spec"])
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert set(job["spec"]) == JOB_FIELDS
    check_cluster(job["spec"]["rayClusterSpec"])


def test_the_slurm_script_parses_and_names_what_it_needs() -> None:
    script = CLUSTERS / "slurm.sh"
    subprocess.run(["bash", "-n", str(script)], check=True)
    outcome = subprocess.run(["bash", str(script)], capture_output=True, text=True, check=False)
    assert outcome.returncode != 0
    assert "usage: sbatch slurm.sh CONFIG RESULTS" in outcome.stderr


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_a_cluster_asks_for_a_token(name: str) -> None:
    text = (CLUSTERS / name).read_text()
    assert "authOptions: {mode: token}" in text or "export RAY_AUTH_MODE=token" in text

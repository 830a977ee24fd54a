"""The files in examples/cluster are what Ray's launcher and KubeRay take, and agree with one another."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from phinas.command.configuration import configuration
from tests.conftest import ROOT

FOLDER = ROOT / "examples" / "cluster"
PINNED = next(
    line.split("==")[1].split()[0]
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line.startswith("ray==")
)

# The fields of the resources as of KubeRay 1.5.1 (ray.io/v1); a pod template's are those of Kubernetes.
RAY_JOB = set(
    "activeDeadlineSeconds backoffLimit clusterSelector deletionStrategy entrypoint entrypointNumCpus "
    "entrypointNumGpus entrypointResources jobId managedBy metadata rayClusterSpec runtimeEnvYAML "
    "shutdownAfterJobFinishes submissionMode submitterConfig submitterPodTemplate suspend "
    "ttlSecondsAfterFinished".split()
)
RAY_CLUSTER = set(
    "authOptions autoscalerOptions enableInTreeAutoscaling gcsFaultToleranceOptions headGroupSpec "
    "headServiceAnnotations managedBy rayVersion suspend upgradeStrategy workerGroupSpecs".split()
)
HEAD = set("enableIngress headService labels rayStartParams resources serviceType template".split())
WORKERS = set(
    "groupName idleTimeoutSeconds labels maxReplicas minReplicas numOfHosts rayStartParams replicas resources "
    "scaleStrategy suspend template".split()
)


@pytest.mark.parametrize("name", ["aws.yaml", "on_premise.yaml"])
def test_the_launcher_takes_it(name: str) -> None:
    """By the schema and the checks that `ray up` runs before it touches anything."""
    config = prepare_config(yaml.safe_load((FOLDER / name).read_text()))
    validate_config(config)
    assert config["max_workers"] >= 2 and "auth_token" in str(config["file_mounts"])


def test_kuberay_takes_it() -> None:
    claim, job = yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text())
    assert (claim["apiVersion"], claim["kind"]) == ("v1", "PersistentVolumeClaim")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"] and claim["spec"]["resources"]["requests"]["storage"]
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec: dict[str, Any] = job["spec"]
    cluster = spec["rayClusterSpec"]
    assert spec.keys() <= RAY_JOB and cluster.keys() <= RAY_CLUSTER
    assert cluster["authOptions"] == {"mode": "token"}
    head, [workers] = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    assert head.keys() <= HEAD and workers.keys() <= WORKERS
    assert workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]
    for group in (head, workers):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = group["template"]["spec"]
        volumes = {volume["name"]: volume["persistentVolumeClaim"]["claimName"] for volume in pod["volumes"]}
        [container] = pod["containers"]
        assert [volumes[mount["name"]] for mount in container["volumeMounts"]] == [claim["metadata"]["name"]]
    configuration("nas.search", "search", spec["entrypoint"].split("nas.search ")[1].split())


def test_all_have_the_ray_that_is_pinned() -> None:
    _, job = yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text())
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == PINNED
    assert f"FROM rayproject/ray:{PINNED}-py3" in (FOLDER / "Dockerfile").read_text()


def test_every_file_there_is_told_of() -> None:
    text = (ROOT / "docs" / "cluster.md").read_text()
    for file in FOLDER.iterdir():
        assert f"examples/cluster/{file.name.removesuffix('.dockerignore')}" in text

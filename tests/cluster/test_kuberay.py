"""The manifests say what KubeRay understands, and keep what the project promises."""

from __future__ import annotations

import copy
import json
import re
import shlex
from pathlib import Path

import jsonschema
import pytest
import ray
import yaml
from ray.serve.schema import ServeDeploySchema

from serve.settings import TOKEN_VARIABLE, AppArgs
from tests.cluster.manifests import (
    CLUSTER,
    KUBERAY,
    ROOT,
    ray_cluster,
    ray_containers,
    read,
    values,
)

SCHEMA = json.loads((Path(__file__).parent / "kuberay.json").read_text())
manifests = pytest.mark.parametrize("path", KUBERAY, ids=lambda path: path.stem)


def test_every_kind_has_a_manifest():
    assert {read(path)["kind"] for path in KUBERAY} == {"RayCluster", "RayJob", "RayService"}


def test_the_schema_itself_is_sound():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@manifests
def test_manifest_follows_the_structure_of_kuberay(path):
    jsonschema.Draft202012Validator(SCHEMA).validate(read(path))


@manifests
def test_a_slip_of_the_pen_in_a_manifest_is_found(path):
    slipped = copy.deepcopy(read(path))
    workers = ray_cluster(slipped)["workerGroupSpecs"][0]
    workers["minReplica"] = workers.pop("minReplicas")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(SCHEMA).validate(slipped)


@manifests
def test_ray_is_the_version_that_the_image_installs(path):
    pinned = re.search(r"^ray==(.+)$", (CLUSTER / "constraints.txt").read_text(), re.M)
    assert pinned is not None
    assert ray_cluster(read(path))["rayVersion"] == pinned[1] == ray.__version__


@manifests
def test_every_image_is_ours_by_a_placeholder_and_of_this_version(path):
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.M)
    assert version is not None
    images = set(values(read(path), "image"))
    assert images
    assert images <= {f"your-registry/gan-ray:{version[1]}-{device}" for device in ("cpu", "cuda")}


@manifests
def test_groups_with_a_gpu_and_no_others_use_the_image_with_cuda(path):
    for container in ray_containers(read(path)):
        asks = "nvidia.com/gpu" in container["resources"]["limits"]
        assert container["image"].endswith("-cuda") == asks


@manifests
def test_the_token_comes_from_a_secret_for_every_process_and_for_the_operator(path):
    cluster = ray_cluster(read(path))
    assert cluster["authOptions"]["mode"] == "token"
    secret = {"name": cluster["authOptions"]["secretName"], "key": "auth_token"}
    submitters = [
        container
        for template in values(read(path), "submitterPodTemplate")
        for container in template["spec"]["containers"]
    ]
    for container in [*ray_containers(read(path)), *submitters]:
        env = {variable["name"]: variable for variable in container["env"]}
        assert env["RAY_AUTH_MODE"]["value"] == "token"
        assert env["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"] == secret


@manifests
def test_no_variable_that_sounds_secret_has_its_value_in_the_file(path):
    for variables in values(read(path), "env"):
        for variable in variables:
            if re.search("TOKEN|KEY|SECRET|PASSWORD", variable["name"]):
                assert "value" not in variable


@manifests
def test_every_secret_is_one_that_the_page_makes(path):
    manifest = read(path)
    page = (ROOT / "docs" / "cluster.md").read_text()
    made = set(re.findall(r"kubectl create secret generic (\S+)", page))
    named = {
        *(reference["name"] for reference in values(manifest, "secretKeyRef")),
        *(reference["name"] for reference in values(manifest, "secretRef")),
        *values(manifest, "secretName"),
    }
    assert "gan-ray-storage" in named
    assert named <= made


@manifests
def test_every_node_has_probes_the_store_and_memory_that_is_its_own(path):
    for container in ray_containers(read(path)):
        assert {"readinessProbe", "livenessProbe"} <= set(container)
        assert container["envFrom"] == [{"secretRef": {"name": "gan-ray-storage"}}]
        asked, allowed = container["resources"]["requests"], container["resources"]["limits"]
        assert asked["memory"] == allowed["memory"]
        assert asked.get("nvidia.com/gpu") == allowed.get("nvidia.com/gpu")


@manifests
def test_the_cluster_grows_between_its_bounds_and_starts_within_them(path):
    cluster = ray_cluster(read(path))
    assert cluster["enableInTreeAutoscaling"]
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        assert group["minReplicas"] < group["maxReplicas"]
    # What starts on a cluster counts its room at once: it must not be empty.
    assert any(group["minReplicas"] for group in cluster["workerGroupSpecs"])


def test_the_job_runs_an_entry_point_that_is_in_the_image():
    (manifest,) = [read(path) for path in KUBERAY if read(path)["kind"] == "RayJob"]
    words = shlex.split(manifest["spec"]["entrypoint"])
    (script,) = [word for word in words if word.endswith(".sh")]
    assert "COPY cluster/jobs jobs" in (CLUSTER / "Dockerfile").read_text()
    assert Path(script).parent == Path("/opt/gan-ray/jobs")
    assert (CLUSTER / "jobs" / Path(script).name).is_file()


def service() -> dict:
    (manifest,) = [read(path) for path in KUBERAY if read(path)["kind"] == "RayService"]
    return manifest


def test_the_service_embeds_the_serve_configuration_and_changes_the_host_alone():
    embedded = yaml.safe_load(service()["spec"]["serveConfigV2"])
    shipped = read(CLUSTER / "serve.yaml")
    shipped["http_options"]["host"] = shipped["applications"][0]["args"]["host"] = "0.0.0.0"
    assert embedded == shipped


def test_serve_and_the_application_accept_what_the_service_embeds(monkeypatch):
    config = ServeDeploySchema.model_validate(yaml.safe_load(service()["spec"]["serveConfigV2"]))
    monkeypatch.setenv(TOKEN_VARIABLE, "t" * 32)
    AppArgs(**config.applications[0].args).check_exposure()


def test_the_service_gives_every_pod_the_token_of_the_endpoint():
    for container in ray_containers(service()):
        env = {variable["name"]: variable for variable in container["env"]}
        assert "secretKeyRef" in env[TOKEN_VARIABLE]["valueFrom"]


def test_the_least_cluster_of_the_service_has_room_for_all_its_scoring_processes():
    (application,) = yaml.safe_load(service()["spec"]["serveConfigV2"])["applications"]
    needed = application["args"]["replicas"] * len(application["args"]["bundles"])
    have = sum(
        group["minReplicas"] * int(container["resources"]["limits"]["cpu"])
        for group in ray_cluster(service())["workerGroupSpecs"]
        for container in group["template"]["spec"]["containers"]
    )
    assert needed <= have

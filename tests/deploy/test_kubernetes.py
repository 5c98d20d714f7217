"""The manifests, as far as they can be checked without a cluster: each against Kubernetes' own schema, strictly, and
all against each other and against the services' settings.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import kubernetes_validate  # pyright: ignore[reportMissingTypeStubs]
import pytest
import yaml

from banksman.settings import GatewaySettings, MigrateSettings, NotifierSettings, Settings, WorkerSettings
from banksman_gateway.intake import MOST_BATCH_BYTES

FOLDER = Path(__file__).parents[2] / "deploy/kubernetes"
VERSION = "1.33"
SETTINGS: dict[str, type[Settings]] = {
    "worker": WorkerSettings,
    "gateway": GatewaySettings,
    "notifier": NotifierSettings,
}
OTHERS = ("kustomize.config.k8s.io/v1beta1", "keda.sh/v1alpha1")

Object = dict[str, Any]


def objects() -> list[Object]:
    return [found for path in sorted(FOLDER.glob("*.yaml")) for found in yaml.safe_load_all(path.read_text())]


def of_kind(kind: str) -> dict[str, Object]:
    return {found["metadata"]["name"]: found for found in objects() if found["kind"] == kind}


def pods() -> dict[str, Object]:
    """What runs: the pod of every deployment and of the migration."""
    return {name: found["spec"]["template"]["spec"] for name, found in (of_kind("Deployment") | of_kind("Job")).items()}


def named(found: Object) -> str:
    return f"{found['kind']} {found.get('metadata', {}).get('name', '')}"


@pytest.mark.parametrize("found", objects(), ids=named)
def test_each_object_is_valid_by_kubernetes_own_schema(found: Object) -> None:
    if found["apiVersion"] in OTHERS:
        pytest.skip("not an object of Kubernetes itself; looked at by name below")
    kubernetes_validate.validate(found, VERSION, strict=True)


def test_a_typing_error_would_be_noticed() -> None:
    broken = of_kind("Deployment")["worker"]
    broken["spec"]["template"]["spec"]["terminationGracePeriodSecond"] = 5

    with pytest.raises(kubernetes_validate.ValidationError, match="terminationGracePeriodSecond"):
        kubernetes_validate.validate(broken, VERSION, strict=True)


def test_kustomize_is_told_of_every_file_and_names_a_version_of_every_image() -> None:
    [told] = [found for found in objects() if found["kind"] == "Kustomization"]

    assert set(told["resources"]) == {path.name for path in FOLDER.glob("*.yaml")} - {"kustomization.yaml"}
    images = {container["image"] for pod in pods().values() for container in pod["containers"]}
    assert images == {image["name"] for image in told["images"]}
    assert all(image["newTag"] != "latest" for image in told["images"])


def test_everything_runs_without_privileges_on_a_file_system_that_it_cannot_write() -> None:
    assert set(pods()) == {"worker", "gateway", "notifier", "migrate"}
    for pod in pods().values():
        [container] = pod["containers"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 10001
        assert pod["automountServiceAccountToken"] is False
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "memory" in container["resources"]["limits"]


def test_each_pod_gets_its_own_secret_and_no_other_and_no_secret_stands_in_a_file() -> None:
    for name, pod in pods().items():
        [container] = pod["containers"]
        given = [next(iter(source.values()))["name"] for source in container["envFrom"]]
        assert given == (
            [f"banksman-{name}"] if name == "migrate" else [f"banksman-{name}-settings", f"banksman-{name}"]
        )
        assert "env" not in container
    assert of_kind("Secret") == {}


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_in_the_manifests_is_one_of_its_service(name: str) -> None:
    data: dict[str, str] = of_kind("ConfigMap")[f"banksman-{name}-settings"]["data"]
    fields = SETTINGS[name].model_fields

    for variable, value in data.items():
        field = variable.removeprefix("BANKSMAN_").lower()
        assert field in fields
        assert isinstance(cast("object", value), str)
    assert "scaler_password" in MigrateSettings.model_fields


@pytest.mark.parametrize(("name", "path"), [("worker", "/healthz"), ("gateway", "/healthz"), ("notifier", "/healthz")])
def test_probes_ask_the_port_that_the_service_listens_on(name: str, path: str) -> None:
    [container] = pods()[name]["containers"]
    data = of_kind("ConfigMap")[f"banksman-{name}-settings"]["data"]
    listens = int(data.get("BANKSMAN_HEALTH_PORT") or data["BANKSMAN_PORT"])

    [port] = container["ports"]
    assert port["containerPort"] == listens
    assert container["livenessProbe"]["httpGet"] == {"path": path, "port": port["name"]}
    assert container["startupProbe"]["httpGet"] == {"path": path, "port": port["name"]}
    assert data.get("BANKSMAN_HEALTH_HOST", data.get("BANKSMAN_HOST")) == "0.0.0.0"


def test_a_worker_has_longer_to_end_than_it_drains() -> None:
    data = of_kind("ConfigMap")["banksman-worker-settings"]["data"]

    # It drains, lets tools that have started end, and stores what they gave.
    assert pods()["worker"]["terminationGracePeriodSeconds"] >= 60 + float(data["BANKSMAN_DRAIN_SECONDS"])
    assert pods()["gateway"]["terminationGracePeriodSeconds"] >= 5 + 10 + 10


def test_a_batch_of_the_largest_size_has_room_to_be_spooled_in() -> None:
    [room] = [volume["emptyDir"]["sizeLimit"] for volume in pods()["gateway"]["volumes"] if volume["name"] == "tmp"]

    assert room.endswith("Gi")
    assert int(room[:-2]) << 30 >= 4 * MOST_BATCH_BYTES


def test_every_deployment_has_a_budget_and_its_selectors_meet() -> None:
    budgets = of_kind("PodDisruptionBudget")

    for name, found in of_kind("Deployment").items():
        labels = found["spec"]["template"]["metadata"]["labels"]
        assert found["spec"]["selector"]["matchLabels"] == labels
        assert budgets[name]["spec"]["selector"]["matchLabels"] == labels
    assert of_kind("Service")["gateway"]["spec"]["selector"] == {"app.kubernetes.io/name": "gateway"}


def test_workers_are_scaled_by_the_work_there_is_and_the_gateway_by_cpu() -> None:
    scaled = of_kind("ScaledObject")["worker"]["spec"]
    [trigger] = scaled["triggers"]
    concurrency = int(of_kind("ConfigMap")["banksman-worker-settings"]["data"]["BANKSMAN_CONCURRENCY"])

    # tests/ledger/test_work_at_hand.py asks this of a real PostgreSQL, as that role.
    assert trigger["type"] == "postgresql"
    assert trigger["metadata"]["query"] == "SELECT work_at_hand()"
    assert 0 < int(trigger["metadata"]["targetQueryValue"]) <= concurrency
    assert trigger["authenticationRef"]["name"] in of_kind("TriggerAuthentication")
    assert scaled["scaleTargetRef"]["name"] in of_kind("Deployment")
    assert scaled["minReplicaCount"] >= 1
    assert "replicas" not in of_kind("Deployment")["worker"]["spec"]
    assert "replicas" not in of_kind("Deployment")["gateway"]["spec"]
    assert of_kind("HorizontalPodAutoscaler")["gateway"]["spec"]["scaleTargetRef"]["name"] == "gateway"


def test_what_no_policy_names_is_not_reached() -> None:
    policies = of_kind("NetworkPolicy")

    assert policies["nothing-else"]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    reached = {
        rule["podSelector"]["matchLabels"]["app.kubernetes.io/name"]
        for policy in policies.values()
        for step in policy["spec"].get("ingress", ())
        for rule in [policy["spec"]]
        if step and rule["podSelector"]
    }
    assert reached == {"gateway"}
    out = policies["from-the-notifier"]["spec"]["egress"]
    assert out[0]["to"] == [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "gateway"}}}]

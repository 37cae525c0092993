"""Compose file, Dockerfile and Kubernetes manifests: valid by strict schemas, and naming only what is there."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from geossl.train.remote.job import Job
from geossl.train.remote.kubernetes import manifest
from geossl.train.remote.settings import KubernetesSettings

from . import scripts
from .stack import BIN, ROOT

INFRA = ROOT / "infra"
COMPOSE = yaml.safe_load((INFRA / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
ADDRESS = re.compile(r"(?:://|@|^|,)([a-z][a-z0-9.-]*):(\d+)(?![\w-])")
KNOWN_KINDS = {"Namespace", "NetworkPolicy", "PersistentVolumeClaim", "Secret", "Service", "ServiceAccount", "Role",
               "RoleBinding", "Deployment", "StatefulSet", "Job"}  # fmt: skip


def program(name: str, *arguments: Any) -> str:
    """What a program of this Python environment prints; it has to like what it is given."""
    done = subprocess.run(
        [Path(sys.executable).with_name(name), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def secrets() -> dict[str, str]:
    made = subprocess.run([BIN / "make-secrets"], check=True, capture_output=True, text=True).stdout
    return scripts.secrets(made)


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """What kubectl makes of the kustomizations, with secrets and certificates as a person makes them."""
    copy = tmp_path_factory.mktemp("kubernetes")
    for path in sorted((INFRA / "kubernetes").rglob("*.yaml")):
        there = copy / path.relative_to(INFRA / "kubernetes")
        there.parent.mkdir(exist_ok=True)
        there.write_text(path.read_text())
    made = subprocess.run([BIN / "make-secrets"], check=True, capture_output=True, text=True).stdout
    (copy / "base/secrets.env").write_text(made)
    subprocess.run([BIN / "certificates", copy / "base/certificates"], check=True, capture_output=True)
    return {name: built(copy / name) for name in ("base", "training")}


def built(folder: Path) -> list[dict[str, Any]]:
    text = program("kubectl", "kustomize", folder)
    whole = folder / "built"
    whole.write_text(text)
    program("kubernetes-validate", "--strict", whole)
    return list(yaml.safe_load_all(text))


def pods(objects: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for one in objects:
        if "template" in one.get("spec", {}):
            yield one["spec"]["template"]


def of_kind(kind: str, objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one for one in objects if one["kind"] == kind]


def test_the_compose_file_is_valid() -> None:
    program("check-jsonschema", "--builtin-schema", "vendor.compose-spec", INFRA / "compose.yaml")


def test_the_dockerfile_is_valid_and_runs_as_nobody_in_particular() -> None:
    program("hadolint", INFRA / "Dockerfile")
    text = (INFRA / "Dockerfile").read_text()
    assert "://" not in text  # no host is named: packages come from where the builder is told
    stages = re.split(r"^FROM ", text, flags=re.MULTILINE)[1:]
    of = {stage.split()[2]: stage for stage in stages if " AS " in stage.partition("\n")[0]}
    wanted = {service["build"]["target"] for service in SERVICES.values()}
    assert wanted <= set(of)
    assert all("\nUSER 10001:10001" in of[name] for name in wanted)
    assert "--constraint constraints.txt" in of["wheel-cpu"]
    assert "--constraint constraints.txt" in of["wheel-cuda"]
    for source in re.findall(r"^COPY (?!--from)(.*) \S+$", text, flags=re.MULTILINE):
        assert all((ROOT / name).exists() for name in source.split())
    assert set(re.findall(r"infra/bin/([\w-]+)", text)) <= scripts.names()


def test_compose_names_what_the_scripts_know() -> None:
    for name, service in SERVICES.items():
        script = Path(service["command"][0])
        assert script.parent == Path("infra/bin")
        assert script.name in scripts.names(), f"{name}: there is no {script}"
        unknown = set(service.get("environment", {})) - scripts.variables(script)
        assert not unknown, f"{name}: {script} does not know {unknown}"
        if "healthcheck" in service:
            assert service["healthcheck"]["test"] == ["CMD", "infra/bin/healthy", script.name]


def test_compose_connects_services_that_meet(secrets: dict[str, str]) -> None:
    ports = {name: set(map(str, said(service).values())) for name, service in SERVICES.items()}
    for name, service in SERVICES.items():
        for variable, value in said(service).items():
            for host, port in ADDRESS.findall(filled(value, secrets)):
                if host == "localhost":
                    continue
                assert port in ports[host], f"{name}: {variable} names a port on which {host} does not listen"
                assert host == name or set(SERVICES[host]["networks"]) & set(service["networks"]), f"{name} → {host}"
        for published in service.get("ports", ()):
            assert published.startswith("127.0.0.1:")
            assert published.rpartition(":")[2] in ports[name]
        for other in service.get("depends_on", ()):
            assert other in SERVICES


def test_compose_asks_only_for_secrets_that_are_made(secrets: dict[str, str]) -> None:
    asked = re.findall(r"\$\{(\w+):\?run infra/bin/make-secrets", (INFRA / "compose.yaml").read_text())
    assert set(asked) <= set(secrets)


def test_compose_gives_as_little_as_can_be() -> None:
    for service in SERVICES.values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert not {"privileged", "pid", "cap_add", "devices"} & set(service)


def said(service: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in service.get("environment", {}).items()}


def filled(value: str, given: dict[str, str]) -> str:
    """A value with its ``${NAME:-default}`` replaced."""
    return re.sub(r"\$\{(\w+)(?::[-?]([^}]*))?\}", lambda m: given.get(m[1], m[2] or ""), value)


def test_manifests_are_of_kinds_that_were_checked(manifests: dict[str, list[dict[str, Any]]]) -> None:
    # the validator lets pass what it does not know
    assert {one["kind"] for objects in manifests.values() for one in objects} == KNOWN_KINDS


def test_manifests_name_what_the_scripts_know(manifests: dict[str, list[dict[str, Any]]]) -> None:
    images = {
        stage.split()[3] for stage in re.findall(r"^FROM .* AS .*$", (INFRA / "Dockerfile").read_text(), re.MULTILINE)
    }
    for pod in pods([*manifests["base"], *manifests["training"]]):
        for container in pod["spec"]["containers"]:
            script = Path(container["args"][0])
            assert script.parent == Path("infra/bin")
            assert script.name in scripts.names()
            variables = {one["name"] for one in container["env"]}
            assert variables <= scripts.variables(script), f"{script} does not know {variables}"
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                if probe in container:
                    assert container[probe]["exec"]["command"] == ["infra/bin/healthy", script.name]
            assert container["image"].split(":")[0].removeprefix("geossl-") in images | {"cuda"}
            assert {mount["name"] for mount in container["volumeMounts"]} <= (
                {volume["name"] for volume in pod["spec"]["volumes"]} | {"data"}
            )


def test_what_manifests_say_is_tried_without_a_cluster(manifests: dict[str, list[dict[str, Any]]]) -> None:
    """Scripts and variables are those that test_compose.py and test_slurm.py really run."""
    tried = {Path(service["command"][0]).name: set(service.get("environment", {})) for service in SERVICES.values()}
    batch = (INFRA / "slurm/train.sbatch").read_text()
    tried["train"] = {name for name in scripts.variables("train") if re.search(rf"\b{name}\b", batch)}
    tried["train"] |= {"XDG_CACHE_HOME", "AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"}
    for pod in pods([*manifests["base"], *manifests["training"]]):
        (container,) = pod["spec"]["containers"]
        script = Path(container["args"][0]).name
        assert {one["name"] for one in container["env"]} <= tried[script], script


def test_manifests_refer_to_what_is_there(manifests: dict[str, list[dict[str, Any]]], secrets: dict[str, str]) -> None:
    everything = [*manifests["base"], *manifests["training"]]
    labels = [pod["metadata"]["labels"] for pod in pods(everything)]
    names = {kind: {one["metadata"]["name"] for one in of_kind(kind, everything)} for kind in KNOWN_KINDS}
    listens = {}
    for service in of_kind("Service", manifests["base"]):
        selector = service["spec"]["selector"]
        (pod,) = [pod for pod in pods(manifests["base"]) if selector.items() <= pod["metadata"]["labels"].items()]
        (container,) = pod["spec"]["containers"]
        (port,) = service["spec"]["ports"]
        assert port["port"] in [one["containerPort"] for one in container["ports"]]
        assert str(port["port"]) in [one.get("value") for one in container["env"]]
        listens[service["metadata"]["name"]] = str(port["port"])
    for policy in of_kind("NetworkPolicy", everything):
        chosen = policy["spec"]["podSelector"].get("matchLabels", {})
        assert any(chosen.items() <= label.items() for label in labels), policy["metadata"]["name"]
    for pod in pods(everything):
        spec = pod["spec"]
        for volume in spec["volumes"]:
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in names["PersistentVolumeClaim"]
            if "secret" in volume:
                assert volume["secret"]["secretName"] in names["Secret"]
        for variable in spec["containers"][0]["env"]:
            if (key := variable.get("valueFrom", {}).get("secretKeyRef")) is not None:
                assert key["name"] in names["Secret"]
                assert key["key"] in secrets or key.get("optional"), key
            for host, port in ADDRESS.findall(secrets.get(variable["name"], variable.get("value", ""))):
                if host != "localhost" and "training" not in host and not host.startswith("geossl-pretrain"):
                    assert listens[host] == port, variable


def test_pods_are_as_restricted_as_can_be(manifests: dict[str, list[dict[str, Any]]]) -> None:
    job = Job("geossl-x", Path("/p"), Path("/p/f"), "geossl.project.rank")
    launched = manifest(KubernetesSettings(image="i", claim="c"), job)["items"]
    may_call = []
    for pod in pods([*manifests["base"], *manifests["training"], *launched]):
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        assert not any("hostPath" in volume for volume in spec["volumes"])
        (container,) = spec["containers"]
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        if spec["automountServiceAccountToken"]:
            may_call.append(pod["metadata"]["labels"]["app.kubernetes.io/name"])
        elif spec in [pod["spec"] for pod in pods(manifests["base"])]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert may_call == ["worker"]  # it starts trainings


def test_no_secret_has_a_value_in_the_repository() -> None:
    tracked = subprocess.run(["git", "ls-files", "infra"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not [name for name in tracked.split() if name.endswith((".env", ".key", ".pem"))]
    for path in (INFRA / "kubernetes").glob("*/[!s]*.yaml"):
        for one in yaml.safe_load_all(path.read_text()):
            assert one.get("kind") != "Secret", path


@pytest.mark.parametrize(
    ("script", "environment", "named"),
    [
        ("prefect-server", {"PREFECT_SERVER_API_HOST": "0.0.0.0"}, "PREFECT_SERVER_API_AUTH_STRING"),
        ("mlflow-server", {"MLFLOW_HOST": "10.0.0.1"}, "MLFLOW_AUTH_ADMIN_PASSWORD"),
        ("dask-scheduler", {"DASK_SCHEDULER_HOST": "::"}, "DASK_DISTRIBUTED__COMM__TLS__CA_FILE"),
        ("dask-worker", {"DASK_SCHEDULER_ADDRESS": "tcp://x:1", "DASK_WORKER_HOST": "example.org"},
         "DASK_DISTRIBUTED__COMM__TLS__CA_FILE"),
        ("s3", {"S3_HOST": "0.0.0.0"}, "S3_FOLDER"),
        ("s3", {"S3_FOLDER": "/tmp"}, "AWS_ACCESS_KEY_ID"),
        ("postgres", {"PGDATA": "/nowhere"}, "POSTGRES_PASSWORD"),
        ("worker", {}, "PREFECT_API_URL"),
        ("train", {}, "GEOSSL_PROJECT"),
    ],
)  # fmt: skip
def test_a_script_says_what_it_needs_to_be_told(script: str, environment: dict[str, str], named: str) -> None:
    told = {"PATH": "/usr/bin:/bin", **environment}
    refused = subprocess.run([BIN / script], env=told, capture_output=True, text=True, check=False, timeout=10)
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"{script}: ")
    assert named in refused.stderr
    assert refused.stderr.count("\n") == 1

"""`geossl deploy` on a real Prefect server: what lies there, that nothing else is touched, and that it goes again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import (
    DeploymentScheduleCreate,
    GlobalConcurrencyLimitCreate,
    VariableCreate,
    WorkPoolCreate,
)
from prefect.client.schemas.schedules import CronSchedule
from prefect.events.schemas.automations import AutomationCore

from flows.deploy import deploy, undeploy
from geossl.errors import SettingsError
from tests.flows.projects import project
from tests.flows.server import PrefectServer, free_port, server

FLOWS = ("watch", "ingest", "retrain", "pretrain", "finetune", "publish", "maintain", "mend")


@pytest.fixture
def client(prefect_server: PrefectServer) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as client:
        yield client


@pytest.mark.slow
def test_deploying_makes_everything_and_again_changes_nothing(tmp_path: Path, client: SyncPrefectClient) -> None:
    file = project(tmp_path, "forest", "deploy: {schedules: {watch: 5m, retrain: null, publish: 30 6 * * 1}}")
    would = list(deploy(file, dry_run=True))
    assert all(line.startswith("would add ") for line in would)
    assert "forest" not in dump(client), "a dry run does nothing"

    did = list(deploy(file))
    assert did == [done(line) for line in would] + ["no worker is at work: prefect worker start --pool forest"]
    found = {one.name: one for one in client.read_deployments()}
    assert set(found) == {f"forest-{flow}" for flow in FLOWS}
    assert {one.work_pool_name for one in found.values()} == {"forest"}
    assert found["forest-watch"].schedules[0].schedule.interval.total_seconds() == 300
    assert not found["forest-retrain"].schedules
    assert found["forest-publish"].schedules[0].schedule.cron == "30 6 * * 1"
    assert found["forest-maintain"].schedules[0].schedule.cron == "30 5 * * *"
    queues = {queue.name: queue.concurrency_limit for queue in client.read_work_queues(work_pool_name="forest")}
    ones = {f"forest-{part}": 1 for part in ("imagery", "training", "maps", "upkeep")}
    assert queues == ones | {"default": None, "forest-mend": 2}
    trainings = {name for name, one in found.items() if one.work_queue_name == "forest-training"}
    assert trainings == {"forest-retrain", "forest-pretrain", "forest-finetune"}

    before = dump(client)
    assert next(iter(deploy(file))) == "nothing to change"
    assert dump(client) == before
    list(undeploy(file))
    assert "forest" not in dump(client)
    assert list(undeploy(file)) == ["nothing to change"]


@pytest.mark.slow
def test_every_parameter_of_a_form_has_a_type_and_a_description(tmp_path: Path, client: SyncPrefectClient) -> None:
    file = project(tmp_path, "forms")
    list(deploy(file, ["map.minimum_ha=2"]))
    for deployment in client.read_deployments():
        properties = deployment.parameter_openapi_schema["properties"]
        assert {"project_file", "overrides"} <= set(properties)
        for name, said in properties.items():
            assert said.get("type") or said.get("anyOf"), name
            assert len(said["description"]) > 20, (deployment.name, name)
        assert deployment.parameters == {"project_file": str(file), "overrides": ["map.minimum_ha=2"]}
        assert deployment.description
    list(undeploy(file))


@pytest.mark.slow
def test_a_difference_is_said_as_old_and_new_and_then_made(tmp_path: Path, client: SyncPrefectClient) -> None:
    file = project(tmp_path, "delta")
    list(deploy(file))
    by_hand = next(one for one in client.read_deployments() if one.name == "delta-publish")
    client.pause_deployment(by_hand.id)
    project(tmp_path, "delta", "deploy: {attempts: 2, gpu_pool: delta-gpu, schedules: {watch: 1h}}")
    would = list(deploy(file, dry_run=True))
    assert "would add work pool delta-gpu" in would
    assert "would add work queue delta-gpu/delta-training" in would
    assert "would remove work queue delta/delta-training" in would
    assert "would change deployment geossl-watch/delta-watch" in would
    assert "    schedules: every 15 min → every 1 h" in would
    assert "    work pool: delta → delta-gpu" in would
    assert '    trigger.match.prefect.run-count: ["1", "2"] → ["1"]' in would
    did = list(deploy(file))
    assert did[: len(would)] == [done(line) for line in would]
    assert next(iter(deploy(file, dry_run=True))) == "nothing to change"
    assert client.read_deployment(by_hand.id).paused, "what a person paused stays paused"
    list(undeploy(file))


@pytest.mark.slow
def test_two_projects_and_strangers_share_a_server_without_meeting(tmp_path: Path, client: SyncPrefectClient) -> None:
    strangers(client)
    alone = dump(client)
    one, other = project(tmp_path / "one", "amazon"), project(tmp_path / "other", "amazon-south")
    list(deploy(one))
    with_one = dump(client)
    list(deploy(other))
    assert next(iter(deploy(one, dry_run=True))) == "nothing to change"
    list(undeploy(other))
    assert dump(client) == with_one
    list(undeploy(one))
    assert dump(client) == alone


@pytest.mark.slow
def test_a_pool_of_others_is_used_and_left(tmp_path: Path, client: SyncPrefectClient) -> None:
    client.create_work_pool(WorkPoolCreate(name="machines", type="process", description="of the office"))
    before = dump(client)
    file = project(tmp_path, "guest", "deploy: {pool: machines}")
    did = list(deploy(file))
    assert not any("work pool" in line for line in did if line.startswith("added"))
    assert {one.work_pool_name for one in client.read_deployments() if one.name.startswith("guest-")} == {"machines"}
    list(undeploy(file))
    assert dump(client) == before
    client.delete_work_pool("machines")


@pytest.mark.slow
def test_pools_may_be_of_kubernetes(tmp_path: Path, client: SyncPrefectClient) -> None:
    told = "deploy: {pool: cloud-cpu, gpu_pool: cloud-gpu, kind: kubernetes, image: geossl:1}"
    file = project(tmp_path, "cloud", told)
    list(deploy(file))
    assert {client.read_work_pool(name).type for name in ("cloud-cpu", "cloud-gpu")} == {"kubernetes"}
    ours = [one for one in client.read_deployments() if one.name.startswith("cloud-")]
    assert {one.job_variables["image"] for one in ours} == {"geossl:1"}
    on_gpu = {one.name for one in ours if one.work_pool_name == "cloud-gpu"}
    assert on_gpu == {"cloud-retrain", "cloud-pretrain", "cloud-finetune"}
    project(tmp_path, "cloud", told.replace("kubernetes", "process"))
    with pytest.raises(SettingsError, match="Prefect changes no pool's type"):
        list(deploy(file))
    list(undeploy(file))


@pytest.mark.slow
def test_another_project_of_the_same_name_is_refused(tmp_path: Path, client: SyncPrefectClient) -> None:
    mine, theirs = project(tmp_path / "mine", "same"), project(tmp_path / "theirs", "same")
    list(deploy(mine))
    for verb in (deploy, undeploy):
        with pytest.raises(SettingsError, match=rf"same is already on this server, from {mine}; this one is {theirs}"):
            list(verb(theirs))
    did = list(deploy(theirs, moved=True))
    assert f"    parameters.project_file: {mine} → {theirs}" in did
    list(undeploy(theirs))


@pytest.mark.slow
def test_it_is_a_prefect_yaml_too(tmp_path: Path, prefect_server: PrefectServer, client: SyncPrefectClient) -> None:
    import subprocess
    import sys

    from flows.deploy_wanted import declaration

    client.create_work_pool(WorkPoolCreate(name="plain", type="process"))
    file = project(tmp_path, "plain", "deploy: {pool: plain}")
    told = {
        "GEOSSL_PROJECT": "plain",
        "GEOSSL_PROJECT_FILE": str(file),
        "GEOSSL_POOL": "plain",
        "GEOSSL_GPU_POOL": "plain",
    }
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(declaration())]
    done = subprocess.run(
        command, env=prefect_server.client_environment() | told, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    names = {one.name for one in client.read_deployments() if one.name.startswith("plain-")}
    assert names == {f"plain-{flow}" for flow in FLOWS}
    did = list(deploy(file))
    deployments = [line for line in did if "deployment" in line]
    assert deployments
    assert all(line.startswith("changed") for line in deployments)
    assert "    schedules" not in "\n".join(did), "the same schedules by both ways"
    automations = [one.name for one in client.read_automations() if one.name.startswith("plain")]
    assert len(automations) == len(set(automations)) == 6
    list(undeploy(file))
    client.delete_work_pool("plain")


@pytest.mark.slow
def test_a_server_with_a_password(tmp_path: Path) -> None:
    file = project(tmp_path, "locked")
    with server(tmp_path, auth="admin:secret") as prefect:
        with prefect.reached():
            assert "added work pool locked" in list(deploy(file))
        prefect.auth = None
        with prefect.reached(), pytest.raises(SettingsError, match="PREFECT_API_AUTH_STRING"):
            list(deploy(file))


def test_no_server_and_the_wrong_server_are_told_apart(tmp_path: Path) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows.deploy_server import require_suitable

    file = project(tmp_path, "nowhere")
    with (
        temporary_settings(restore_defaults={PREFECT_API_URL}),
        pytest.raises(SettingsError, match="no Prefect server is named"),
    ):
        list(deploy(file))
    address = f"http://127.0.0.1:{free_port()}/api"
    with temporary_settings({PREFECT_API_URL: address}), pytest.raises(SettingsError, match=f"answers at {address}"):
        list(deploy(file))
    for unsuitable in ("2.20.1", "3.4.25", "4.0.0"):
        with pytest.raises(SettingsError, match=rf"{unsuitable}.*3\.8"):
            require_suitable(unsuitable, address)
    for suitable in ("3.8.0", "3.9.1"):
        require_suitable(suitable, address)


def done(line: str) -> str:
    """What is said of a change once it is made."""
    for would, did in (("would add", "added"), ("would change", "changed"), ("would remove", "removed")):
        line = line.replace(would, did)
    return line


def strangers(client: SyncPrefectClient) -> None:
    """What others have on the server, some of it with names much like ours."""
    client.create_work_pool(WorkPoolCreate(name="amazon-old", type="process", description="not geossl amazon:"))
    client.create_work_queue("amazon-training", work_pool_name="amazon-old", description="theirs")
    weekly = DeploymentScheduleCreate(schedule=CronSchedule(cron="0 0 * * 0"))
    names = (("other", "amazon-watch"), ("geossl-watch", "amazon-south-east-watch"), ("geossl-watch", "nightly"))
    for flow, name in names:
        id = client.create_flow_from_name(flow)
        client.create_deployment(
            id, name, tags=["amazon"], schedules=[weekly], work_pool_name="amazon-old", entrypoint="f.py:f"
        )
    trigger = {"type": "event", "expect": ["geossl.imagery.ingested"], "posture": "Reactive"}
    automation = {"name": "amazon: mine", "tags": ["amazon"], "trigger": trigger, "actions": [{"type": "do-nothing"}]}
    client.create_automation(AutomationCore.model_validate(automation))
    client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name="amazon-training", limit=2))
    client.create_variable(VariableCreate(name="amazon", value="river"))


def dump(client: SyncPrefectClient) -> str:
    """Everything that lies on a server, but the runs that schedules have planned."""
    kinds = ("flows", "deployments", "work_pools", "work_queues", "automations", "v2/concurrency_limits", "variables",
             "concurrency_limits", "block_documents", "artifacts")  # fmt: skip
    found: dict[str, Any] = {}
    for kind in kinds:
        answer = client.request("POST", f"/{kind}/filter", json={}).json()
        found[kind] = sorted(answer, key=lambda one: one["id"])
    return json.dumps(found, sort_keys=True, indent=1)

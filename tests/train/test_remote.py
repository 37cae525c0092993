"""What is handed to torchrun, Slurm and Kubernetes, and what a rank does that is told to end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from geossl.errors import TrainingError
from geossl.files import write_json
from geossl.train.remote import slurm
from geossl.train.remote.job import Job, Told
from geossl.train.remote.kubernetes import manifest
from geossl.train.remote.settings import KubernetesSettings, LaunchSettings, SlurmSettings

KUBERNETES = {"image": "registry/geossl:1", "claim": "imagery"}


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job("geossl-small-0123456789abcdef", tmp_path, tmp_path / "the launch", "geossl.project.rank")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"torchrun": {}, "slurm": {}}, "choose one of torchrun, slurm"),
        ({"torchrun": {"nnodes": 2}}, "give nnodes with endpoint"),
        ({"kubernetes": {"image": "x"}}, "claim"),
        ({"slurm": {"queue": "x"}}, "queue"),
    ],
)
def test_settings_that_make_no_sense_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        LaunchSettings.model_validate(given)


def test_by_default_it_runs_here() -> None:
    assert LaunchSettings().here
    assert not LaunchSettings.model_validate({"torchrun": {}}).here


def test_the_batch_script_is_one_that_bash_reads(job: Job) -> None:
    settings = SlurmSettings(nodes=2, gpus=4, prologue=("module load cuda",), time="08:00:00", extra=("--qos=long",))
    script = slurm.script(settings, job)
    read = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
    assert (read.returncode, read.stderr) == (0, "")
    assert script.startswith("#!/bin/bash\nmodule load cuda\n")
    assert "--nnodes=2 --nproc-per-node=4 --max-restarts=0 -m geossl.project.rank '" in script  # a blank in the folder
    told = slurm.options(settings, job)
    assert {"--nodes=2", "--gpus-per-node=4", "--time=08:00:00", "--requeue", "--qos=long"} <= set(told)
    assert not any("None" in option for option in told)


@pytest.mark.parametrize(
    "more",
    [{}, {"namespace": "maps", "replicas": 4, "gpus": 8, "cpu": "16", "memory": "64Gi", "secret": "bucket"}],
    ids=["least", "most"],
)
def test_kubernetes_knows_every_field(job: Job, more: dict[str, Any]) -> None:
    kubernetes = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    service, indexed = manifest(KubernetesSettings.model_validate(KUBERNETES | more), job)["items"]
    kubernetes.validate(service, "1.34", strict=True)
    kubernetes.validate(indexed, "1.34", strict=True)
    indexed["spec"]["template"]["spec"]["subdomains"] = "a slip of the pen"
    with pytest.raises(kubernetes.ValidationError):
        kubernetes.validate(indexed, "1.34", strict=True)


def test_pods_meet_where_the_service_finds_the_first_one(job: Job) -> None:
    service, indexed = manifest(KubernetesSettings.model_validate(KUBERNETES | {"replicas": 3}), job)["items"]
    pod = indexed["spec"]["template"]["spec"]
    name = service["metadata"]["name"]
    assert (indexed["metadata"]["name"], pod["subdomain"]) == (name, name)
    assert service["spec"] == {
        "clusterIP": "None",
        "selector": {"job-name": name},
        "publishNotReadyAddresses": True,
    }
    (container,) = pod["containers"]
    assert f"--rdzv-endpoint={name}-0.{name}:29500" in container["command"]
    assert "--nnodes=3" in container["command"]
    assert container["volumeMounts"][0]["mountPath"] == str(job.root)  # where plan and store are, by the same path


def test_the_first_rank_is_heard_and_the_log_is_shown(job: Job) -> None:
    job.begin({"key": "x"})
    heard: list[tuple[Any, ...]] = []
    job.tell(lambda *said: heard.append(said))
    Told(job.progress)("pretraining", 3, 9, "700 MB")
    job.tell(lambda *said: heard.append(said))
    assert heard == [("pretraining", 3, 9, "700 MB")]
    job.log.write_text("".join(f"line {number}\n" for number in range(100)))
    said = str(job.lost("it ended"))
    assert "line 99" in said
    assert "line 79" not in said
    job.require_sound()
    write_json(job.failure, {"what": "it has collapsed", "remedy": "lower the rate"})
    with pytest.raises(TrainingError, match="collapsed\n  → lower the rate"):
        job.require_sound()
    job.begin({"key": "x"})
    job.require_sound()


def test_a_rank_that_waits_in_vain_ends_in_time() -> None:
    script = """
import ctypes, signal
from geossl.train.remote.rank import end_in_time
end_in_time(0.3)
signal.signal(signal.SIGTERM, lambda *_: None)
print("ready", flush=True)
libc = ctypes.CDLL(None)
while True:
    libc.sleep(60)  # where no handler of Python's runs, as in a collective whose other side is gone
"""
    rank = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    with rank:
        assert rank.stdout is not None
        rank.stdout.readline()
        rank.terminate()
        assert rank.wait(timeout=30) == 128 + signal.SIGTERM


@pytest.mark.skipif(sys.platform != "linux", reason="the system tells no one that a parent is gone")
def test_a_process_ends_with_the_one_that_started_it() -> None:
    child = "from geossl.train.remote.rank import die_with_parent; import os, sys, time; "
    child += "die_with_parent(int(sys.argv[1])); print(os.getpid(), flush=True); time.sleep(600)"
    parent = f"import os, subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}, str(os.getpid())])"
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        number = int(starter.stdout.readline())
        os.kill(number, 0)
        starter.kill()
        assert starter.stdout.read() == ""  # long before its sleep is over, the pipe's last holder is gone

"""A training as an Indexed Job of Kubernetes, whose pods find each other by a headless Service.

Both are plain objects that every cluster knows. The job outlives whoever applied it: the same command
finds it by its name and follows it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from typing import Any

from geossl.errors import SettingsError
from geossl.progress import Progress
from geossl.train.remote.job import Job
from geossl.train.remote.settings import KubernetesSettings
from geossl.train.remote.torchrun import arguments, rendezvous, stoppable

_LOOK_EVERY = 15.0  # seconds, at the most
_GRACE = 60  # seconds from SIGTERM, on which a pod writes a checkpoint, to SIGKILL
_PORT = 29500  # of the first pod, where all meet


def train(settings: KubernetesSettings, job: Job, progress: Progress) -> None:
    """Apply Job and Service, or find them where they are already, and follow them to their end.

    They are deleted when the job has ended and, after a checkpoint, when this is interrupted; they go on
    when this process is killed.

    Raises
    ------
    SettingsError
        There is no kubectl here, or the cluster refuses the job.
    TrainingError
        A rank says that it is of no use, or the job failed.
    """
    if shutil.which("kubectl") is None:
        raise SettingsError(
            "pretrain.launch.kubernetes: there is no kubectl on this machine",
            "run geossl where the cluster can be reached",
        )
    applied = _kubectl(settings, "apply", "--filename=-", input=json.dumps(manifest(settings, job)))
    if applied.returncode:
        raise SettingsError(
            f"pretrain.launch.kubernetes: the cluster refuses the job: {applied.stderr.strip()}",
            "see what `kubectl auth can-i create jobs` says, and whether the namespace is there",
        )
    pause, ended = 0.5, None
    with stoppable():
        try:
            while ended is None:
                time.sleep(pause)
                pause = min(1.5 * pause, _LOOK_EVERY)
                ended = _ended(settings, job)
                job.tell(progress)
                job.require_sound()  # each of its further attempts would say the same
            if ended != "Complete":
                said = _kubectl(settings, "logs", f"--selector=job-name={job.name}", "--prefix", "--tail=50").stdout
                job.log.write_text(said, encoding="utf-8")
        finally:
            both = [f"job/{job.name}", f"service/{job.name}"]
            _kubectl(
                settings, "delete", *both, "--ignore-not-found", "--cascade=foreground", f"--timeout={_GRACE + 30}s"
            )
    if ended != "Complete":
        raise job.lost(f"the job {job.name} ended: {ended}")


def manifest(settings: KubernetesSettings, job: Job) -> dict[str, Any]:
    """Service and Job, for `kubectl apply`."""
    labels = {"app.kubernetes.io/name": "geossl", "app.kubernetes.io/instance": job.name}
    about: dict[str, Any] = {"name": job.name, "labels": labels}
    if settings.namespace is not None:
        about["namespace"] = settings.namespace
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": about,
        # the pods' names are known before they are ready: they wait for each other
        "spec": {"clusterIP": "None", "selector": {"job-name": job.name}, "publishNotReadyAddresses": True},
    }
    indexed = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": about,
        "spec": {
            "completionMode": "Indexed",
            "completions": settings.replicas,
            "parallelism": settings.replicas,
            # a pod that is lost takes the others along, and all start again from the checkpoint
            "backoffLimit": settings.restarts * settings.replicas,
            # unless the cluster itself has moved it
            "podFailurePolicy": {
                "rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]
            },
            "template": {"metadata": {"labels": labels}, "spec": _pod(settings, job)},
        },
    }
    return {"apiVersion": "v1", "kind": "List", "items": [service, indexed]}


def _pod(settings: KubernetesSettings, job: Job) -> dict[str, Any]:
    meet = rendezvous(f"{job.name}-0.{job.name}:{_PORT}", job.name)
    told = arguments(job, nnodes=settings.replicas, nproc=max(settings.gpus, 1))
    wanted = {"cpu": settings.cpu, "memory": settings.memory}
    requests = {name: value for name, value in wanted.items() if value is not None}
    container: dict[str, Any] = {
        "name": "train",
        "image": settings.image,
        "command": ["python", "-m", "torch.distributed.run", *meet, *told],
        "resources": {"requests": requests, "limits": {"nvidia.com/gpu": settings.gpus} if settings.gpus else {}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "project", "mountPath": str(settings.mount or job.root)}],
    }
    if settings.secret is not None:
        container["envFrom"] = [{"secretRef": {"name": settings.secret}}]
    return {
        "subdomain": job.name,
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": _GRACE,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        # what a namespace asks for whose pod security is "restricted"
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [{"name": "project", "persistentVolumeClaim": {"claimName": settings.claim}}],
    }


def _ended(settings: KubernetesSettings, job: Job) -> str | None:
    """``Complete``, or why it failed; None while it waits or runs, or the cluster does not answer."""
    asked = _kubectl(settings, "get", "job", job.name, "--output=json")
    if asked.returncode:
        return "it was deleted" if "NotFound" in asked.stderr else None
    for condition in json.loads(asked.stdout).get("status", {}).get("conditions", []):
        if condition["status"] == "True" and condition["type"] in ("Complete", "Failed"):
            return "Complete" if condition["type"] == "Complete" else str(condition.get("message", "Failed"))
    return None


def _kubectl(settings: KubernetesSettings, *words: str, input: str | None = None) -> subprocess.CompletedProcess[str]:
    where = [] if settings.namespace is None else [f"--namespace={settings.namespace}"]
    return subprocess.run(["kubectl", *where, *words], input=input, capture_output=True, text=True, check=False)

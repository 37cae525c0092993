"""Where a training runs. Names are those that sbatch, torchrun and Kubernetes use."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, model_validator


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TorchrunSettings(_Settings):
    """Processes of this machine; or of several, on each of which the same command is started."""

    nproc: int = Field(1, ge=1, description="Processes on each machine; with GPUs, one for each.")
    nnodes: int = Field(1, ge=1, description="Machines. The project's store is on a file system that all share.")
    endpoint: str | None = Field(None, description="host:port of one of several machines, where they meet.")
    restarts: int = Field(3, ge=0, description="How often all start again from the checkpoint after a crash.")

    @model_validator(mode="after")
    def _meet(self) -> TorchrunSettings:
        if (self.nnodes > 1) != (self.endpoint is not None):
            raise ValueError("several machines meet at an endpoint, one machine needs none: give nnodes with endpoint")
        return self


class SlurmSettings(_Settings):
    """A job of a Slurm cluster, from a machine that has sbatch and shares the project's store with the nodes."""

    partition: str | None = Field(None, description="null: the cluster's default")
    account: str | None = None
    nodes: int = Field(1, ge=1, description="Nodes.")
    gpus: int = Field(0, ge=0, description="GPUs on each node, a process for each; 0: one process a node, on its CPUs.")
    cpus: int | None = Field(None, ge=1, description="CPUs on each node; null: the cluster's default")
    memory: str | None = Field(None, description="of each node, such as 64G; null: the cluster's default")
    time: str | None = Field(
        None, description="limit such as 08:00:00; a minute before it the job saves and queues again; null: the default"
    )
    extra: tuple[str, ...] = Field((), description="further options of sbatch, such as --qos=long")
    prologue: tuple[str, ...] = Field(
        (), description="shell lines before it starts, such as `module load …`; it runs this same Python"
    )
    restarts: int = Field(3, ge=0, description="How often it starts again from the checkpoint after a crash.")


class KubernetesSettings(_Settings):
    """An Indexed Job with a headless Service, by the kubectl and context of this machine."""

    image: str = Field(description="Image that has geossl.")
    claim: str = Field(description="PersistentVolumeClaim that holds the project's folder, for many to write.")
    mount: Path | None = Field(None, description="Where the claim is mounted; null: at the project's folder.")
    namespace: str | None = Field(None, description="null: the context's")
    replicas: int = Field(1, ge=1, description="Pods.")
    gpus: int = Field(0, ge=0, description="GPUs of each pod, a process for each; 0: one process a pod, on its CPUs.")
    cpu: str | None = Field(None, description="of each pod, such as 8")
    memory: str | None = Field(None, description="of each pod, such as 64Gi")
    secret: str | None = Field(None, description="Secret whose keys become environment variables, as for a bucket.")
    restarts: int = Field(3, ge=0, description="How often all start again from the checkpoint after a crash.")


class LaunchSettings(_Settings):
    """Where the training runs: one of the three, or by default in this process."""

    torchrun: TorchrunSettings | None = Field(None, description="as processes that torchrun starts")
    slurm: SlurmSettings | None = Field(None, description="as a job of a Slurm cluster")
    kubernetes: KubernetesSettings | None = Field(None, description="as a job of a Kubernetes cluster")

    @model_validator(mode="after")
    def _one(self) -> LaunchSettings:
        if len(named := self.model_dump(exclude_none=True)) > 1:
            raise ValueError(f"choose one of {', '.join(named)}")
        return self

    @property
    def here(self) -> bool:
        """Whether this process trains."""
        return self.torchrun is None and self.slurm is None and self.kubernetes is None

    @property
    def devices(self) -> int:
        """How many devices train at once."""
        if self.torchrun is not None:
            return self.torchrun.nproc * self.torchrun.nnodes
        if self.slurm is not None:
            return self.slurm.nodes * max(1, self.slurm.gpus)
        return self.kubernetes.replicas * max(1, self.kubernetes.gpus) if self.kubernetes is not None else 1

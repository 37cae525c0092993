"""A training that runs elsewhere: as torchrun's processes, a Slurm job or a Kubernetes job."""

"""One rank of a project's pretraining: ``python -m geossl.project.rank FOLDER``, as `pretrain.launch` starts it.

It trains what the plan in the folder says, on the snapshot that is pinned there.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from geossl.files import read_json
from geossl.progress import Progress
from geossl.train.remote.job import Job
from geossl.train.remote.rank import serve


def main(folder: Path) -> int:
    """Train; the exit status."""
    plan = read_json(folder / "plan.json")
    assert plan is not None, "written before any rank is started"
    job = Job("rank", Path(plan["root"]), folder, __name__)

    def work(progress: Progress) -> dict[str, Any]:
        # only now: what these import takes seconds, in which whoever started this may end
        from geossl.project.project import Project
        from geossl.project.settings import ProjectSettings
        from geossl.project.stages.pretrain import train

        project = Project(job.root, ProjectSettings.model_validate(plan["settings"]))
        return train(project, project.settings.pretrain, plan["key"], progress)

    return serve(job, work)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

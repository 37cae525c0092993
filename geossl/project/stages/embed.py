"""`geossl embed`: an embedding of every chip of every scene, as GeoParquet and, with the extra `search`, in Milvus."""

from __future__ import annotations

from geossl.downstream.finetune import device
from geossl.nets.weights import load_encoder
from geossl.progress import Progress
from geossl.project.project import Project, StageResult
from geossl.project.state import content, fingerprint
from geossl.search.embed import embed
from geossl.search.milvus import Milvus, address
from geossl.search.places import Lattice
from geossl.search.table import About, Embeddings

_USUAL_CHIP = 64
"""Side of a place, for encoders that were not trained on chips."""


def run(project: Project, progress: Progress) -> StageResult:
    """Embed what the newest encoder has not seen yet; embedding again does nothing."""
    scenes, folder = project.scenes(), project.encoder_folder()
    settings = project.settings.search
    uri = address(settings)
    key = fingerprint(scenes=content(scenes), encoder=folder.name, settings=settings, cube=scenes.cube_id, milvus=uri)
    done = project.state.fresh("embed", key)
    if done is not None and (project.embeddings / done.result["folder"]).exists():
        written = _sync(uri, Embeddings(project.embeddings / done.result["folder"]), progress)
        return StageResult("embed", [f"{written} scenes that Milvus had lost"] if written else [], skipped=not written)
    encoder, card = load_encoder(folder)
    size = settings.chip or int(card.settings.get("chip", _USUAL_CHIP))
    lattice = Lattice(scenes.grid.plain, size)
    # another size of chips or another cube is another table; scenes of any cube come and go in one
    which = fingerprint(
        lattice=lattice.to_dict(), stride=settings.stride, clear=settings.min_clear, cube=scenes.cube_id
    )
    with project.state.recording("embed", key) as result:
        into = Embeddings.create(
            project.embeddings / f"{card.id}-{which[:8]}", About(card.id, scenes.name, lattice, encoder.dims[-1])
        )
        new, chips = embed(into, scenes, encoder, card, settings, device=device(), progress=progress)
        into.settle()
        if new:
            project.cube().tag(f"embed-{key}", scenes.snapshot)
        _sync(uri, into, progress)
        result.update(
            folder=into.folder.name, encoder=card.id, snapshot=scenes.snapshot, milvus=uri, chips=into.count()
        )
    return StageResult(
        "embed",
        [
            f"{chips:,} chips of {len(new)} new scenes; {result['chips']:,} in all, of {size} pixels each",
            f"{into.folder.relative_to(project.root)}" + (f"; Milvus: {uri}" if uri else ""),
        ],
    )


def _sync(uri: str | None, embeddings: Embeddings, progress: Progress) -> int:
    """Bring Milvus, if there is one, into line; returns how many scenes were written."""
    if uri is None:
        return 0
    with Milvus(uri, embeddings) as index:
        return index.sync(progress)

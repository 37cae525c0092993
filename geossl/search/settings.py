"""What a user may say about the search. Imports nothing heavy: the project file is read by every verb."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class SearchSettings(BaseModel):
    """Which chips get an embedding, and where they are searched."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    chip: int | None = Field(
        None, ge=8, description="side of a place in pixels; null: of the chips that the encoder was trained on"
    )
    stride: int | None = Field(
        None, ge=1, description="pixels from one chip to the next; null: side by side (overlapping, if need be)"
    )
    min_clear: float = Field(0.8, ge=0, le=1, description="smallest share of clear pixels in a chip")
    milvus: str = Field(
        "auto",
        description="auto: a Milvus Lite file in the store where the extra `search` is installed; none: exact search "
        "without Milvus; http://host:19530: a Milvus server (its token from MILVUS_TOKEN)",
        pattern=r"^(auto|none|https?://\S+)$",
    )

"""The project file, composed of each room's own settings."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from geossl import bands as shipped
from geossl.areas.settings import ReleaseSettings
from geossl.bands import Band, Radiometry, Sensor
from geossl.chips.split import SplitSettings
from geossl.cluster import ClusterSettings
from geossl.cube import periods
from geossl.cube.settings import CompositeSettings, IngestSettings, LabelSettings
from geossl.downstream.settings import (
    ChangeSettings,
    EvaluateSettings,
    ForestSettings,
    LandcoverSettings,
    RiverSettings,
)
from geossl.grid import Bands
from geossl.imagery.sources import SourceSettings
from geossl.maps.alerts.settings import AlertSettings
from geossl.maps.settings import MapSettings
from geossl.project.deployment import DeploySettings
from geossl.project.limits import KeepSettings, NotifySettings
from geossl.search.settings import SearchSettings
from geossl.train.settings import PretrainSettings


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class GridSettings(_Settings):
    """Where the project's pixels lie. `auto` is decided by the first scene and then kept in the cube."""

    crs: str = Field("auto", description="projected CRS such as EPSG:32622; auto: the first scene's, or its UTM zone")
    resolution: Annotated[float, Field(gt=0)] | Literal["auto"] = Field(
        "auto", description="pixel size in metres; auto: that of the sensor's finest chosen band"
    )
    tile: int = Field(1024, gt=0, multiple_of=256, description="side of a tile in pixels, a multiple of 256")
    bands: Bands = Field(
        "one",
        description="one: all bands are stored at this resolution; native: bands of twice, four times … its pixel "
        "size are stored so (20 m bands of a 10 m grid), which takes less disk and resamples less; whatever reads "
        "the cube sees one resolution either way",
    )


class BandSettings(_Settings):
    """One band of a sensor of one's own."""

    name: str
    wavelength: float | None = Field(None, description="centre wavelength in µm")
    gsd: float = Field(gt=0, description="native ground sample distance in metres")
    common_name: str | None = Field(None, description="STAC common name, such as red")


class SensorSettings(_Settings):
    """A shipped sensor by name (with a choice of its bands), or one's own by its bands and radiometry."""

    name: str = Field("sentinel-2-l2a", description="a shipped sensor, or any name for your own")
    bands: list[str] | list[BandSettings] | None = Field(
        None, description="which bands, in this order (null: all); or the bands of your own sensor"
    )
    dtype: Literal["uint8", "int16", "uint16", "float32"] | None = Field(None, description="own sensor: stored type")
    scale: float | None = Field(None, description="own sensor: value = stored * scale + offset")
    offset: float | None = None
    nodata: float | None = Field(None, description="own sensor, or a shipped one whose files use another number")
    unit: str | None = Field(None, description="own sensor: reflectance, …; none: numbers without a scale")

    @model_validator(mode="after")
    def _resolves(self) -> SensorSettings:
        self.resolve()
        return self

    def resolve(self) -> Sensor:
        """The sensor that these settings mean."""
        if self.bands and isinstance(self.bands[0], BandSettings):
            if self.dtype is None:
                raise ValueError(f"your own sensor {self.name!r} needs a dtype: uint8, int16, uint16 or float32")
            bands = tuple(Band(**band.model_dump()) for band in self.bands if isinstance(band, BandSettings))
            radiometry = Radiometry(
                self.dtype,
                1.0 if self.scale is None else self.scale,
                self.offset or 0.0,
                self.nodata,
                self.unit or "none",
            )
            return Sensor(self.name, bands, radiometry)
        sensor = shipped.sensor(self.name)
        own = {
            "dtype": self.dtype,
            "scale": self.scale,
            "offset": self.offset,
            "nodata": self.nodata,
            "unit": self.unit,
        }
        changes = {key: value for key, value in own.items() if value is not None}
        if changes:
            radiometry = Radiometry(**({k: getattr(sensor.radiometry, k) for k in own} | changes))
            sensor = Sensor(sensor.name, sensor.bands, radiometry, sensor.title)
        return sensor.subset([str(band) for band in self.bands]) if self.bands else sensor


class LandcoverTask(_Settings):
    """A land-cover map from labels of one date."""

    kind: Literal["landcover"]
    labels: LabelSettings
    date: dt.date | None = Field(None, description="date of the image (the nearest is taken); null: the newest")
    settings: LandcoverSettings = Field(default_factory=LandcoverSettings)


When = Annotated[dt.date | str, BeforeValidator(periods.parse)]
"""A day, or a period such as ``2020-06-01/P4M``."""


class ChangeTask(_Settings):
    """A map of what changed between two dates."""

    kind: Literal["change"]
    labels: LabelSettings | None = Field(
        None, description="null: change is told as `settings.method` says, without scores"
    )
    before: When = Field(
        description="day of the earlier image (the nearest is taken), or a period such as 2020, 2020-06 or "
        "2020-06/2020-09, whose clear observations become one composite"
    )
    after: When = Field(description="day or period of the later image, as `before`")
    forest: ForestSettings | None = Field(
        None, description="ground to look at, which was forest before; elsewhere nothing changes. null: all"
    )
    river: RiverSettings | None = Field(
        None,
        description="`{}`: what a river took is a class of its own, beside what was cleared; null: a river is not told "
        "from felling",
    )
    settings: ChangeSettings = Field(default_factory=ChangeSettings)

    @model_validator(mode="after")
    def _in_order(self) -> ChangeTask:
        if isinstance(self.before, str) != isinstance(self.after, str):
            raise ValueError("before and after are both days or both periods")
        if periods.day(self.before) >= periods.day(self.after):
            raise ValueError(f"before ({self.before}) is not before after ({self.after})")
        return self


class DriftSettings(_Settings):
    """How new scenes are compared with those that the encoder was trained on."""

    false_alarms: float = Field(
        0.05,
        gt=0,
        lt=1,
        description="share of usual scenes that may be called unusual; n scenes of history can promise 1 / (n + 1)",
    )


class RetrainSettings(_Settings):
    """When the models are learnt again on their own, and what a new one must show before it makes maps."""

    hours: float = Field(
        gt=0,
        description="most device-hours of training in a calendar month (GPUs, or this machine where there is none, "
        "times hours); what is due after that waits for the next month",
    )
    new_pixels: float = Field(
        0.1,
        ge=0,
        description="due when the cube holds so much more clear imagery than the last training has seen, as a share "
        "of what it has seen",
    )
    days: float | None = Field(
        None, gt=0, description="due this long after the last training, if there is any new imagery; null: never so"
    )
    margin: float = Field(
        0.01,
        gt=0,
        lt=1,
        description="how much worse than champion and anchor a challenger may be at most, by the lower end of the "
        "95 % interval of the paired difference over gate blocks",
    )


TaskSettings = Annotated[LandcoverTask | ChangeTask, Field(discriminator="kind")]


class ProjectSettings(_Settings):
    """Everything that `geossl.yaml` may say."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", description="lower-case letters, digits and hyphens")
    area: tuple[float, float, float, float] | Path | None = Field(
        None, description="west, south, east, north in degrees, or a vector file; null: wherever there is imagery"
    )
    store: Path = Field(Path("store"), description="folder for the cube, encoders, maps; relative to this file")
    sensor: SensorSettings = Field(default_factory=SensorSettings)
    grid: GridSettings = Field(default_factory=GridSettings)
    sources: list[SourceSettings] = Field(min_length=1, description="where scenes come from")
    cluster: ClusterSettings = Field(default_factory=ClusterSettings)
    ingest: IngestSettings = Field(default_factory=IngestSettings)
    composite: CompositeSettings | None = Field(
        default_factory=CompositeSettings, description="cloud-free composites; null: tasks read single scenes"
    )
    split: SplitSettings = Field(default_factory=SplitSettings)
    pretrain: PretrainSettings = Field(default_factory=PretrainSettings)
    evaluate: EvaluateSettings = Field(default_factory=EvaluateSettings)
    tasks: dict[str, TaskSettings] = Field(default_factory=dict, description="named land-cover and change tasks")
    map: MapSettings = Field(default_factory=MapSettings)
    drift: DriftSettings = Field(default_factory=DriftSettings)
    retrain: RetrainSettings | None = Field(
        None,
        description="retraining by itself, with a gate before new models; null: whatever is out of date is learnt "
        "again and used at once",
    )
    deploy: DeploySettings = Field(default_factory=DeploySettings)
    release: ReleaseSettings = Field(default_factory=ReleaseSettings)
    alerts: dict[str, AlertSettings] = Field(default_factory=dict, description="named monitors of cleared forest")
    search: SearchSettings = Field(default_factory=SearchSettings)
    keep: KeepSettings = Field(default_factory=KeepSettings)
    notify: NotifySettings = Field(default_factory=NotifySettings)

    @model_validator(mode="after")
    def _has_gate_blocks(self) -> ProjectSettings:
        labelled = [name for name, task in self.tasks.items() if task.labels is not None]
        if self.retrain is not None and labelled and not self.split.gate:
            raise ValueError(
                "`retrain` compares new models with old ones on blocks that serve nothing else: set `split: "
                "{gate: 0.1}`, which takes 0.1 of all blocks out of the test blocks' share"
            )
        return self

    @field_validator("store", mode="before")
    @classmethod
    def _is_a_folder(cls, store: Any) -> Any:
        if "://" in str(store):  # as a path it would be a folder of that name
            raise ValueError("a project's store is a folder; one that machines share may lie on a network file system")
        return store

    def dump(self) -> dict[str, Any]:
        """JSON-ready."""
        return self.model_dump(mode="json")

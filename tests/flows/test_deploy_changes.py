"""What leads from what lies on a server to what should lie there, without a server."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from flows.deploy_changes import Change, Found, changes, schedule
from flows.deploy_wanted import KINDS, Thing
from geossl.project.deployment import DeploySettings, interval_seconds

things = st.lists(
    st.builds(Thing, st.sampled_from(KINDS), st.sampled_from("abcd"), st.fixed_dictionaries({"x": st.integers(0, 2)})),
    unique_by=lambda thing: (thing.kind, thing.name),
)


@given(things, st.tuples(things, things).map(lambda two: [*two[0], *two[1]]))
def test_doing_the_changes_leads_to_what_is_wanted(wanted: list[Thing], there: list[Thing]) -> None:
    found = [Found(thing, uuid4()) for thing in there]
    server: dict[UUID, Thing] = {one.id: one.thing for one in found}
    for change in changes(wanted, found):
        if change.found is not None:
            del server[change.found.id]
        if change.verb != "remove":
            server[uuid4()] = change.thing
    key = lambda thing: (thing.kind, thing.name)  # noqa: E731
    assert sorted(server.values(), key=key) == sorted(wanted, key=key)
    assert not changes(wanted, [Found(thing, id) for id, thing in server.items()])


def test_what_others_stand_on_is_made_first_and_removed_last() -> None:
    every: list[Thing] = [Thing(kind, "a", {}) for kind in KINDS]
    found = [Found(thing, uuid4()) for thing in every]
    assert [change.thing.kind for change in changes(every, [])] == list(KINDS)
    assert [change.thing.kind for change in changes([], found)] == list(reversed(KINDS))


def test_a_change_is_told_by_what_differs() -> None:
    def deployment(**fields: object) -> Thing:
        return Thing("deployment", "geossl-watch/a-watch", fields)

    old = deployment(schedules=[{"interval": 900}], parameters={"file": "/a", "more": 1}, tags=["a"])
    new = deployment(
        schedules=[{"cron": "0 3 * * *", "timezone": "UTC"}], parameters={"file": "/b", "more": 1}, tags=["a"]
    )
    assert list(Change("change", new, Found(old, uuid4())).lines(done=False)) == [
        "would change deployment geossl-watch/a-watch",
        "    schedules: every 15 min → 0 3 * * * (UTC)",
        "    parameters.file: /a → /b",
    ]


@pytest.mark.parametrize(("said", "seconds"), [("15m", 900), ("6h", 21600), ("1d", 86400), ("0 3 * * *", None)])
def test_an_interval_or_a_cron_line(said: str, seconds: int | None) -> None:
    assert DeploySettings(schedules={"watch": said}).schedules["watch"] == said
    assert interval_seconds(said) == seconds
    if seconds is not None:
        assert schedule({"interval": seconds}).startswith("every ")


@pytest.mark.parametrize("said", ["0m", "15", "15s", "* * *", "hourly", "-1h"])
def test_anything_else_is_refused(said: str) -> None:
    with pytest.raises(ValidationError, match="neither an interval"):
        DeploySettings(schedules={"watch": said})


def test_only_flows_can_have_a_schedule() -> None:
    with pytest.raises(ValidationError):
        DeploySettings.model_validate({"schedules": {"renew": "1h"}})

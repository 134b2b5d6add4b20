"""Edits of the sources are observed; automation requests one run for each change of content, and
only if it is switched on."""

import os

import dagster as dg
import pytest

from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.sensors import observe_sources_sensor
from gaip3_pipeline.versions import (
    DATA_VERSION_TAG,
    RootResource,
    automation,
    current_version,
)
from gaip3_pipeline_tests.refreshing import definitions_of, following, instance_of, made

LABELS = "gender,img_id,path,value\nfemale,0,resized/female/a.jpg,{}\n"


@pytest.fixture
def root(tmp_path) -> DataRoot:
    root = DataRoot(tmp_path / "얼굴")
    root.hand_labels("mouth").parent.mkdir(parents=True)
    root.hand_labels("mouth").write_text(LABELS.format(0.5), encoding="utf-8")
    return root


@pytest.fixture
def instance(root):
    with instance_of(root) as instance:
        yield instance


def observed(root: DataRoot, instance: dg.DagsterInstance) -> set[str]:
    """One tick of the sensor, with its events stored as the daemon does; returns the changed
    sources."""
    context = dg.build_sensor_context(
        instance=instance, resources={"root": RootResource(path=str(root.path))}
    )
    result = observe_sources_sensor(context)
    events = result.asset_events if isinstance(result, dg.SensorResult) else []
    for event in events:
        instance.report_runless_asset_event(event)
    return {e.asset_key.to_user_string() for e in events}


class Automation:
    """Consecutive ticks of the automation sensor."""

    def __init__(self, definitions: dg.Definitions, instance: dg.DagsterInstance) -> None:
        self._definitions, self._instance, self._cursor = definitions, instance, None

    def tick(self) -> set[str]:
        """The assets that are requested by the next tick."""
        result = dg.evaluate_automation_conditions(
            self._definitions, self._instance, cursor=self._cursor
        )
        self._cursor = result.cursor
        graph = self._definitions.resolve_asset_graph()
        return {
            k.to_user_string()
            for k in graph.materializable_asset_keys
            if result.get_num_requested(k)
        }


@pytest.fixture
def definitions(root, instance) -> dg.Definitions:
    """The whole graph, with all assets materialised and fresh."""
    definitions = definitions_of(root)
    observed(root, instance)
    graph = definitions.resolve_asset_graph()
    for key in graph.toposorted_asset_keys:
        if key in graph.materializable_asset_keys:
            made(instance, definitions, key.to_user_string(), "first")
    return definitions


def test_an_edit_made_outside_is_observed_once_and_a_touched_file_is_not(root, instance):
    assert "hand_labels_mouth" in observed(root, instance)
    assert observed(root, instance) == set()
    os.utime(root.hand_labels("mouth"))
    assert observed(root, instance) == set()
    root.hand_labels("mouth").write_text(LABELS.format(0.75), encoding="utf-8")
    before = current_version(instance, dg.AssetKey("hand_labels_mouth"))
    assert observed(root, instance) == {"hand_labels_mouth"}
    assert current_version(instance, dg.AssetKey("hand_labels_mouth")) != before
    assert observed(root, instance) == set()


def test_automation_exists_and_is_off_until_it_is_switched_on(root):
    [sensor] = [
        s
        for s in definitions_of(root).get_repository_def().sensor_defs
        if isinstance(s, dg.AutomationConditionSensorDefinition)
    ]
    assert sensor.name == "materialize_stale"
    assert sensor.default_status == dg.DefaultSensorStatus.STOPPED


def test_an_edit_requests_its_downstream_assets_once_and_a_touched_file_requests_none(
    root, instance, definitions
):
    ticks = Automation(definitions, instance)
    assert ticks.tick() == set()
    os.utime(root.hand_labels("mouth"))
    observed(root, instance)
    assert ticks.tick() == set()
    root.hand_labels("mouth").write_text(LABELS.format(0.75), encoding="utf-8")
    observed(root, instance)
    assert ticks.tick() == following(root, ["labels_mouth"])
    assert ticks.tick() == set()  # its run has not begun yet


def test_an_asset_made_again_with_equal_content_requests_nothing(root, instance, definitions):
    ticks = Automation(definitions, instance)
    assert ticks.tick() == set()
    for name in ("labels_mouth", "final_dataset"):
        made(instance, definitions, name, "first")
        assert ticks.tick() == set()
    made(instance, definitions, "critic_weights", "other weights")
    assert ticks.tick() == {"retouched_samples", "report"}


def test_after_the_requested_run_nothing_is_requested_until_the_next_change(instance):
    content = {"hand_labels": "0"}

    def chained(name: str, *deps: str) -> dg.AssetsDefinition:
        @dg.asset(name=name, deps=deps, automation_condition=automation())
        def asset() -> dg.MaterializeResult:
            version = (
                content["hand_labels"]
                if name == "labels"
                else f"{name} of {content['hand_labels']}"
            )
            return dg.MaterializeResult(
                data_version=dg.DataVersion("equal" if name == "values" else version)
            )

        return asset

    @dg.observable_source_asset
    def hand_labels() -> dg.DataVersion:
        return dg.DataVersion(content["hand_labels"])

    graph = [
        chained("labels", "hand_labels"),
        chained("model", "labels"),
        chained("values", "model"),
        chained("report", "model", "values"),
    ]
    names = {"labels", "model", "values", "report"}

    def run(chosen: set[str]) -> None:
        assert dg.materialize(
            graph, instance=instance, selection=[dg.AssetKey(n) for n in sorted(chosen)]
        ).success

    def observe() -> None:
        tags = {DATA_VERSION_TAG: content["hand_labels"]}
        instance.report_runless_asset_event(dg.AssetObservation("hand_labels", tags=tags))

    observe()
    run(names)
    ticks = Automation(dg.Definitions([*graph, hand_labels]), instance)
    assert ticks.tick() == set()
    for version in ("1", "2"):
        content["hand_labels"] = version
        observe()
        asked = ticks.tick()
        assert asked == names
        run(asked)
        for _ in range(3):
            observe()  # with equal content
            assert ticks.tick() == set()
    run({"labels"})  # by hand, with unchanged content
    assert ticks.tick() == set()
    content["hand_labels"] = "3"
    run({"labels"})
    assert ticks.tick() == names - {"labels"}

"""The sensor that sees edits made outside while the UI runs, and the one that makes what is
stale, which is off by default."""

import dagster as dg

from gaip3_pipeline.assets import observe_sources
from gaip3_pipeline.versions import RootResource, observation_if_changed


@dg.sensor(
    name="observe_sources",
    description=(
        "Hashes originals and hand labels and records an observation of what changed, so that its"
        " followers show as unsynced."
    ),
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    asset_selection=None,
)
def observe_sources_sensor(
    context: dg.SensorEvaluationContext, root: RootResource
) -> dg.SensorResult | dg.SkipReason:
    found = observe_sources(root.data_root).items()
    events = [
        event
        for name, made in found
        if (event := observation_if_changed(context.instance, name, made))
    ]
    return dg.SensorResult(asset_events=events) if events else dg.SkipReason("no source changed")


materialize_stale_sensor = dg.AutomationConditionSensorDefinition(
    name="materialize_stale",
    target=dg.AssetSelection.all(),
    description=(
        "Makes what is stale by itself, once for each change of content. Off until you switch"
        " it on."
    ),
    default_status=dg.DefaultSensorStatus.STOPPED,
)

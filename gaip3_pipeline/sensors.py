"""The sensor that observes edits of the sources while the UI runs, and the sensor that materialises
stale assets, which is off by default."""

import dagster as dg

from gaip3_pipeline.assets import observe_sources
from gaip3_pipeline.versions import RootResource, observation_if_changed


@dg.sensor(
    name="observe_sources",
    description=(
        "Hashes the originals, the hand labels and the list of dropped images, and records an"
        " observation of each that changed, so that assets downstream show as unsynced."
    ),
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    asset_selection=None,
)
def observe_sources_sensor(
    context: dg.SensorEvaluationContext, root: RootResource
) -> dg.SensorResult | dg.SkipReason:
    found = observe_sources(context.instance, root.data_root).items()
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
        "Materialises stale assets automatically: for each change of content, one run of all that"
        " depends on it, also where new content equals the old; the job refresh stops there. Off"
        " until you switch it on."
    ),
    default_status=dg.DefaultSensorStatus.STOPPED,
)

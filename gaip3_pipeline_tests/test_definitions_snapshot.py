"""All definitions as Dagster sees them, against a snapshot, so that a changed edge, group, kind,
check or code version shows in review.

A wanted change is written by

    python -m gaip3_pipeline_tests.test_definitions_snapshot
"""

import json
from pathlib import Path
from typing import Any

from gaip3_pipeline.definitions import build_defs
from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.settings import of_preset

SNAPSHOT = Path(__file__).with_name("definitions.json")
PRESETS = ("seed", "small", "demo")


def snapshot() -> dict[str, Any]:
    """Assets, checks, jobs and sensors; code versions for each preset."""
    versions: dict[str, dict[str, str]] = {}
    for preset in PRESETS:
        graph = build_defs(DataRoot(Path("data")), of_preset(preset)).resolve_asset_graph()
        for key in graph.get_all_asset_keys():
            code_version = graph.get(key).code_version
            if code_version:
                versions.setdefault(key.to_user_string(), {})[preset] = code_version
    definitions = build_defs(DataRoot(Path("data")), of_preset(PRESETS[0]))
    graph = definitions.resolve_asset_graph()
    pools = {
        key: asset.op.pool or ""
        for asset in graph.assets_defs
        if asset.is_executable and asset.node_def
        for key in asset.keys
    }
    assets = {
        key.to_user_string(): {
            "deps": sorted(parent.to_user_string() for parent in graph.get(key).parent_keys),
            "group": graph.get(key).group_name,
            "kinds": sorted(graph.get(key).kinds),
            "pool": pools.get(key, ""),
            "code_version": versions.get(key.to_user_string(), {}),
        }
        for key in sorted(graph.get_all_asset_keys())
    }
    checks = {
        f"{key.asset_key.to_user_string()}: {key.name}": {"blocking": graph.get(key).blocking}
        for key in sorted(graph.asset_check_keys)
    }
    return {
        "assets": assets,
        "checks": checks,
        "jobs": sorted(job.name for job in definitions.jobs or ()),
        "sensors": sorted(sensor.name for sensor in definitions.sensors or ()),
    }


def test_definitions_are_those_of_the_snapshot() -> None:
    recorded = json.loads(SNAPSHOT.read_text(encoding="utf-8"))
    assert snapshot() == recorded, (
        "definitions changed; if that is wanted: python -m"
        " gaip3_pipeline_tests.test_definitions_snapshot, and name what becomes stale in"
        " CHANGELOG.md"
    )


def _one_line_each(entries: dict[str, Any]) -> str:
    lines = [f"  {json.dumps(name)}: {json.dumps(entry)}" for name, entry in entries.items()]
    return "{\n" + ",\n".join(lines) + "\n }"


if __name__ == "__main__":
    parts = {
        name: _one_line_each(part) if isinstance(part, dict) else json.dumps(part)
        for name, part in snapshot().items()
    }
    text = ",\n".join(f" {json.dumps(name)}: {part}" for name, part in parts.items())
    SNAPSHOT.write_text(f"{{\n{text}\n}}\n", encoding="utf-8")

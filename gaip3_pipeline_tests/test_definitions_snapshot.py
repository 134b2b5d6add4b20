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
    root = DataRoot(Path("data"))
    by_preset = {preset: build_defs(root, of_preset(preset)) for preset in PRESETS}
    graphs = {preset: d.resolve_asset_graph() for preset, d in by_preset.items()}
    definitions, graph = by_preset[PRESETS[0]], graphs[PRESETS[0]]
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
            "code_version": {
                preset: version
                for preset, g in graphs.items()
                if (version := g.get(key).code_version)
            },
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

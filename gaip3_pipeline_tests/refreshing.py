"""Refresh a root inside the test's own process, so that Keras is imported once for all tests."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg

from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.dagster_home import ensure_dagster_home
from gaip3_pipeline.definitions import build_defs, tracking_of
from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.processes import gaip3
from gaip3_pipeline.refresh.plan import Planned, plan
from gaip3_pipeline.refresh.run import Outcome, observe_only, refresh
from gaip3_pipeline.settings import load
from gaip3_pipeline.versions import (
    CODE_VERSION_TAG,
    DATA_VERSION_TAG,
    INPUT_VERSION_TAG,
    current_version,
)

REGRESSORS = {f"{kind}_{a}" for a in ATTRIBUTES for kind in ("input_model", "evaluator")}
TRAINED = {
    "gender_model",
    "feature_extractor",
    "control_regressor",
    "nvae_weights",
    "detail_weights",
    "critic_weights",
    "judge_weights",
    "reconstruction_judge_weights",
} | REGRESSORS
# A generator that compiles in half of the time of the tiny preset's.
FEW_CELLS: dict[str, Any] = {
    "channels": [8, 8, 8, 8, 8],
    "latents": [4, 0, 0, 0, 0],
    "cells": [1, 0, 0, 0, 0],
}


@contextmanager
def instance_of(root: DataRoot) -> Iterator[dg.DagsterInstance]:
    """The Dagster instance of a root."""
    with dg.DagsterInstance.from_config(str(ensure_dagster_home(root))) as instance:
        yield instance


def with_few_cells(**settings: object) -> str:
    """Settings of a root whose generator has :data:`FEW_CELLS`, and other ``settings`` of it."""
    lines = [f"{k} = {v}" for k, v in (FEW_CELLS | settings).items()]
    return "\n".join(['preset = "tiny"', "[nvae]", *lines, ""])


def definitions_of(root: DataRoot) -> dg.Definitions:
    """The definitions of a root under its present settings."""
    return build_defs(root, load(root), in_process=True)


def refresh_root(
    root: DataRoot, select: Iterable[str] | None = None, definitions: dg.Definitions | None = None
) -> Outcome:
    """``gaip3 refresh`` of a root."""
    with instance_of(root) as instance:
        tracking = tracking_of(root, load(root))
        return refresh(
            definitions or definitions_of(root),
            instance,
            root,
            tracking,
            select=select,
            say=lambda line: None,
        )


def refresh_command(root: DataRoot, *words: str) -> list[str]:
    """``gaip3 refresh`` of a root as a process of its own."""
    return gaip3("refresh", "--root", str(root.path), *words)


def plan_of(root: DataRoot) -> list[Planned]:
    """``gaip3 refresh --dry-run`` of a root."""
    with instance_of(root) as instance:
        return plan(definitions_of(root), instance, observe_only(instance, root))


def made(
    instance: dg.DagsterInstance, definitions: dg.Definitions, name: str, version: str
) -> None:
    """Materialise an asset with the tags that a run would give it."""
    node = definitions.resolve_asset_graph().get(dg.AssetKey(name))
    inputs = {
        INPUT_VERSION_TAG + p.to_user_string(): current_version(instance, p) or ""
        for p in node.parent_keys
    }
    tags = {DATA_VERSION_TAG: version, CODE_VERSION_TAG: node.code_version, **inputs}
    instance.report_runless_asset_event(dg.AssetMaterialization(name, tags=tags))


def following(root: DataRoot, names: Iterable[str]) -> set[str]:
    """The materialisable assets among ``names`` and all assets downstream of them, by the graph."""
    graph = definitions_of(root).resolve_asset_graph()
    found = {dg.AssetKey(n) for n in names}
    for key in graph.toposorted_asset_keys:
        if graph.get(key).parent_keys & found:
            found.add(key)
    return {k.to_user_string() for k in found & graph.materializable_asset_keys}

"""The plan of a refresh: the assets that would be materialised, with reasons, changed labels and
last or estimated durations. Writes nothing."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import dagster as dg

from gaip3_pipeline.assets import labels
from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.layout import ASSET_LIST, DataRoot
from gaip3_pipeline.refresh.estimate import estimates
from gaip3_pipeline.tables.problems import ContractError
from gaip3_pipeline.versions import (
    CODE_VERSION_TAG,
    DATA_VERSION_TAG,
    INPUT_VERSION_TAG,
    latest_materializations,
)

if TYPE_CHECKING:
    # returned by resolve_asset_graph, but not exported
    from dagster._core.definitions.assets.graph.asset_graph import AssetGraph

FEW = 3  # assets that were never made and are listed one by one
NEVER, CODE, ASKED = "never made", "its settings or code changed", "asked for"


class RefreshError(RuntimeError):
    """A refresh that could not finish, or a selection that names no asset; the message says what
    failed and what to do."""


@dataclass(frozen=True)
class Planned:
    """An asset of the plan: its direct reasons, and whether it is certainly stale or only
    downstream of a stale one."""

    name: str
    reasons: list[str]
    certain: bool


@dataclass(frozen=True)
class Forecast:
    """A plan with the number of changed labels per attribute, the seconds that each asset took
    the last time, and estimates for those that were never timed.

    ``begun``: the assets that the last refresh made before it was stopped or failed, and what had
    changed then."""

    plan: list[Planned]
    label_changes: dict[str, int]
    durations: dict[str, float]
    estimates: dict[str, float] = field(default_factory=dict)
    begun: tuple[Collection[str], str] = ((), "")

    @property
    def expected(self) -> dict[str, float]:
        """The seconds of each asset by its last duration or by an estimate."""
        return self.estimates | self.durations

    @property
    def seconds(self) -> float | None:
        """The sum of the last and estimated durations of the assets of the plan: an upper bound by
        the last ones. None if nothing is known."""
        return sum(self.expected.values()) if self.expected or not self.plan else None

    @property
    def steps(self) -> list[dict[str, Any]]:
        """The plan as JSON: ``name, reasons, certain, seconds``."""
        return [asdict(p) | {"seconds": self.durations.get(p.name)} for p in self.plan]

    @property
    def summary(self) -> str:
        """One line: what changed → the greatest number of assets, and the time; the attributes that
        stay fresh."""
        if not self.plan:
            return "Nothing is stale: 0 assets to make."
        if self.is_first:
            return f"{_counted(len(self.plan), 'asset')} to make for the first time, {self._time()}"
        most = "" if all(p.certain for p in self.plan) else "up to "
        line = f"{self.causes} → {most}{_counted(len(self.plan), 'asset')}, {self._time()}"
        touched = {a for a in ATTRIBUTES if any(p.name.endswith(f"_{a}") for p in self.plan)}
        stays = [a for a in ATTRIBUTES if a not in touched]
        return (
            f"{line}; {', '.join(stays)} {'stays' if len(stays) == 1 else 'stay'}"
            if touched and stays
            else line
        )

    @property
    def is_first(self) -> bool:
        """Whether none of the assets was ever made."""
        return all(p.reasons == [NEVER] for p in self.plan)

    @property
    def causes(self) -> str:
        """What changed, in words."""
        if self.is_first:
            return "first run"
        causes = [
            f"{_counted(n, 'label')} of {attribute} changed"
            for attribute, n in self.label_changes.items()
        ]
        counted = {f"hand_labels_{attribute} changed" for attribute in self.label_changes}
        certain = [p for p in self.plan if p.certain]
        changed = dict.fromkeys(
            r
            for p in certain
            for r in p.reasons
            if r not in (NEVER, CODE, ASKED) and r not in counted
        )
        made, before = self.begun
        continued = [r for r in changed if r.removesuffix(" changed") in made]
        if continued and before not in causes:
            causes.append(before)
        causes += [r for r in changed if r not in continued]
        for reason, text in (
            (CODE, "settings or code of {} changed"),
            (NEVER, "{} never made"),
            (ASKED, "{} asked for"),
        ):
            names = [p.name for p in certain if reason in p.reasons]
            if names:
                causes.append(
                    text.format(", ".join(names) if len(names) <= 3 else f"{len(names)} assets")
                )
        return ", ".join(causes)

    def _time(self) -> str:
        names = {p.name for p in self.plan}
        untimed = len(names - self.durations.keys())
        if self.seconds is None or not names & self.expected.keys():
            return "time not known yet"
        about = f"about {spoken(self.seconds)}"
        if names <= self.estimates.keys():
            return f"{about} as estimated for two CPU cores"
        line = f"{about} by last time's durations"
        if not untimed:
            return line
        return f"{line} and {untimed} {'estimated' if self.estimates else 'never timed'}"


def forecast(
    instance: dg.DagsterInstance,
    root: DataRoot,
    todo: list[Planned],
    begun: tuple[Collection[str], str] = ((), ""),
) -> Forecast:
    """The plan ``todo`` with its changed labels and its last or estimated durations; ``begun`` as
    in :class:`Forecast`."""
    names = [p.name for p in todo]
    timed = last_durations(instance, names)
    estimated = estimates(root, [name for name in names if name not in timed])
    return Forecast(todo, label_changes(root, todo), timed, estimated, begun)


def plan(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    observed: Mapping[str, str],
    select: Iterable[str] | None = None,
    again: Iterable[str] = (),
    settled: Collection[str] = (),
) -> list[Planned]:
    """The assets that a refresh would materialise, in the order of the graph; ``observed`` maps
    each source to its present content hash.

    ``select`` limits the plan to these assets and those upstream of them. Assets of ``again`` are
    included even if nothing changed. Assets of ``settled`` were materialised by this refresh:
    changes of their sources since then, which the UI's sensor may have observed already, are left
    to the next refresh. Raises :class:`RefreshError` for a selection without assets."""
    graph = definitions.resolve_asset_graph()
    wanted = _selected(graph, select)
    made = latest_materializations(instance, graph.materializable_asset_keys)
    stale: dict[dg.AssetKey, list[str]] = {}
    out = []
    for key in graph.toposorted_asset_keys:
        if key not in graph.materializable_asset_keys or key not in wanted:
            continue
        reasons = _reasons(graph, made, key, observed, key.to_user_string() in settled)
        if not reasons and key.to_user_string() in again:
            reasons = [ASKED]
        following = sorted(p.to_user_string() for p in graph.get(key).parent_keys if p in stale)
        if not reasons and not following:
            continue
        stale[key] = reasons
        out.append(
            Planned(
                key.to_user_string(), reasons or [f"after {', '.join(following)}"], bool(reasons)
            )
        )
    return out


def check_selection(definitions: dg.Definitions, select: Iterable[str] | None) -> None:
    """Raise :class:`RefreshError` for a selection without assets, before the work for a plan."""
    _selected(definitions.resolve_asset_graph(), select)


def label_changes(root: DataRoot, todo: list[Planned]) -> dict[str, int]:
    """For each attribute the number of labels that differ from the last checked copy, if
    ``labels_*`` is in the plan and such a copy exists; attributes without a change are left out."""
    planned = {p.name for p in todo}
    stale = [a for a in ATTRIBUTES if f"labels_{a}" in planned and root.checked_labels(a).exists()]
    if not stale:
        return {}
    # imported here, since pandas takes a second and a refresh without changes does not need it
    from gaip3_pipeline.tables.label_changes import changes_since

    counts = {}
    for attribute in stale:
        try:
            counts[attribute] = len(
                changes_since(root.checked_labels(attribute), labels.read(root, attribute).table)
            )
        except ContractError:
            continue  # labels_* will fail with the line and the remedy
    return {attribute: n for attribute, n in counts.items() if n}


def last_durations(instance: dg.DagsterInstance, names: Iterable[str]) -> dict[str, float]:
    """The seconds of each asset's last step, in ``refresh`` or the UI; assets that were never
    materialised are absent."""
    steps: dict[str, list[str]] = {}
    for name in names:
        for record in instance.fetch_materializations(dg.AssetKey(name), limit=1).records:
            steps.setdefault(record.run_id, []).append(name)
    found = {}
    for run_id, keys in steps.items():
        for step in instance.get_run_step_stats(run_id, keys):
            if step.start_time and step.end_time:
                found[step.step_key] = step.end_time - step.start_time
    return found


def describe(forecast: Forecast) -> str:
    """The plan for a terminal: the summary, then a line per asset with its reasons. Assets that
    were never made share a line if there are many."""
    new = [p.name for p in forecast.plan if p.reasons == [NEVER]]
    listed = [p for p in forecast.plan if len(new) <= FEW or p.reasons != [NEVER]]
    width = max((len(p.name) for p in listed), default=0)
    lines = [f"  {p.name:{width}}  {'; '.join(p.reasons)}" for p in listed]
    if listed and len(listed) < len(forecast.plan):
        lines.append(f"  and {len(new)} assets that were never made")
    return "\n".join([forecast.summary, *lines])


def stages(definitions: dg.Definitions, todo: Iterable[Planned]) -> int:
    """The number of layers that a refresh of ``todo`` makes one after another: the length of the
    longest chain of assets that depend on each other."""
    graph = definitions.resolve_asset_graph()
    height: dict[dg.AssetKey, int] = {}
    for asset in todo:
        key = dg.AssetKey(asset.name)
        before = [height[k] for k in graph.get_ancestor_asset_keys(key) if k in height]
        height[key] = 1 + max(before, default=0)
    return max(height.values(), default=0)


def spoken(seconds: float) -> str:
    """``230`` as ``4 minutes``."""
    if seconds < 90:
        return _counted(max(1, round(seconds)), "second")
    if seconds < 90 * 60:
        return _counted(round(seconds / 60), "minute")
    return f"{seconds / 3600:.1f} hours"


def _counted(n: int, noun: str) -> str:
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def _reasons(
    graph: "AssetGraph",
    made: Mapping[dg.AssetKey, dg.AssetMaterialization],
    key: dg.AssetKey,
    observed: Mapping[str, str],
    settled: bool,
) -> list[str]:
    if key not in made:
        return [NEVER]
    tags = made[key].tags or {}
    node = graph.get(key)
    reasons = []
    if tags.get(CODE_VERSION_TAG) != node.code_version:
        reasons.append(CODE)
    for parent in sorted(node.parent_keys):
        name = parent.to_user_string()
        if settled and name in observed:
            continue
        now = observed.get(name)
        if now is None and parent in made:
            now = (made[parent].tags or {}).get(DATA_VERSION_TAG)
        if now is not None and tags.get(INPUT_VERSION_TAG + name) != now:
            reasons.append(f"{name} changed")
    return reasons


def _selected(graph: "AssetGraph", select: Iterable[str] | None) -> set[dg.AssetKey]:
    every = set(graph.toposorted_asset_keys)
    if select is None:
        return every
    chosen: set[dg.AssetKey] = set()
    for text in select:
        try:
            found = dg.AssetSelection.from_string(text).resolve(graph)
        except Exception:  # Dagster raises several kinds, whose messages name its own classes
            found = set()
        if not found:
            raise RefreshError(_unknown(graph, text))
        chosen |= set(found)
    for key in list(chosen):
        chosen |= set(graph.get_ancestor_asset_keys(key))
    return chosen


def _unknown(graph: "AssetGraph", text: str) -> str:
    """One line about a selection without assets: similar names, and where the list is."""
    names = [k.to_user_string() for k in graph.toposorted_asset_keys]
    groups = {f"group:{graph.get(k).group_name}" for k in graph.materializable_asset_keys}
    near = get_close_matches(text.strip('+*" '), [*names, *sorted(groups)], cutoff=0.7)
    hint = (
        f"did you mean {' or '.join(near)}?"
        if near
        else "give a name such as nvae_weights or a group such as 'group:inputs', and repeat"
        " --select for several."
    )
    return (
        f"--select {text or repr(text)}: no asset has this name; {hint} All assets are listed in"
        f" {ASSET_LIST}"
    )

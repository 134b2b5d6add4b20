"""The first screen of the report: how good the faces are, what the sliders do, which checks failed,
which versions these are. Functions of figures and tables that return HTML."""

import html
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from PIL import Image

from gaip3_pipeline.attributes import ATTRIBUTES, MEANINGS
from gaip3_pipeline.evaluation.check_texts import CHECK_TEXTS
from gaip3_pipeline.evaluation.page import both, picture, words
from gaip3_pipeline.evaluation.wording import asset_words, attribute_words
from gaip3_pipeline.imaging.contact_sheet import data_url

SHOWN = 12  # samples
LEAST_WIDTH = 104  # pixels; smaller samples are shown larger by a whole factor
FOLLOWS, FOLLOWS_IN_PART = 0.6, 0.1  # slopes of measured against asked values
MOVED_TOO = 0.1  # change of another value over a slider's range that is named


@dataclass(frozen=True)
class Verdict:
    """What a check found about the present version of an asset; ``passed`` is None if it has not
    run on it."""

    asset: str
    check: str
    passed: bool | None
    found: str = ""
    blocking: bool = False


@dataclass(frozen=True)
class Version:
    """A trained model: its asset, when it was trained, and, as far as MLflow knows them, its
    registered number, aliases, commit and the page of its training."""

    asset: str
    trained: str
    number: str = ""
    aliases: Sequence[str] = ()
    commit: str = ""
    dirty: bool = False
    url: str = ""


@dataclass(frozen=True)
class Overview:
    """What the first screen shows.

    ``figures`` of each asset; ``control``: the table of the sweeps; ``strips``: the JPEG of the
    sweeps; ``samples``: JPEG files of the first samples; ``made``: when the report was made;
    ``mlflow`` and ``dagster``: their addresses while ``gaip3 ui`` runs."""

    figures: Mapping[str, Mapping[str, Any]]
    control: pd.DataFrame
    strips: bytes
    samples: Sequence[bytes]
    verdicts: Sequence[Verdict]
    versions: Sequence[Version]
    made: str
    mlflow: str
    dagster: str


def first_screen(overview: Overview) -> str:
    """HTML of the first screen."""
    parts = (
        ("Faces", _faces(overview)),
        ("Sliders", _sliders(overview)),
        ("Quality of the faces", _items(_quality(overview))),
        ("Checks", _checks(overview.verdicts)),
        ("Go on", _links(overview)),
    )
    shown = "".join(f"<section><h2>{both(name)}</h2>{body}</section>" for name, body in parts)
    return (
        f'{_facts(overview)}<div class="first">{shown}</div>'
        f'<h2 class="rest">{both("All figures and pictures")}</h2>'
    )


def _facts(overview: Overview) -> str:
    lines = [*map(_trained, overview.versions)]
    commits = {(v.commit[:9], v.dirty) for v in overview.versions if v.commit}
    for commit, dirty in sorted(commits):
        changed = f" ({both('with changes that were not committed')})" if dirty else ""
        lines.append(f"<b>{both('Commit')}</b> <code>{html.escape(commit)}</code>{changed}")
    final = overview.figures["final_dataset"]
    counts = {"images": f"{final['files']:,}", "originals": f"{final['different_originals']:,}"}
    counts["learned"] = f"{overview.figures['nvae_weights']['n_train']:,}"
    drawn_from = both(
        "{images} from {originals} photographs; {learned} to learn from, the others held out",
        **counts,
    )
    lines.append(f"<b>{both('Training images')}</b> {drawn_from}")
    lines.append(f"<b>{both('This report')}</b> {html.escape(overview.made)}")
    return _items(lines, "facts")


def _trained(version: Version) -> str:
    name = f"<b>{words(asset_words(version.asset))}</b>"
    if version.url:
        name = f'<a href="{html.escape(version.url)}">{name}</a>'
    about = [both("trained {time}", time=version.trained)]
    # a champion that is also the candidate is the newest version and passed its checks
    alias = next((a for a in ("champion", "candidate") if a in version.aliases), "")
    if alias:
        about.insert(0, both(alias))
    if version.number:
        about.insert(0, both("version {number}", number=version.number))
    return f"{name} {', '.join(about)}"


def _faces(overview: Overview) -> str:
    width, height = Image.open(io.BytesIO(overview.samples[0])).size
    scale = max(1, round(LEAST_WIDTH / width))
    pictures = "".join(
        f'<img alt="" width="{width * scale}" height="{height * scale}" src="{data_url(jpeg)}">'
        for jpeg in overview.samples
    )
    size = (
        "{height} × {width} pixels (height × width), shown at {scale}×."
        if scale > 1
        else "{height} × {width} pixels (height × width), shown at full size."
    )
    about = both(
        "The first {shown} of {all} samples, drawn at random.",
        shown=len(overview.samples),
        all=overview.figures["nvae_samples"]["images"],
    )
    shown_at = both(size, width=width, height=height, scale=scale)
    return (
        f'<div class="samples">{pictures}</div><p class="note">{about} {shown_at}'
        f' <a href="#nvae_samples">{both("All samples")}</a></p>'
    )


def _quality(overview: Overview) -> list[str]:
    """Sentences on how good the faces are; figures that a small root lacks are left out."""
    f = overview.figures["generator_evaluation"]
    lines = []
    if "power_1" in f:
        lines.append(
            both(
                "Fine detail is {share} as strong as in photographs (100 %: as sharp).",
                share=_percent(f["power_1"]),
            )
        )
    if f.get("diversity_real"):
        lines.append(
            both(
                "Variety is {share} of that of photographs.",
                share=_percent(f["diversity_samples"] / f["diversity_real"]),
            )
        )
    if "copying" in f:
        lines.append(
            both(
                "{share} of the samples are nearer to a training image than held-out photographs"
                " are (50 %: nothing is copied).",
                share=_percent(f["copying"]),
            )
        )
    if "judge_network_full" in f:
        auc = {
            size: _percent(max(f[f"judge_{make}_{size}"] for make in ("network", "regression")))
            for size in ("full", "quarter")
        }
        line = both(
            "A judge trained for this measurement tells samples from photographs in {full} of pairs"
            " at full size, in {quarter} at a quarter (50 %: it cannot).",
            **auc,
        )
        if any(v.check == "judges_count" and v.passed is False for v in overview.verdicts):
            doubt = both("This judge failed its own control, so its figures do not count.")
            line += f' <span class="warn">{doubt}</span>'
        lines.append(line)
    return lines


def _sliders(overview: Overview) -> str:
    f = overview.figures["generator_evaluation"]
    rows = "".join(_slider(a, overview.control, f) for a in ATTRIBUTES)
    note = both(
        "Means of {faces} faces, measured by models that took no part in training the generator."
        " They see ends less extreme than they are.",
        faces=f["faces"],
    )
    return (
        f'<table class="sliders">{rows}</table><p class="note">{note}</p>'
        f"<details><summary>{both('Each slider on two faces')}</summary>"
        f"{picture('sweeps', overview.strips)}</details>"
    )


def _slider(attribute: str, control: pd.DataFrame, figures: Mapping[str, Any]) -> str:
    swept = (
        control[control.swept == attribute].groupby(f"asked_{attribute}").mean(numeric_only=True)
    )
    measured = swept[f"measured_{attribute}"]
    ends = both(
        "asked {from_} → {to}, measured {low} → {high}",
        from_=f"{swept.index[0]:.2f}",
        to=f"{swept.index[-1]:.2f}",
        low=f"{measured.iloc[0]:.2f}",
        high=f"{measured.iloc[-1]:.2f}",
    )
    change = {
        a: swept[f"measured_{a}"].iloc[-1] - swept[f"measured_{a}"].iloc[0]
        for a in ATTRIBUTES
        if a != attribute
    }
    others = ", ".join(
        f"{words(attribute_words(a))} {by:+.2f}" for a, by in change.items() if abs(by) >= MOVED_TOO
    )
    also = f"<small>{both('also moves')} {others}</small>" if others else ""
    told, mark = _how(figures[f"slope_{attribute}"], figures[f"known_{attribute}"])
    meaning = both(MEANINGS[attribute])
    return (
        f'<tr><th scope="row">{words(attribute_words(attribute))}<small>{meaning}</small></th>'
        f'<td><div class="{mark}">{both(told)}</div>{ends}{also}</td>'
        f"<td>{_curve(list(zip(swept.index, measured, strict=True)))}</td></tr>"
    )


def _how(slope: float, known: bool) -> tuple[str, str]:
    if not known:
        return "is not controlled: it cannot be predicted on held-out images", "bad"
    if slope >= FOLLOWS:
        return "follows the slider", "good"
    if slope > FOLLOWS_IN_PART:
        return "follows the slider in part", "warn"
    return "does not follow the slider", "bad"


def _curve(points: Sequence[tuple[float, float]]) -> str:
    """A drawing of measured against asked values, 0..1 each; the text beside it tells the ends."""
    line = " ".join(f"{100 * x:.0f},{70 - 70 * min(max(y, 0), 1):.0f}" for x, y in points)
    return (
        '<svg viewBox="-2 -2 104 74" aria-hidden="true" fill="none" stroke-width="2">'
        '<path d="M0 70L100 0" stroke="var(--line)"/>'
        f'<polyline points="{line}" stroke="var(--mark)" stroke-width="3"/></svg>'
    )


def _checks(verdicts: Sequence[Verdict]) -> str:
    failed = [v for v in verdicts if v.passed is False]
    passed = [v for v in verdicts if v.passed]
    waiting = [v for v in verdicts if v.passed is None]
    counts = {"passed": len(passed), "all": len(failed) + len(passed)}
    if failed:
        head = f'<p class="warn">{both("{passed} of {all} checks passed.", **counts)}</p>'
    elif passed:
        head = f'<p class="good">{both("All {all} checks passed.", **counts)}</p>'
    else:
        head = f"<p>{both('No check has run.')}</p>"
    listed = map(_failure, sorted(failed, key=lambda v: not v.blocking))
    folded = "".join(
        f"<details><summary>{both(title, count=len(of))}</summary>"
        f"{_items(map(_line, of), 'checks')}</details>"
        for title, of in (
            ("{count} not run on the present data", waiting),
            ("{count} passed", passed),
        )
        if of
    )
    return f"{head}{_items(listed, 'checks')}{folded}"


def _failure(verdict: Verdict) -> str:
    mark, stop = ("bad", f" ({both('blocks what follows')})") if verdict.blocking else ("warn", "")
    meaning = words(CHECK_TEXTS[verdict.asset, verdict.check].meaning)
    return (
        f'<span class="{mark}">✗ {_title(verdict)}</span>{stop}<br>{meaning}'
        f'<small>{both("found")}: <span lang="en">{html.escape(verdict.found)}</span></small>'
    )


def _line(verdict: Verdict) -> str:
    found = f'<small lang="en">{html.escape(verdict.found)}</small>' if verdict.found else ""
    return f"{'✓ ' if verdict.passed else ''}{_title(verdict)}{found}"


def _title(verdict: Verdict) -> str:
    title = words(CHECK_TEXTS[verdict.asset, verdict.check].title)
    return f'{title} · <a href="#{verdict.asset}">{words(asset_words(verdict.asset))}</a>'


def _links(overview: Overview) -> str:
    lines = [
        ("curation.html", "Curation", "which photographs train the generator"),
        ("inputs.html", "The five values", "how accurate the five values are"),
        ("control.csv", "control.csv", "every picture of the sliders as a table"),
        (overview.mlflow, "MLflow", "all trainings"),
        (overview.dagster, "Dagster", "all assets and their history"),
    ]
    items = [
        f'<a href="{html.escape(address)}">{both(name)}</a>: {both(what)}'
        for address, name, what in lines
        if address
    ]
    note = both(
        "MLflow and Dagster answer while gaip3 ui runs. It prints their addresses, which differ if"
        " a port was taken."
    )
    return f'{_items(items)}<p class="note">{note}</p>'


def _items(lines: Iterable[str], kind: str = "") -> str:
    return f'<ul class="{kind}">{"".join(f"<li>{line}</li>" for line in lines)}</ul>'


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"

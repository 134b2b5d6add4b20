"""The commands of ``gaip3``. An error is one line with the remedy, and a non-zero exit code."""

import io
import json
import locale
import math
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial, wraps
from pathlib import Path
from typing import Any

import click

from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.cluster.connection import ADDRESS, ClusterError, address_of, usable
from gaip3_pipeline.dagster_home import dagster_store, ensure_dagster_home, environment
from gaip3_pipeline.environment import EnvironmentVariableError, check
from gaip3_pipeline.layout import (
    DATA,
    DEMO,
    IMAGE_SETS,
    DataRoot,
    checkpoints,
    is_trained,
    retouched_photographs,
)
from gaip3_pipeline.settings import SettingsError, load
from gaip3_pipeline.stores import Store, StoreError, errors_told_once, in_one_line
from gaip3_pipeline.tables.databases import DatabaseError, check_history, check_writable, explain
from gaip3_pipeline.tables.files import write_bytes_atomically, write_text_atomically
from gaip3_pipeline.tables.image_files import DuplicateStems
from gaip3_pipeline.tables.problems import ContractError, at_most, clear

COMMAND_LINE = Path("/proc/self/cmdline")
DEMO_SETTINGS = """\
# Settings of the demo: the preset "demo" of the repository's gaip3.toml.
# Tables below, such as [nvae], override the preset; the assets that read them become stale.
preset = "demo"
"""
LABEL_EXPORTS = ("csv", "plain", "label-studio", "label-studio-csv", "label-studio-config")
# least seed that a recipe cannot store for all of the 10,000 faces of a command
SEEDS = 2**53 - 10_000


class _Commands(click.Group):
    """The commands, in a process whose names of files and output fail for no character."""

    def main(self, *words: Any, **options: Any) -> Any:
        if not words and "args" not in options:  # this process was started for the command
            _use_utf8()
            for stream in (sys.stdout, sys.stderr):
                if isinstance(stream, io.TextIOWrapper):
                    stream.reconfigure(errors="replace")
        return super().main(*words, **options)


def _use_utf8() -> None:
    """In a locale with another encoding, start this process again in Python's UTF-8 mode.

    Names of files and the files of all libraries are UTF-8, whatever the locale is; only what is
    printed keeps the encoding of the terminal. The arguments are taken as bytes, since not every
    encoding gives back the bytes that it has read."""
    if sys.getfilesystemencoding() == "utf-8":
        return
    os.environ.setdefault("PYTHONIOENCODING", locale.getencoding())
    python, *rest = COMMAND_LINE.read_bytes().removesuffix(b"\0").split(b"\0")
    os.execv(sys.executable, [python, b"-X", b"utf8", *rest])


class Number(click.FloatRange):
    """A number of a range; ``nan`` lies in none."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value} is not a number.", param, ctx)
        return number


PORT = click.IntRange(1, 65_535)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
@click.version_option(package_name="gaip3-pipeline")
def main() -> None:
    """From a folder of face photographs to a face generator with sliders."""


def command(
    function: Callable[..., Any], default_root: Path | None = None, begins: bool = False
) -> click.Command:
    """A subcommand that works on a data root and reports the user's mistakes in one line.

    Only a command that ``begins`` accepts a folder that is no data root yet."""

    @wraps(function)
    def wrapped(path: Path, **options: Any) -> None:
        root = DataRoot(path)
        if not _is_text(path):
            raise click.ClickException(
                f"--root {os.fsencode(path)!r} is not valid UTF-8: rename the folder"
            )
        if not begins and not root.exists:
            raise click.ClickException(
                f"{path} is {'no data root' if path.exists() else 'not there'}: check --root;"
                " gaip3 demo, fetch or import-first-run fill a new root, or put photographs into"
                f" {', '.join(s.original for s in IMAGE_SETS)} in {root.originals}"
            )
        os.environ.update(environment(root))
        try:
            with errors_told_once():
                function(root=root, **options)
        except (
            SettingsError,
            StoreError,
            ContractError,
            DuplicateStems,
            DatabaseError,
            EnvironmentVariableError,
            ClusterError,
        ) as e:
            raise click.ClickException(clear(str(e))) from e
        except click.UsageError:
            raise
        except click.ClickException as e:
            raise click.ClickException(clear(e.message)) from e
        except KeyboardInterrupt as e:
            raise click.ClickException("interrupted; run the same command again to continue") from e
        except OSError as e:
            raise click.ClickException(f"{e.strerror or e}: {e.filename or ''}".rstrip(": ")) from e
        except Exception as e:
            line = explain(e, root.state)
            if not line:
                raise
            raise click.ClickException(line) from e

    shown = "demo/" if default_root else "data/, or $GAIP3_ROOT"
    folder = click.Path(path_type=Path, file_okay=False, resolve_path=True)
    default = default_root or (lambda: os.environ.get("GAIP3_ROOT") or str(DATA))
    return main.command()(
        click.option(
            "--root",
            "path",
            type=folder,
            default=default,
            help=f"The data root [default: {shown}].",
        )(wrapped)
    )


def demo(root: DataRoot) -> None:
    """Draw synthetic faces and run the whole pipeline on them."""
    from gaip3_pipeline.assets.report import summary
    from gaip3_pipeline.faces.dataset import DatasetError, write_dataset
    from gaip3_pipeline.progress import Progress

    check()
    if not root.settings_file.exists():
        write_text_atomically(root.settings_file, DEMO_SETTINGS)
    settings = load(root)
    click.echo(f"Painting synthetic faces into {root.originals}")
    try:
        write_dataset(root, settings.faces, Progress("  painting", 1))
    except DatasetError as e:
        raise click.ClickException(str(e)) from e
    _refresh(root, None)
    click.echo(summary(root))


command(demo, DEMO, begins=True)
begins = partial(command, begins=True)


@command
@click.option("--dry-run", is_flag=True, help="Show what would run and why; materialise nothing.")
@click.option(
    "--select",
    multiple=True,
    help=(
        "Only these assets and those they depend on, such as nvae_weights or 'group:inputs'; may"
        " be repeated."
    ),
)
@click.option(
    "--verify", is_flag=True, help="Hash every file again, even if its size and time are unchanged."
)
@click.option(
    "--warm-start",
    is_flag=True,
    help="Start the generator's training from its last weights, for a third of the epochs.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="With --dry-run: print the plan as one line of JSON."
)
@click.option(
    "--on",
    "cluster",
    metavar="ADDRESS",
    help="Run the steps on the Ray cluster with this job server, http://HEAD:8265.",
)
def refresh(
    root: DataRoot,
    *,
    dry_run: bool,
    select: tuple[str, ...],
    verify: bool,
    warm_start: bool,
    as_json: bool,
    cluster: str | None,
) -> None:
    """Rebuild the stale assets, and no others."""
    if as_json and not dry_run:
        raise click.UsageError("--json goes with --dry-run")
    if cluster:
        os.environ[ADDRESS] = cluster  # before the definitions are built
    if dry_run:
        _show_plan(root, list(select) or None, verify, as_json)
    else:
        _refresh(
            root, list(select) or None, verify, config={"nvae_weights": {"warm_start": warm_start}}
        )


@command
@click.argument("model", type=click.Choice(["nvae"]))
@click.option(
    "--resume",
    is_flag=True,
    help="Continue from the last checkpoint, even if settings or data have changed since.",
)
def train(root: DataRoot, model: str, resume: bool) -> None:
    """Train the generator, after its inputs are up to date.

    An interrupted training with the same settings and data continues by itself, and a finished
    one is not repeated. With --resume, training also continues after a change of settings or
    data: raise epochs under [nvae] in gaip3.toml to train longer, or continue with new labels."""
    if resume and not checkpoints(root.nvae).exists():  # before the assets upstream are made
        raise click.ClickException(
            f"there is no checkpoint in {checkpoints(root.nvae)}: train without --resume"
        )
    _refresh(
        root, ["nvae_weights"], again=("nvae_weights",), config={"nvae_weights": {"resume": resume}}
    )


@command
@click.argument("model", type=click.Choice(["nvae"]))
@click.option(
    "--set",
    "given",
    multiple=True,
    metavar="KEY=V1,V2",
    help="Values of a setting of [nvae]; may be repeated, then all combinations are trained.",
)
@click.option(
    "--seeds",
    type=click.IntRange(1, 1000),
    default=1,
    show_default=True,
    help="Trainings of each combination, with seeds from that of the settings on.",
)
@click.option("--epochs", type=click.IntRange(1), help="Epochs of a training [default: settings].")
@click.option(
    "--on",
    "address",
    metavar="ADDRESS",
    help="Train on the Ray cluster with this job server, http://HEAD:8265.",
)
def sweep(
    root: DataRoot,
    model: str,
    given: tuple[str, ...],
    seeds: int,
    epochs: int | None,
    address: str | None,
) -> None:
    """Train the generator with several settings and seeds.

    No asset changes and no model is registered. MLflow gets a run for the sweep with a child for
    each training. Interrupted, the same command continues the sweep."""
    from gaip3_pipeline.cluster.job import run_module
    from gaip3_pipeline.dagster_storage import reading_instance
    from gaip3_pipeline.sweep import (
        ARGUMENTS,
        Sweep,
        SweepError,
        grid,
        run_sweep,
        shown,
        state_of_inputs,
    )

    if address:
        os.environ[ADDRESS] = address
    settings = load(root)
    points = grid(settings, given, seeds, epochs)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with (
            in_one_line(_dagsters_database(root)),
            reading_instance(root) as instance,
            _definitions(root) as definitions,
        ):
            inputs, version = state_of_inputs(root, definitions, instance)
        cluster = address_of(settings)
        if cluster:
            usable(settings)
            arguments = {"root": str(root.path), "given": given, "seeds": seeds, "epochs": epochs}
            arguments |= {"inputs": inputs, "code_version": version}
            variables = {ARGUMENTS: json.dumps(arguments)}
            done = run_module(
                root,
                cluster,
                "gaip3_pipeline.sweep",
                variables,
                lambda text: click.echo(text, nl=False),
            )
            sys.exit(0 if done else 1)
        made = run_sweep(root, Sweep(points, inputs, version), click.echo)
    except SweepError as e:
        raise click.ClickException(str(e)) from e
    click.echo(shown(made))
    sys.exit(1 if made.failed.any() else 0)


@command
@click.argument("action", type=click.Choice(["pack", "take"]))
@click.argument("place", type=click.Path(path_type=Path, resolve_path=True))
def gpu(root: DataRoot, action: str, place: Path) -> None:
    """Train the generator on a rented GPU. See docs/gpu.md.

    pack FILE brings the generator's inputs up to date and writes what the training needs, with the
    code, into a tar archive. take FOLDER takes over the checkpoints that the training there wrote;
    the next refresh continues from them."""
    from gaip3_pipeline.dagster_storage import reading_instance
    from gaip3_pipeline.setup.gpu import RentedError, pack, take
    from gaip3_pipeline.sweep import SweepError, names_of_inputs
    from gaip3_pipeline.training.rented import FOLDER

    if action == "pack":
        if place.is_dir():
            raise click.UsageError(f"{place} is a folder: name a file in it")
        with _definitions(root) as definitions:
            inputs = names_of_inputs(definitions)
        _refresh(root, inputs)
    try:
        with (
            in_one_line(_dagsters_database(root)),
            reading_instance(root) as instance,
            _definitions(root) as definitions,
        ):
            if action == "take":
                click.echo(take(root, place, definitions, instance))
                return
            made = pack(root, place, definitions, instance)
    except (RentedError, SweepError) as e:
        raise click.ClickException(str(e)) from e
    height, width = made.size
    megabytes = made.bytes / 1e6
    click.echo(f"{place}: {made.pictures:,} pictures of {height} × {width}, {megabytes:.1f} MB")
    click.echo("On the other machine, with an NVIDIA GPU and Python 3.11 or later:")
    click.echo(f"  tar xf {place.name} && cd {FOLDER} && pip install -r requirements.txt")
    click.echo("  python -m gaip3_pipeline.training.rented")


@command
@click.option("--port", type=PORT, default=3000, show_default=True, help="The Dagster UI's port.")
@click.option(
    "--mlflow-port", type=PORT, default=5000, show_default=True, help="The MLflow UI's port."
)
@click.option(
    "--label-port", type=PORT, default=3100, show_default=True, help="The label page's port."
)
def ui(root: DataRoot, port: int, mlflow_port: int, label_port: int) -> None:
    """Serve the label page, the studio, Dagster and MLflow."""
    from gaip3_pipeline.definitions import tracking_of
    from gaip3_pipeline.web.servers import ServerError, serve

    settings = load(root)
    check_writable(root.databases)
    moved = tracking_of(root, settings).follow_root()
    if moved:
        click.echo(moved)
    ensure_dagster_home(root)
    try:
        serve(root, port, mlflow_port, label_port)
    except ServerError as e:
        raise click.ClickException(str(e)) from e


@command
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="The address to serve on. Access from other machines needs the token that is printed.",
)
@click.option("--port", type=PORT, default=3100, show_default=True, help="The page's port.")
def label(root: DataRoot, host: str, port: int) -> None:
    """Serve the label page and the studio.

    Label by keyboard, review labels that are probably wrong, refresh, generate faces."""
    from gaip3_pipeline.web.label import serve_labels
    from gaip3_pipeline.web.servers import ServerError

    ensure_dagster_home(root)
    try:
        serve_labels(root, host, port)
    except ServerError as e:
        raise click.ClickException(str(e)) from e


def _sliders(function: Callable[..., Any]) -> Callable[..., Any]:
    for attribute in reversed(ATTRIBUTES):
        name = f"--{attribute.replace('_', '-')}"
        function = click.option(
            name,
            attribute,
            type=Number(0, 1),
            help="0..1 [default: the values of training pictures].",
        )(function)
    return function


@command
@_sliders
@click.option(
    "--n", type=click.IntRange(1, 10_000), default=16, show_default=True, help="How many faces."
)
@click.option(
    "--seed",
    type=click.IntRange(0, SEEDS, max_open=True),
    default=7,
    show_default=True,
    help="The same seed gives the same faces.",
)
@click.option(
    "--temperature",
    type=Number(0, 2),
    help="How much the faces differ; 1 is as in training [default: settings].",
)
@click.option(
    "--guidance",
    type=Number(0, 10),
    help="Strength of guidance by the five values; 1 is no amplification [default: settings].",
)
@click.option(
    "--detail",
    type=Number(0, 1),
    help="Share of the detail network's change; 0 is the generator's mean [default: settings].",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("grid.png"),
    show_default=True,
    help="The PNG to write.",
)
@click.option(
    "--from",
    "source",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A PNG of this command or of the studio; it is generated again with its settings.",
)
def generate(
    root: DataRoot,
    *,
    n: int,
    seed: int,
    temperature: float | None,
    guidance: float | None,
    detail: float | None,
    out: Path,
    source: Path | None,
    **sliders: float | None,
) -> None:
    """Generate faces with given values, or again from a PNG.

    The PNG contains its settings: --from draws it again, and the studio opens it."""
    if out.suffix.lower() not in (".png", ""):
        raise click.ClickException(f"--out {out}: a PNG is written; name it {out.stem}.png")
    _not_in_root(root, out)
    if source:
        _generate_again(root, source, out)
        return
    asked = {"temperature": temperature, "guidance": guidance, "detail": detail}
    given: dict[str, Any] = {k: v for k, v in asked.items() if v is not None}
    settings = load(root)
    settings = replace(settings, samples=replace(settings.samples, **given))
    _need_generator(root)
    _need_folder(out.parent)
    # TensorFlow takes seconds to import: mistakes are reported before
    from gaip3_pipeline.models.detail import PairError
    from gaip3_pipeline.models.storage import detail_version
    from gaip3_pipeline.sampling.draw import out_of_range
    from gaip3_pipeline.sampling.recipe import LISTED, Pair
    from gaip3_pipeline.studio.faces import Studio
    from gaip3_pipeline.tables.hashing import weights_version

    try:
        versions = weights_version(root.nvae), detail_version(root.detail)
        pair = Pair(root.nvae, versions[0], root.detail, versions[1])
        studio = Studio(root, settings, pair)
    except (PairError, FileNotFoundError) as e:
        raise click.ClickException(f"{e}: run gaip3 refresh --root {root.path}") from e
    moved = {k: v for k, v in sliders.items() if v is not None}
    for line in out_of_range(studio.generator, moved):
        click.echo(line, err=True)
    write_bytes_atomically(out, studio.png(studio.of_seeds(seed, n, moved)))
    faces = "1 face" if n == 1 else f"{n} faces"
    recipe = f"; without its settings, which fit {LISTED} faces" if n > LISTED else ""
    click.echo(f"{out}: {faces}, seed {seed}{recipe}")


@command
@click.argument(
    "folder", type=click.Path(path_type=Path, exists=True, file_okay=False, resolve_path=True)
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder for the results [default: FOLDER-retouched].",
)
@click.option(
    "--fidelity",
    type=Number(0, 1),
    help="Strength: 0 leaves a photograph unchanged [default: settings].",
)
def retouch(root: DataRoot, folder: Path, out: Path | None, fidelity: float | None) -> None:
    """Retouch the photographs of FOLDER with the critic. The originals stay unchanged.

    The generator's picture of each photograph is changed until the critic rates it as more
    realistic, and the difference is added to the photograph in its own size. A photograph that
    does not change is copied byte for byte, with the reason."""
    from gaip3_pipeline.studio.results import OutputError, find_photographs
    from gaip3_pipeline.tables.image_files import LEFT_OUT

    settings = load(root)
    out = (out or folder.with_name(f"{folder.name}-retouched")).resolve()
    if out == folder:
        raise click.ClickException(
            f"{out}: this is the folder of the photographs; choose another one with --out"
        )
    _not_in_root(root, out)
    _need_generator(root)
    try:
        work = find_photographs(folder, out)
    except OutputError as e:
        raise click.ClickException(str(e)) from e
    if not work.pictures:
        unread = "\n".join(at_most([f"{o.path}: {o.reason}" for o in work.others]))
        raise click.ClickException(
            f"{folder} contains no picture to retouch: give a folder of photographs"
            + (f"\n{unread}" if unread else "")
        )
    _need_folder(out)
    free = settings.retouch.fidelity if fidelity is None else fidelity
    from gaip3_pipeline.progress import Progress
    from gaip3_pipeline.studio.faces import Studio
    from gaip3_pipeline.studio.novelty import FAR
    from gaip3_pipeline.studio.photographs import retouch_photographs
    from gaip3_pipeline.web.registered import Generators

    try:
        studio = Studio(root, settings, Generators(root).find(None))
        progress = Progress("  retouch", len(work.pictures))
        table = retouch_photographs(studio, work, free, progress)
    except FileNotFoundError as e:
        raise click.ClickException(
            f"{e}: run gaip3 refresh --root {root.path}, or make demo"
        ) from e
    is_left_out = table.outcome.str.startswith(LEFT_OUT)
    for row in table[(table.outcome != "") & ~is_left_out].itertuples():
        click.echo(f"{folder / str(row.file)}: {row.outcome}", err=True)
    lines = [f"{folder / str(r.file)}: {r.outcome}" for r in table[is_left_out].itertuples()]
    for line in at_most(lines):
        click.echo(line, err=True)
    far = table[table.farther_than >= FAR]
    lines = [
        f"{folder / file}: unlike the training pictures, and farther from them than"
        f" {100 * share:.1f} % of the held-out pictures: the result may not fit"
        for file, share in zip(far.file, far.farther_than, strict=True)
    ]
    for line in at_most(lines):
        click.echo(line, err=True)
    used, changed = int((table.picture != "").sum()), int((table.outcome == "").sum())
    click.echo(
        f"{out}: {used} of {work.found} photographs used, {changed} of them changed"
        + (f"; compare in {retouched_photographs(out)[1]}" if used else "")
    )
    copied = table.outcome[(table.picture != "") & (table.outcome != "")]
    for reason, n in copied.value_counts().items():
        click.echo(f"  {n} copied as they are: {reason}")


def _need_generator(root: DataRoot) -> None:
    check()
    if not is_trained(root.nvae):
        raise click.ClickException(
            f"there is no generator in {root.nvae} yet: run gaip3 refresh --root {root.path}, or"
            " make demo"
        )


def _not_in_root(root: DataRoot, out: Path) -> None:
    """Raises if a result would replace a file of the root, or be taken for one."""
    if root.holds(out):
        raise click.ClickException(
            f"{out} is a place of the data root {root.path} itself: choose another one"
        )


def _need_folder(folder: Path) -> None:
    """Make the folder of a result before the work for it. Raises if no file can be written
    there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as e:
        raise click.ClickException(
            f"--out: {folder} cannot be written to ({e.strerror}): choose another folder"
        ) from e


def _generate_again(root: DataRoot, source: Path, out: Path) -> None:
    from gaip3_pipeline.sampling.recipe import RECIPE_BYTES, RecipeError, read_recipe

    context = click.get_current_context()
    given = [
        p
        for p in context.params
        if context.get_parameter_source(p) is click.core.ParameterSource.COMMANDLINE
    ]
    if others := sorted(set(given) - {"path", "out", "source"}):
        raise click.UsageError(
            f"--from takes all settings from the picture: leave out --{others[0].replace('_', '-')}"
        )
    try:
        with source.open("rb") as file:
            recipe = read_recipe(file.read(RECIPE_BYTES))
        check()
        _need_folder(out.parent)
        from gaip3_pipeline.web.registered import Generators

        pair = Generators(root).find(recipe.model, recipe.detail_model)
        from gaip3_pipeline.studio.faces import Studio

        write_bytes_atomically(out, Studio(root, load(root), pair).png(recipe.faces))
    except RecipeError as e:
        raise click.ClickException(f"{source}: {e}") from e
    click.echo(
        f"{out}: {len(recipe.faces)} face{'s' if len(recipe.faces) > 1 else ''} of generator"
        f" {pair.version[:12]}"
    )


@command
@click.argument("name")
def snapshot(root: DataRoot, name: str) -> None:
    """Keep the whole state of the root under NAME.

    That is photographs, labels, settings, everything made from them, and the history. Files are
    linked, not copied, so it takes seconds and little space."""
    from gaip3_pipeline.progress import Progress
    from gaip3_pipeline.setup.snapshots import take

    with _snapshots():
        made = take(root, name, Progress("snapshot", 0))
    click.echo(
        f"{made.name}: {made.files:,} files, {made.bytes / 1e6:,.1f} MB, {made.content[:12]}"
    )


@command
def snapshots(root: DataRoot) -> None:
    """List the snapshots of the root, the oldest first."""
    from gaip3_pipeline.tables.snapshots import snapshots as all_of

    with _snapshots():
        found = all_of(root)
    for s in found:
        click.echo(
            f"{s.created[:19]}  {s.name:20} {s.files:>8,} files {s.bytes / 1e6:>10,.1f} MB "
            f" {s.content[:12]}"
        )
    if not found:
        click.echo(f"{root.path} has no snapshots: gaip3 snapshot NAME makes one")


@command
@click.argument("first")
@click.argument("second")
def diff(root: DataRoot, first: str, second: str) -> None:
    """Show what changed from snapshot FIRST to SECOND.

    Compared are photographs, labels and settings."""
    from gaip3_pipeline.tables.snapshots import compare, described

    with _snapshots():
        click.echo(described(compare(root, first, second)))


@command
@click.argument("name")
def restore(root: DataRoot, name: str) -> None:
    """Make the root what it was at the snapshot NAME.

    Refused while labels, settings or photographs of now are in no snapshot."""
    from gaip3_pipeline.progress import Progress
    from gaip3_pipeline.setup.snapshots import restore as make

    with _snapshots():
        placed, removed = make(root, name, Progress("restore", 0))
    click.echo(f"{name}: {placed:,} files put in place, {removed:,} removed")


@command
@click.argument("url")
@click.argument("name", required=False)
@click.option(
    "--with-pictures/--without-pictures",
    default=None,
    help="Whether photographs and what shows them leave this machine; asked if not given.",
)
def push(root: DataRoot, url: str, name: str | None, with_pictures: bool | None) -> None:
    """Send the snapshot NAME, or the latest one, to URL.

    URL is file:///FOLDER or s3://BUCKET/PREFIX. What is there already is not sent again. Keys come
    from the environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL, AWS_REGION."""
    from gaip3_pipeline.progress import Progress
    from gaip3_pipeline.setup.remote import push as send
    from gaip3_pipeline.tables.snapshots import SnapshotError
    from gaip3_pipeline.tables.snapshots import snapshots as all_of

    with _snapshots():
        if name is None:
            names = [s.name for s in all_of(root)]
            if not names:
                raise SnapshotError(f"{root.path} has no snapshots: gaip3 snapshot NAME makes one")
            name = names[-1]
        if with_pictures is None:
            with_pictures = sys.stdin.isatty() and click.confirm(
                f"Send the photographs, and pictures made from them, to {url}?"
            )
        sent = send(root, name, url, with_pictures, Progress("push", 0))
    left_out = "" if with_pictures else "; photographs and pictures stayed here (--with-pictures)"
    click.echo(
        f"{name}: {sent.files:,} files, {sent.bytes / 1e6:,.1f} MB in {sent.shards} shards sent,"
        f" {sent.known:,} were there{left_out}"
    )


@begins
@click.argument("url")
@click.argument("name", required=False)
def pull(root: DataRoot, url: str, name: str | None) -> None:
    """Fetch the snapshot NAME, or the latest one, from URL.

    Into an empty root it is put in place; elsewhere gaip3 restore NAME does that."""
    from gaip3_pipeline.progress import Progress
    from gaip3_pipeline.setup.remote import Remote, RemoteError
    from gaip3_pipeline.setup.remote import pull as fetch

    with _snapshots():
        if name is None:
            names = [s.name for s in Remote(url).snapshots()]
            if not names:
                raise RemoteError(f"{url} has no snapshots: gaip3 push sends one there")
            name = names[-1]
        got, in_place = fetch(root, url, name, Progress("pull", 0))
    next_step = "it is in place" if in_place else f"gaip3 restore {name} puts it in place"
    click.echo(
        f"{name}: {got.files:,} files, {got.bytes / 1e6:,.1f} MB fetched, {got.known:,} were here;"
        f" {next_step}"
    )


@command
@click.argument("files", metavar="original/FOLDER/FILE…", nargs=-1, required=True)
@click.option("--at", "url", metavar="URL", default="", help="Also at this store of gaip3 push.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def erase(root: DataRoot, files: tuple[str, ...], url: str, yes: bool) -> None:
    """Erase photographs from the root and its snapshots.

    That is the files, pictures made from them, their rows in all tables, labels, and the history.
    What shows them and can be made again is deleted; a refresh makes it again. Trained weights stay
    until then."""
    from gaip3_pipeline.setup.erase import erase as run
    from gaip3_pipeline.setup.erase import prepare, retraining, same_photograph

    with _snapshots():
        erasure = prepare(root, files, url)
        for path in same_photograph(root, erasure):
            click.echo(f"{path} shows the same photograph: erase it too, if it is meant")
        count = "1 photograph" if len(erasure.asked) == 1 else f"{len(erasure.asked)} photographs"
        where = f"{root.path}, its snapshots{f' and {url}' if url else ''}"
        if not yes:
            if not sys.stdin.isatty():
                raise click.ClickException("nobody can be asked here: give --yes")
            click.confirm(f"Erase {count} from {where}? This cannot be undone.", abort=True)
        removed, remains = run(root, erasure, url)
        for line in removed:
            click.echo(line)
        click.echo(f"Erased: {', '.join(erasure.asked)}. What may still hold traces:")
        for line in remains:
            click.echo(f"  {line}")
        click.echo(f"{retraining(root)}\nTo make it again: gaip3 refresh --root {root.path}")


@contextmanager
def _snapshots() -> Iterator[None]:
    """Errors of snapshots as one line."""
    from gaip3_pipeline.refresh.plan import RefreshError
    from gaip3_pipeline.tables.snapshots import SnapshotError
    from gaip3_pipeline.web.servers import ServerError

    try:
        yield
    except (SnapshotError, RefreshError, ServerError) as e:
        raise click.ClickException(str(e)) from e


@command
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False, resolve_path=True))
@click.option(
    "--license",
    "license_id",
    required=True,
    help="The licence of the pictures, by its name on data-set hubs: cc0-1.0, cc-by-4.0, other …",
)
def export_dataset(root: DataRoot, folder: Path, license_id: str) -> None:
    """Write the final images and values as a data set.

    The new FOLDER has the form that data-set hubs read: images/ holds them with a metadata.csv for
    each split, data/ the same as Parquet files, and README.md is the data card, which lists the
    sources."""
    from gaip3_pipeline.progress import Progress
    from gaip3_pipeline.setup.export import ExportError, export

    if not root.manifest("final_dataset").exists():
        raise click.ClickException(f"{root.path} has no final images yet: run gaip3 refresh")
    progress = Progress("pictures", 0)
    try:
        made = export(root, folder, license_id, progress)
    except (ExportError, ValueError) as e:
        raise click.ClickException(str(e)) from e
    counts = ", ".join(f"{split} {n:,}" for split, n in made.pictures.items())
    click.echo(f"{folder}: {sum(made.pictures.values()):,} pictures ({counts})")
    click.echo(f"{made.bytes / 1e6:.1f} MB, faces included: read README.md before you publish it.")


@begins
@click.argument(
    "folder", type=click.Path(path_type=Path, exists=True, file_okay=False, resolve_path=True)
)
@click.option("--dry-run", is_flag=True, help="List what would be moved; change nothing.")
def import_first_run(root: DataRoot, folder: Path, dry_run: bool) -> None:
    """Move the first version's FOLDER into the root."""
    from gaip3_pipeline.tables.first_run import import_first_run as move

    report = move(folder, root, dry_run=dry_run)
    click.echo(report)
    sys.exit(0 if report.complete else 1)


@command
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False)
)
@click.option(
    "--attribute",
    type=click.Choice(ATTRIBUTES),
    help="Import only this attribute; required if the file does not name it.",
)
@click.option("--dry-run", is_flag=True, help="Show what would change; write nothing.")
def import_labels(
    root: DataRoot, files: tuple[Path, ...], attribute: str | None, dry_run: bool
) -> None:
    """Import hand labels from FILES.

    They are CSVs as in labels/, exports of Label Studio (JSON, JSON_MIN, CSV, TSV), or CSVs with
    the columns file,value. The format is recognised by the content. An imported value replaces an
    existing one; the history keeps the old value. If one of the files cannot be used, nothing is
    written."""
    from gaip3_pipeline.tables.label_formats import read_label_file
    from gaip3_pipeline.tables.label_store import LabelStore
    from gaip3_pipeline.tables.names import printable

    store = LabelStore(root)
    read = [read_label_file(path, store.images, attribute) for path in files]
    labels = {a: store.read(a) for found in read for a in found.values}
    for path, found in zip(files, read, strict=True):
        click.echo(f"{printable(str(path))} ({found.format})")
        for line in [*(found.summary(a, labels[a]) for a in found.values), *at_most(found.remarks)]:
            click.echo(f"  {line}")
        if not dry_run:
            store.apply(found.edits(labels), who=f"import {printable(path.name)}")
        for a, values in found.values.items():
            labels[a].update(values)


@command
@click.argument("form", metavar="FORMAT", type=click.Choice(LABEL_EXPORTS))
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--attribute",
    "attributes",
    multiple=True,
    type=click.Choice(ATTRIBUTES),
    help="Export only this attribute; may be repeated.",
)
def export_labels(root: DataRoot, form: str, out: Path, attributes: tuple[str, ...]) -> None:
    """Export the hand labels for other programs to OUT.

    \b
    csv                  the CSVs as in labels/, byte for byte;
                         OUT is a folder, or a .csv for one attribute
    plain                file,value for one attribute;
                         file,eyes,mouth,... for several
    label-studio         every image as a task with its labels,
                         to import into Label Studio
    label-studio-csv     the labels as Label Studio exports them
    label-studio-config  the labeling configuration for the project
                         that imports these tasks

    Label Studio shows the images if it runs with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true
    and LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT set to the data root, and if original/ is the
    project's local source storage."""
    from gaip3_pipeline.tables.label_formats import WRITERS, label_studio_config
    from gaip3_pipeline.tables.label_store import LabelStore

    _not_in_root(root, out)
    if form != "csv" and out.is_dir():
        raise click.ClickException(f"{out} is a folder: give the name of a file in it")
    if form == "label-studio-config":
        write_text_atomically(out, label_studio_config(attributes or ATTRIBUTES))
        click.echo(f"{out}: paste it into the project's settings under Labeling Interface, Code")
        return
    store = LabelStore(root)
    found = {a: store.read(a) for a in attributes or ATTRIBUTES}
    labels = {a: values for a, values in found.items() if values}
    if not labels or (attributes and len(labels) < len(found)):
        lacking = next(a for a, values in found.items() if not values)
        raise click.ClickException(
            f"there are no labels of {lacking} in {root.hand_labels(lacking)}: label images or"
            " import labels first"
        )
    if form == "csv":
        _copy_label_files(root, list(labels), out)
        return
    images = {
        (sex, stem): root.relative(path)
        for sex, of_sex in store.images.items()
        for stem, path in of_sex.items()
    }
    write_text_atomically(out, WRITERS[form](labels, images))
    for a, values in labels.items():
        lost = len(values.keys() - images)
        click.echo(
            f"{out}: {len(values) - lost} labels of"
            f" {a}{f', {lost} left out (no such image)' if lost else ''}"
        )


def _copy_label_files(root: DataRoot, attributes: list[str], out: Path) -> None:
    if out.suffix == ".csv" and len(attributes) > 1:
        raise click.ClickException(
            f"{out} is one file, but there is a CSV for each of {', '.join(attributes)}: give a"
            " folder, or one attribute with --attribute"
        )
    for a in attributes:
        path = out if out.suffix == ".csv" else out / root.hand_labels(a).name
        write_bytes_atomically(path, root.hand_labels(a).read_bytes())
        click.echo(path)


@command
@click.argument("paths", nargs=-1)
@click.option(
    "--reason",
    help="Stored in the list and in the manifest [default: by hand, or near-duplicate].",
)
@click.option(
    "--duplicates", is_flag=True, help="Drop all but the best of each group of near-duplicates."
)
@click.option("--undo", is_flag=True, help="Restore PATHS.")
def drop(
    root: DataRoot, paths: tuple[str, ...], reason: str | None, duplicates: bool, undo: bool
) -> None:
    """Exclude photographs from the data set.

    They are listed in curation/dropped.csv; run gaip3 refresh afterwards. PATHS are original or
    resized pictures, relative to the data root or to the current folder. Nothing is deleted; --undo
    restores them."""
    from gaip3_pipeline.tables.dropping import DropError, change_dropped, worse_duplicates

    try:
        wanted = [*paths, *(worse_duplicates(root) if duplicates else [])]
        if not wanted:
            raise click.ClickException(
                "no group has more than one picture"
                if duplicates
                else "give the paths of pictures, or --duplicates"
            )
        changed = change_dropped(
            root, wanted, reason or ("near-duplicate" if duplicates else "by hand"), undo
        )
    except DropError as e:
        raise click.ClickException(str(e)) from e
    for path in changed:
        click.echo(f"{'brought back' if undo else 'dropped'}: {path}")
    done = (
        f"{len(changed)} {'brought back' if undo else 'dropped'}; run gaip3 refresh --root"
        f" {root.path} to update the assets downstream"
    )
    click.echo(done if changed else "nothing changed")


@begins
def fetch(root: DataRoot) -> None:
    """Download the two public Kaggle data sets."""
    from gaip3_pipeline.setup.fetch import FetchError
    from gaip3_pipeline.setup.fetch import fetch as download

    try:
        download(root, click.echo)
    except FetchError as e:
        raise click.ClickException(str(e)) from e


@begins
def doctor(root: DataRoot) -> None:
    """List what this machine and the root lack."""
    from gaip3_pipeline.setup.doctor import doctor as examine

    _print_findings(examine(root))


@command
@click.argument("action", type=click.Choice(["check"]))
@click.option(
    "--on",
    "address",
    metavar="ADDRESS",
    help="The cluster's job server, http://HEAD:8265 [default: settings].",
)
def cluster(root: DataRoot, action: str, address: str | None) -> None:
    """Check every machine of the Ray cluster.

    One line for each thing that its steps need, with the remedy."""
    from gaip3_pipeline.setup.cluster_check import check_cluster

    if address:
        os.environ[ADDRESS] = address
    _print_findings(check_cluster(root, load(root)))


def _print_findings(findings: Iterator[Any]) -> None:
    """Print findings of the doctor as they are made, and end with 1 if something is missing."""
    missing = 0
    for finding in findings:
        click.echo(finding)
        missing += finding.state == "missing"
    sys.exit(1 if missing else 0)


@command
@click.argument("action", type=click.Choice(["move"]))
@click.option(
    "--dagster",
    default="",
    help="The empty database for Dagster's history: postgresql+psycopg2://USER@HOST/DATABASE, or"
    " env:NAME if the environment variable NAME has the URL.",
)
@click.option("--mlflow", default="", help="The same for MLflow's runs and registered models.")
@click.option("--dry-run", is_flag=True, help="Count what would be copied; write nothing.")
def storage(root: DataRoot, action: str, dagster: str, mlflow: str, dry_run: bool) -> None:
    """Move the root's history into Postgres.

    It is copied from the root's sqlite files, which stay, and continues there."""
    from gaip3_pipeline.refresh.plan import RefreshError
    from gaip3_pipeline.setup.storage import kept, move
    from gaip3_pipeline.web.servers import ServerError

    if not dagster and not mlflow:
        raise click.UsageError("give --dagster, --mlflow or both")
    try:
        moved = move(root, dagster, mlflow, dry_run)
    except (RefreshError, ServerError) as e:
        raise click.ClickException(str(e)) from e
    click.echo(f"{'table':40} {'before':>9} {'after':>9}")
    for row in moved:
        after = "" if row.after is None else f"{row.after:,}"
        click.echo(f"{f'{row.package} {row.table}':40} {row.before:>9,} {after:>9}")
    if dry_run:
        click.echo("nothing was written")
    else:
        files = ", ".join(str(path) for path in kept(root, bool(dagster), bool(mlflow)))
        click.echo(
            f"{root.settings_file} names the databases now. The old ones are not used any more and"
            f" stay as a backup: {files}"
        )


def _refresh(
    root: DataRoot,
    select: list[str] | None,
    verify: bool = False,
    again: tuple[str, ...] = (),
    config: dict[str, dict[str, Any]] | None = None,
) -> None:
    """Materialise what is stale.

    SIGTERM interrupts it as Ctrl-C does. Both handlers are set explicitly, since a shell that
    starts a command in the background makes it ignore SIGINT."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    check_history(root.dagster_runs, root.dagster_events)
    check_writable(root.databases)
    store = _dagsters_database(root)
    settings = load(root)
    cluster = address_of(settings)
    if cluster:
        usable(settings)
    ensure_dagster_home(root)
    import dagster as dg

    with (
        in_one_line(store),
        dg.DagsterInstance.get() as instance,
        _definitions(root) as definitions,
    ):
        from gaip3_pipeline.definitions import tracking_of
        from gaip3_pipeline.refresh.record import headlines
        from gaip3_pipeline.refresh.run import refresh as run

        tracking, started = tracking_of(root, settings), time.monotonic()
        outcome = run(
            definitions,
            instance,
            root,
            tracking,
            select=select,
            again=again,
            config=config,
            verify=verify,
            cluster=cluster,
            say=click.echo,
        )
        if settings.snapshots.automatic:
            _snapshot_after_refresh(root)
        if not outcome.materialized:
            return
        whole = time.monotonic() - started
        click.echo(f"{len(outcome.materialized)} assets made in {whole:.0f} s")
        for name, seconds in outcome.seconds.items():
            click.echo(f"  {seconds:8.1f} s  {name}")
        changed = headlines(outcome.results)
        if changed:
            known = any(f["before"] is not None for r in outcome.results for f in r["figures"])
            click.echo("\n".join(["Before → after:" if known else "Figures:", *changed]))
        if outcome.failed_checks:
            click.echo(
                "\n".join([f"{len(outcome.failed_checks)} checks failed:", *outcome.failed_checks])
            )


def _snapshot_after_refresh(root: DataRoot) -> None:
    """Take a snapshot if the content of the root changed; a refresh does not fail by it."""
    from gaip3_pipeline.setup.snapshots import take_automatically

    try:
        with _snapshots():
            made = take_automatically(root)
    except (click.ClickException, OSError) as e:
        click.echo(f"no snapshot was taken: {e}", err=True)
        return
    if made:
        click.echo(f"snapshot {made.name}: {made.files:,} files, {made.content[:12]}")


def _show_plan(root: DataRoot, select: list[str] | None, verify: bool, as_json: bool) -> None:
    from gaip3_pipeline.dagster_storage import reading_instance

    with (
        in_one_line(_dagsters_database(root)),
        reading_instance(root) as instance,
        _definitions(root) as definitions,
    ):
        from gaip3_pipeline.refresh.plan import check_selection, describe, forecast, plan
        from gaip3_pipeline.refresh.record import begun
        from gaip3_pipeline.refresh.run import check_owner, observe_only

        check_owner(instance, root)
        check_selection(definitions, select)
        planned = forecast(
            instance,
            root,
            plan(definitions, instance, observe_only(instance, root, verify), select),
            begun(root),
        )
        content = {
            "summary": planned.summary,
            "plan": planned.steps,
            "label_changes": planned.label_changes,
            "seconds": planned.seconds,
        }
        click.echo(json.dumps(content, ensure_ascii=False) if as_json else describe(planned))


def _dagsters_database(root: DataRoot) -> Store | None:
    """The database in Postgres with the history of ``root``, after a check that it can be used;
    None for the root's own files."""
    store = dagster_store(root)
    if store:
        store.check()
    return store


def _is_text(path: Path) -> bool:
    """Whether the name is valid UTF-8, as URLs, JSON and YAML need it."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def _definitions(root: DataRoot) -> Iterator[Any]:
    """The definitions of a root. A :class:`RefreshError` inside is reported in one line."""
    from gaip3_pipeline.definitions import build_defs
    from gaip3_pipeline.refresh.plan import RefreshError

    try:
        yield build_defs(root, load(root), in_process=True)
    except RefreshError as e:
        raise click.ClickException(str(e)) from e


if __name__ == "__main__":
    main()

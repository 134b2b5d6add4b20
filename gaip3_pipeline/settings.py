"""Typed, frozen settings with their defaults; ``gaip3.toml`` holds presets and the user's changes.

Resolution, later wins: the defaults below, the preset's tables in the repository's
``gaip3.toml`` (``[presets.NAME.SECTION]``), the preset's tables in the root's file, and the
``[SECTION]`` tables of the file that belongs to the root. A model's ``code_version`` holds the
hash of its *resolved* section, so editing one preset does not affect the others."""

import dataclasses
import hashlib
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.layout import SETTINGS_FILE, DataRoot
from gaip3_pipeline.stores import check_setting, variable

BEFORE = "before"
_CONFLICT = re.compile(r"^(<{7}|={7}|>{7})", re.MULTILINE)  # of a version control system


def added(default: Any, before: Any = dataclasses.MISSING) -> Any:
    """Declare a setting that was added after data roots exist. While it has its default, it is left
    out of hashes, so code versions of existing roots do not change.

    If the default changes later, ``before`` is the value that gives the behaviour from before the
    setting existed; then only that value is left out of hashes."""
    return field(
        default=default, metadata={BEFORE: default if before is dataclasses.MISSING else before}
    )


class SettingsError(ValueError):
    """A settings file that cannot be used: names the file, the key and the remedy."""


@dataclass(frozen=True)
class Faces:
    """The built-in synthetic faces (``gaip3 demo``)."""

    d1: int = 600
    female: int = 400
    male: int = 300
    size: int = 256  # side of the square originals in pixels
    seed: int = 7


@dataclass(frozen=True)
class Images:
    """Cutting, resizing and brightness copies."""

    crop: float = 0.09375  # share of the width cut off each side
    height: int = 128
    width: int = 104
    jpeg_quality: int = 95
    # larger pictures are refused before decoding; decoding one of this size takes about 0.5 GB
    max_pixels: int = 50_000_000
    max_unusable_share: float = 0.05  # more than this fails the check


@dataclass(frozen=True)
class FinalDataset:
    """Which images train the generator."""

    threshold: float = 0.9999  # P(female), read as float64 from the CSV


@dataclass(frozen=True)
class GenderModel:
    """The classifier of sex: ``folds`` models, each trained on the other folds."""

    height: int = 64
    width: int = 52
    folds: int = 5
    epochs: int = 60
    batch_size: int = 16
    learning_rate: float = 1e-3
    width_multiplier: float = 1.0
    dropout: float = 0.4
    shift: int = 2  # augmentation: up to this many pixels at the model's size
    jitter: float = 0.2  # augmentation: contrast ± this share, brightness ± half of it
    seed: int = 1


@dataclass(frozen=True)
class InputModel:
    """The Gaussian process of one attribute. The relevance of each region is learned and needs no
    setting."""

    # least noise variance of a label, as a share of the labels' variance; two people's labels
    # differ by .08 to .18
    least_noise: float = 0.08
    # relevances are learned from at most this many labels; with 400, R² of head falls by .006
    relevance_labels: int = 800


@dataclass(frozen=True)
class Network:
    """A convolutional regressor of values."""

    height: int = 64
    width: int = 52
    epochs: int = 60
    batch_size: int = 16
    learning_rate: float = 1e-3
    width_multiplier: float = 1.0
    dropout: float = 0.5  # few labels: on the photographs R² of head is .74; at 0.3 it is .72
    shift: int = 2  # augmentation: up to this many pixels at the model's size
    jitter: float = 0.1  # augmentation: contrast ± this share, brightness ± half of it
    # augmentation: half of the pictures are blurred, with at most this standard deviation in pixels
    # at the model's size
    blur: float = 0.0
    seed: int = 1


@dataclass(frozen=True)
class ControlRegressor(Network):
    """The regressor of all five attributes for the generator's training and for retouching. It
    learns the input models' predictions for the final images."""

    epochs: int = 14
    dropout: float = 0.3
    blur: float = 1.2  # as for the evaluators: generated pictures are soft
    seed: int = 11


@dataclass(frozen=True)
class Evaluator(Network):
    """A regressor of one value that only measures generated pictures: one section for all five."""

    # Generated pictures are softer than photographs. Without blurred pictures in training,
    # regressors of exact values predicted .28 (nearly closed) for reconstructions of half-open eyes
    # (.50).
    blur: float = 1.2
    seed: int = 101  # differs from that of the control regressor


PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True)
class Nvae:
    """The generator (models/nvae). Tuples hold one number per scale, 1×1 first."""

    height: int = 64
    width: int = 52
    stem: int = 2  # the finest scale is the picture divided by this
    # cells: "dense", or "paper" (depthwise 5×5, batch normalisation, squeeze and excitation)
    cell: str = "dense"
    likelihood: str = "logistics"  # or "bernoulli", for black and white pictures
    channels: tuple = (192, 128, 128, 96, 64, 32)
    # channels of z; few on fine scales, since a short training cannot learn their prior well
    latents: tuple = (96, 0, 8, 2, 1, 0)
    # residual cells per scale; where a scale has latents, a latent group precedes each of its cells
    cells: tuple = (1, 0, 1, 1, 1, 1)
    # weights of the KL, in force to the end of the training: the KL of fine scales is weighted more
    kl_weights: tuple = (1.0, 1.0, 4.0, 16.0, 32.0, 1.0)
    mixtures: int = 1  # discretised logistics per pixel
    condition_width: int = 64
    condition_dropout: float = 0.1  # share of training pictures shown with the null condition
    shift: int = 0  # augmentation: up to this many pixels
    epochs: int = 60  # at most
    # stop this many epochs after the best one on the validation split and use its weights; 0: train
    # for all epochs
    patience: int = 0
    batch_size: int = 32
    learning_rate: float = 5e-3
    warmup: float = 0.05  # share of the steps in which the learning rate rises
    kl_warmup: float = 0.3  # share of the steps in which the weight of the KL rises
    clip_norm: float = 1.0  # limit of the norm of the whole gradient
    # an update whose gradient norm exceeds this many times the running mean is skipped and counted
    spike: float = 10.0
    # weight of the control loss, the squared error of the control regressor's predictions for
    # samples; 0 disables it
    control: float = 1.0
    spectral: float = 0.01  # weight of the spectral regularisation, per picture in nats
    ema: float = 0.995
    # of matrix products and convolutions in the training: "float32", "bfloat16", or "auto":
    # bfloat16 on GPUs, float32 on CPUs
    precision: str = added("auto")
    seed: int = 1

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"precision = {self.precision!r} is not one of {', '.join(PRECISIONS)}"
            )


@dataclass(frozen=True)
class Detail:
    """The detail network and its discriminator (models/detail). Tuples hold one number per
    scale, the full size first."""

    channels: tuple = (16, 32, 48, 64)
    # channels of the discriminator's convolutions: two at half of the size, one at each smaller
    # scale
    discriminator: tuple = (64, 64, 96, 128)
    epochs: int = 50
    steps: int = 100  # updates in each epoch
    batch_size: int = 16  # samples, and as many reconstructions
    learning_rate: float = 3e-4  # of both networks
    low: float = 5.0  # weight of the change at a quarter of the size
    near: float = 2.0  # weight of a reconstruction's distance to its picture
    values: float = 1.0  # weight of the error of the five values
    augmentation: float = 0.5  # strength of the discriminator's colour augmentation
    ema: float = 0.995
    seed: int = 1


@dataclass(frozen=True)
class Samples:
    """How samples are drawn from the generator."""

    n: int = 64
    # By distances to held-out photographs and coverage (docs/experiments/0013):
    # at guidance 1 samples look alike and small features move too little, at 2 hair and background
    # overshoot.
    temperature: float = 1.0
    guidance: float = 1.5
    # how much of the detail network's change is added, 0 to 1; 0: the decoder's mean
    detail: float = 1.0
    seed: int = 7


@dataclass(frozen=True)
class Critic:
    """The classifiers of real against generated: the guide and the judge."""

    epochs: int = 12
    batch_size: int = 32
    learning_rate: float = 1e-3
    width_multiplier: float = 1.0
    dropout: float = 0.2
    shift: int = 2  # augmentation: up to this many pixels
    jitter: float = 0.1  # augmentation: contrast ± this share, brightness ± half of it
    noise: float = 0.03  # augmentation: largest standard deviation of the noise, pixels in 0..1
    seed: int = 1


ASCENT, TRANSPORT, NOISE_CONTRASTIVE = "ascent", "transport", "noise_contrastive"
RETOUCHING_METHODS = (ASCENT, TRANSPORT, NOISE_CONTRASTIVE)
REMOVED_METHODS = ("rejection", "temperature", "repair")


@dataclass(frozen=True)
class Retouch:
    """Refinement of samples in latent space, by one of the methods of retouching/methods.py."""

    # or transport or noise_contrastive, which only correct latents drawn from the bare prior
    method: str = ASCENT
    # Strength of the change, 0 to 1: 0 leaves samples as they are. The trade-off against
    # identity: docs/experiments/0028.
    fidelity: float = 0.75
    steps: int = 6  # proposals per sample, for methods that make several
    # Of ascent, at fidelity .5. By the judges (docs/experiments/0023): larger steps move
    # samples past what is real, AUC far below .5.
    step_size: float = 0.03  # of the first step, in standard deviations of the prior; falls to 0
    prior_weight: float = 30.0  # penalty on the mean square distance from the latents drawn
    values_weight: float = 20.0  # penalty on the squared change of the five values
    # penalty on the mean square change of the picture at a quarter of its size
    identity_weight: float = 0.0
    batch_size: int = 32

    def __post_init__(self) -> None:
        known = ", ".join(RETOUCHING_METHODS)
        if self.method in REMOVED_METHODS:
            raise ValueError(f"method = {self.method!r} was removed; use one of {known}")
        if self.method not in RETOUCHING_METHODS:
            raise ValueError(f"method = {self.method!r} is not one of {known}")


def _check_store(package: str, key: str, value: str) -> None:
    try:
        check_setting(package, value)
    except ValueError as e:
        raise ValueError(f"{key}: {e}") from None


@dataclass(frozen=True)
class Tracking:
    """MLflow. ``uri``: a server, ``postgresql+psycopg2://…``, or ``env:NAME`` for the value of an
    environment variable. Empty: the root's own sqlite store."""

    enabled: bool = True
    uri: str = ""

    def __post_init__(self) -> None:
        _check_store("mlflow", "uri", self.uri)


@dataclass(frozen=True)
class Storage:
    """Dagster's store of runs and events: a Postgres database, ``postgresql+psycopg2://…`` or
    ``env:NAME``. Empty: the root's own sqlite store."""

    dagster: str = added("")

    def __post_init__(self) -> None:
        _check_store("dagster", "dagster", self.dagster)


@dataclass(frozen=True)
class Snapshots:
    """``automatic``: a refresh that has finished takes a snapshot if photographs, labels, curation
    or settings changed since the latest one."""

    automatic: bool = added(False)


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster that runs the steps. Empty ``address``: every step runs on this machine."""

    address: str = added("")  # of Ray's job server, http://HEAD:8265
    chunk: int = added(64)  # pictures in a task of image work and scoring, at least 32
    cpus: float = added(1.0)  # that a training asks for
    gpus: float = added(0.0)
    workers: int = added(1)  # processes of a data-parallel training


@dataclass(frozen=True)
class Settings:
    """All sections, resolved."""

    preset: str = "seed"
    faces: Faces = Faces()
    images: Images = Images()
    gender_model: GenderModel = GenderModel()
    final_dataset: FinalDataset = FinalDataset()
    input_model: dict[str, InputModel] = field(
        default_factory=lambda: {a: InputModel() for a in ATTRIBUTES}
    )
    control_regressor: ControlRegressor = ControlRegressor()
    nvae: Nvae = Nvae()
    detail: Detail = Detail()
    evaluator: Evaluator = Evaluator()
    samples: Samples = Samples()
    critic: Critic = Critic()
    retouch: Retouch = Retouch()
    tracking: Tracking = Tracking()
    storage: Storage = Storage()
    snapshots: Snapshots = Snapshots()
    cluster: Cluster = Cluster()


SECTIONS: dict[str, type] = {
    f.name: f.type
    for f in dataclasses.fields(Settings)
    if f.name not in ("preset", "input_model") and isinstance(f.type, type)
} | {"input_model": InputModel, **{f"input_model_{a}": InputModel for a in ATTRIBUTES}}


def load(root: DataRoot) -> Settings:
    """The settings in force for ``root``. Raises :class:`SettingsError`."""
    shared = _read(SETTINGS_FILE)
    own = shared if root.settings_file == SETTINGS_FILE else _read(root.settings_file)
    preset = own.get("preset", "seed")
    tables = [
        shared.get("presets", {}).get(preset, {}),
        own.get("presets", {}).get(preset, {}),
        _sections(own),
    ]
    if preset not in {**shared.get("presets", {}), **own.get("presets", {})}:
        raise SettingsError(
            f"{root.settings_file}: preset {preset!r} is not defined; use one of"
            f" {sorted(shared.get('presets', {}))}"
        )
    return resolve(preset, tables, root.settings_file)


def of_preset(preset: str) -> Settings:
    """The settings of a preset of the repository's own file, without the user's changes. Raises
    :class:`SettingsError`."""
    presets = _read(SETTINGS_FILE).get("presets", {})
    if preset not in presets:
        raise SettingsError(f"preset {preset!r} is not defined; use one of {sorted(presets)}")
    return resolve(preset, [presets[preset]])


def resolve(preset: str, tables: list[dict[str, Any]], source: Path | str = "settings") -> Settings:
    """Apply ``tables`` (section name to key to value) to the defaults in order; later tables
    override earlier ones. Raises :class:`SettingsError`."""
    merged: dict[str, dict[str, Any]] = {}
    for table in tables:
        for name, values in table.items():
            if name not in SECTIONS:
                raise SettingsError(
                    f"{source}: unknown section [{name}]; known: {', '.join(sorted(SECTIONS))}"
                )
            merged.setdefault(name, {}).update(values)
    plain = {
        n: _section(SECTIONS[n], merged.get(n, {}), n, source)
        for n in SECTIONS
        if not n.startswith("input_model")
    }
    common = merged.get("input_model", {})
    inputs = {
        a: _section(
            InputModel, common | merged.get(f"input_model_{a}", {}), f"input_model_{a}", source
        )
        for a in ATTRIBUTES
    }
    return Settings(preset=preset, input_model=inputs, **plain)


def with_values(
    settings: Settings, name: str, values: dict[str, Any], source: Path | str
) -> Settings:
    """``settings`` with ``values`` in the section ``name``; ``source`` is named in messages. Raises
    :class:`SettingsError`."""
    section = getattr(settings, name)
    made = _section(type(section), {**vars(section), **values}, name, source)
    return dataclasses.replace(settings, **{name: made})


def variables_of(settings: Settings) -> list[str]:
    """The environment variables that ``env:NAME`` in the settings refers to."""
    named = (settings.tracking.uri, settings.storage.dagster)
    return [variable(text) for text in named if variable(text)]


def section_hash(*sections: Any) -> str:
    """Eight hex digits of the hash of resolved sections (dataclass instances), without settings
    declared by :func:`added` that have the value from before they were added."""
    text = json.dumps([_hashed(s) for s in sections], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _hashed(section: Any) -> dict[str, Any]:
    values = dataclasses.asdict(section)
    before = {
        f.name: f.metadata[BEFORE] for f in dataclasses.fields(section) if BEFORE in f.metadata
    }
    return {k: v for k, v in values.items() if k not in before or v != before[k]}


def nvae_of(values: Mapping[str, Any]) -> Nvae:
    """The section ``[nvae]`` from JSON, which has lists for tuples."""
    given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return Nvae(**given)


def flatten(section: Any, prefix: str = "") -> dict[str, Any]:
    """A section as flat parameters, ``name.name`` to value, as MLflow wants them."""
    flat: dict[str, Any] = {}
    for key, value in dataclasses.asdict(section).items():
        flat |= (
            {f"{prefix}{key}.{k}": v for k, v in value.items()}
            if isinstance(value, dict)
            else {f"{prefix}{key}": value}
        )
    return flat


def _sections(table: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in table.items() if k not in ("preset", "presets")}


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        text = path.read_text(encoding="utf-8").lstrip("\ufeff")
    except UnicodeDecodeError as e:
        raise SettingsError(f"{path}: not UTF-8 (byte {e.start}); save it as UTF-8") from e
    if "\0" in text:
        raise SettingsError(f"{path}: a NUL byte, so it is not text in UTF-8; save it as UTF-8")
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        conflict = _CONFLICT.search(text)
        if conflict:
            line = text.count("\n", 0, conflict.start()) + 1
            raise SettingsError(
                f"{path}, line {line}: a merge conflict; keep the lines that are right and remove"
                " those that begin with <<<<<<<, ======= and >>>>>>>"
            ) from e
        raise SettingsError(f"{path}: not valid TOML: {e}") from e


def _section(kind: type, values: dict[str, Any], name: str, source: Path | str) -> Any:
    fields = {f.name: f for f in dataclasses.fields(kind)}
    out = {}
    for key, value in values.items():
        if key not in fields:
            raise SettingsError(
                f"{source}: [{name}] has no setting {key!r}; known: {', '.join(fields)}"
            )
        default = fields[key].default
        try:
            out[key] = _as_type_of(default, value)
        except TypeError as e:
            raise SettingsError(
                f"{source}: [{name}] {key} = {value!r} must be of type {type(default).__name__},"
                f" such as {default!r}"
            ) from e
    try:
        return kind(**out)
    except ValueError as e:
        raise SettingsError(f"{source}: [{name}] {e}") from e


def _as_type_of(default: Any, value: Any) -> Any:
    """``value`` of a settings file in the type of ``default``, also in lists, so that ``1`` and
    ``1.0`` are the same setting with the same hash. Raises ``TypeError``."""
    if isinstance(default, tuple) and isinstance(value, list):
        return tuple(_as_type_of(default[0], v) for v in value)
    if {type(default), type(value)} == {int, float} and float(value).is_integer():
        return type(default)(value)
    if type(value) is not type(default):
        raise TypeError
    return value

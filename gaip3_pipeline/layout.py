"""Every path of a data root and of the repository, by name. Other modules take paths from here;
``test_layout.py`` enforces this and lists two exceptions.

A data root holds all the state of one data set, including its Dagster home and its MLflow store in
``ROOT/.gaip3/``. For the root ``data/`` these lie in the repository's ``.gaip3/``, which
``dagster.yaml`` names as well. Two roots therefore share no state."""

import glob
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "gaip3_pipeline"
SETTINGS_FILE = REPOSITORY / "gaip3.toml"
DAGSTER_TEMPLATE = REPOSITORY / "dagster.yaml"
LOCK_FILE = REPOSITORY / "uv.lock"
ASSET_LIST = REPOSITORY / "docs" / "architecture.md"  # its section "The asset graph"
# default roots: DEMO of `gaip3 demo`, DATA of all other commands
DATA, DEMO = REPOSITORY / "data", REPOSITORY / "demo"
# start weights of the detail network, written by bench/detail.py
DETAIL_START = PACKAGE / "models" / "detail_start.npz"
# Keras's settings; Keras also looks for this name in the folder that KERAS_HOME names
KERAS_SETTINGS = PACKAGE / "models" / "keras.json"
# Matplotlib's settings; Matplotlib also looks for this name in the current folder
MATPLOTLIB_SETTINGS = PACKAGE / "evaluation" / "matplotlibrc"
LANDMARK_NETWORKS = PACKAGE / "features" / "mediapipe"
PAGE = PACKAGE / "web" / "page"
INDEX = PAGE / "index.html"
IMAGE_SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".png",
    ".webp",
    ".bmp",
    ".tif",
    ".tiff",
    ".avif",
)


def users_keras_settings() -> Path:
    """The file of Keras's settings in the user's home, which other projects read."""
    return Path.home() / ".keras" / "keras.json"


@dataclass(frozen=True)
class ImageSet:
    """One of the three source sets: its short id, its folder of processed images, the folder of its
    originals, and its sex (None where it is not known)."""

    id: str
    folder: str
    original: str
    sex: str | None


IMAGE_SETS = (
    ImageSet("d1", "10k-images", "thispersondoesnotexist.10k", None),
    ImageSet("d2_female", "female", "ThisPersonDoesNotExist/Female", "female"),
    ImageSet("d2_male", "male", "ThisPersonDoesNotExist/Male", "male"),
)
SET_OF_SEX = {s.sex: s for s in IMAGE_SETS if s.sex}  # the sets with hand labels
OWN_FOLDERS = (
    "original", "resized", "augmented", "final", "labels", "curation", "review", "manifests",
    "models", "packed", "predictions", "samples", "retouched", "report", "logs",
)  # fmt: skip
MALE_FOLDERS = {s.folder for s in IMAGE_SETS if s.sex == "male"}  # no picture of them is final
KINDS = ("resized", "augmented")


@dataclass(frozen=True)
class DataRoot:
    """The paths of one data root."""

    path: Path

    @property
    def is_repository_data(self) -> bool:
        return self.path.resolve() == DATA.resolve()

    @property
    def exists(self) -> bool:
        """Whether the folder holds anything of a data root: photographs, labels, models, settings
        or state."""
        parts = (self.originals, self.labels, self.nvae.parent, self.settings_file, self.state)
        return self.is_repository_data or any(part.exists() for part in parts)

    def holds(self, path: Path) -> bool:
        """Whether ``path`` is a file of the root, or in one of its folders. What is written for
        other uses does not belong there."""
        place = path.resolve()
        own = [self.settings_file, self.state, *(self.path / name for name in OWN_FOLDERS)]
        return any(place.is_relative_to(p.resolve()) for p in own)

    @property
    def places(self) -> list[Path]:
        """The folders below which all files of this root lie."""
        return [self.path, *([self.state] if self.is_repository_data else [])]

    # state
    @property
    def state(self) -> Path:
        """Dagster's storage, MLflow's store, hash caches: everything that is not an artefact."""
        return REPOSITORY / ".gaip3" if self.is_repository_data else self.path / ".gaip3"

    @property
    def dagster_home(self) -> Path:
        """The folder of the ``dagster.yaml`` that names the folders in ``state``.

        Dagster takes the path of that file for a glob pattern. If a folder has a ``*``, ``?`` or
        ``[`` in its name, the file is therefore in the user's cache."""
        path = str(self.state.absolute())
        if glob.escape(path) == path:
            return self.state
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        name = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
        return cache / "gaip3" / "dagster" / name

    @property
    def dagster_storage(self) -> Path:
        return self.state / "dagster"

    @property
    def dagster_runs(self) -> Path:
        """Dagster's database of runs."""
        return self.dagster_storage / "history" / "runs.db"

    @property
    def dagster_events(self) -> Path:
        """Dagster's database of assets; beside it there is one for each run."""
        return self.dagster_storage / "history" / "runs" / "index.db"

    @property
    def dagster_schedules(self) -> Path:
        return self.dagster_storage / "schedules" / "schedules.db"

    @property
    def databases(self) -> list[Path]:
        """The databases that a refresh writes to."""
        return [
            self.dagster_runs,
            self.dagster_events,
            self.dagster_schedules,
            self.mlflow_db,
            self.hash_cache,
        ]

    @property
    def mlflow_db(self) -> Path:
        return self.state / "mlflow.db"

    @property
    def mlflow_artifacts(self) -> Path:
        return self.state / "mlartifacts"

    @property
    def hash_cache(self) -> Path:
        return self.state / "hashes.sqlite"

    @property
    def cluster_files(self) -> Path:
        """Files by which the nodes of a cluster show that they share this root."""
        return self.state / "cluster"

    def step_progress(self, asset: str) -> Path:
        """The progress of an asset's step that runs on another machine."""
        return self.state / "progress" / f"{asset}.json"

    def sweep_point(self, sweep: str, number: int) -> Path:
        """The folder of one training of a sweep."""
        return self.state / "sweeps" / sweep / str(number)

    def sweep_lock(self, sweep: str) -> Path:
        """Locked while a process runs the sweep."""
        return self.state / "sweeps" / sweep / "lock"

    @property
    def identity(self) -> Path:
        """A number by which a database knows whose history it holds."""
        return self.state / "root.id"

    @property
    def refresh_lock(self) -> Path:
        """Locked while a process refreshes the root; holds its pid and host."""
        return self.state / "refresh.lock"

    @property
    def compiled(self) -> Path:
        """The programs that JAX compiled."""
        return self.state / "compiled"

    @property
    def heartbeats(self) -> Path:
        """A file for each process that works on the root, which the process touches every few
        seconds."""
        return self.state / "heartbeats"

    @property
    def snapshots(self) -> Path:
        """Snapshots of the root: a JSON file for each, and the contents of their files."""
        return self.state / "snapshots"

    def snapshot(self, name: str) -> Path:
        """The file of a snapshot."""
        return self.snapshots / f"{name}.json"

    def unfinished_pull(self, name: str) -> Path:
        """There while a pulled snapshot is put in place."""
        return self.snapshots / f"{name}.pulling"

    @property
    def snapshot_files(self) -> Path:
        """The contents of all snapshots, by their hashes."""
        return self.snapshots / "files"

    @property
    def erasing(self) -> Path:
        """What ``gaip3 erase`` is erasing, until it is done."""
        return self.state / "erasing.json"

    @property
    def refreshes(self) -> Path:
        """Records of the latest refreshes (plan, progress, changes): a JSON file and a folder of
        pictures for each."""
        return self.state / "refreshes"

    def server_log(self, name: str) -> Path:
        """The output of a server of ``gaip3 ui``; ``name`` is ``code``, ``dagster``, ``daemon`` or
        ``mlflow``."""
        return self.state / "ui" / f"{name}.log"

    @property
    def refresh_log(self) -> Path:
        """The output of a refresh that was started from a page."""
        return self.state / "ui" / "refresh.log"

    @property
    def downloads(self) -> Path:
        """Downloaded archives that are not yet unpacked into ``original/``."""
        return self.state / "downloads"

    @property
    def ui_lock(self) -> Path:
        """Locked while ``gaip3 ui`` serves the root; contains the links to its pages."""
        return self.state / "ui" / "lock"

    @property
    def labels_lock(self) -> Path:
        """Locked by a process while it reads or writes hand labels."""
        return self.state / "labels.lock"

    @property
    def settings_file(self) -> Path:
        """The root's own settings, which override the repository's. The root ``data/`` uses the
        repository's ``gaip3.toml`` itself."""
        return SETTINGS_FILE if self.is_repository_data else self.path / "gaip3.toml"

    # images
    @property
    def originals(self) -> Path:
        return self.path / "original"

    def original(self, image_set: ImageSet) -> Path:
        return self.originals / image_set.original

    def processed(self, kind: str, image_set: ImageSet) -> Path:
        """``resized/{folder}`` or ``augmented/{folder}``."""
        return self.path / kind / image_set.folder

    def resized_picture(self, sex: str, stem: str) -> Path:
        """The resized image of an original that has hand labels."""
        return self.processed("resized", SET_OF_SEX[sex]) / f"{stem}.jpg"

    @property
    def truth(self) -> Path:
        """The exact values of the painted faces, for tests and benchmarks; no asset reads them."""
        return self.originals / "truth.csv"

    @property
    def final(self) -> Path:
        return self.path / "final"

    @property
    def packed_final(self) -> Path:
        """``(N, H, W, 3) uint8`` of the final images in the order of the final dataset's
        manifest."""
        return self.path / "packed" / "final.npy"

    # curation
    @property
    def near_duplicates(self) -> Path:
        """Groups of originals that show the same photograph."""
        return self.path / "curation" / "near_duplicates.csv"

    @property
    def image_quality(self) -> Path:
        """Quality measures and defects of each original."""
        return self.path / "curation" / "image_quality.csv"

    @property
    def dropped(self) -> Path:
        """Originals that the user dropped; written by ``gaip3 drop`` or by hand."""
        return self.path / "curation" / "dropped.csv"

    @property
    def features_labelled(self) -> Path:
        """Features of the sets with hand labels, with the keys of their originals."""
        return self.path / "packed" / "features_labelled.npz"

    @property
    def features_regions(self) -> Path:
        """``(2, N, D) float16``: the features of the regions of all processed images, which the
        gender model uses, kept for the features of the final ones."""
        return self.path / "packed" / "features_regions.npy"

    @property
    def features_final(self) -> Path:
        """``(2, N, D) float16`` of the final images and their mirror images, in the order of the
        final dataset's manifest."""
        return self.path / "packed" / "features_final.npy"

    def packed_large(self, height: int, width: int) -> Path:
        """The final images at a size above that of ``final/``, decoded from the originals."""
        return self.path / "packed" / f"final_{height}x{width}.npy"

    @property
    def manifests(self) -> Path:
        return self.path / "manifests"

    def manifest(self, asset: str) -> Path:
        return self.manifests / f"{asset}.parquet"

    def journal(self, asset: str) -> Path:
        """The rows that an unfinished run of ``asset`` has completed."""
        return self.manifests / f"{asset}.journal"

    # tables
    @property
    def labels(self) -> Path:
        return self.path / "labels"

    def hand_labels(self, attribute: str) -> Path:
        return self.labels / f"train_output_{attribute}.csv"

    def label_review(self, attribute: str) -> Path:
        """The review of an attribute's labels: which are probably wrong, and which images to label
        next."""
        return self.path / "review" / f"{attribute}.csv"

    def label_review_source(self, attribute: str) -> Path:
        """The version of the inputs of an attribute's review, which is computed again only when
        they change."""
        return self.path / "review" / f"{attribute}.json"

    @property
    def lid_openings(self) -> Path:
        """The eye opening, measured from the landmarks, of pictures without a label of ``eyes``."""
        return self.path / "review" / "lid_openings.csv"

    @property
    def folder_review(self) -> Path:
        """Originals of D2 that probably belong in the folder of the other sex."""
        return self.path / "review" / "folders.csv"

    @property
    def label_history(self) -> Path:
        """Every change of a hand label (who, when, old and new value): one JSON line each, the
        latest last."""
        return self.path / "labels" / "history.jsonl"

    @property
    def label_examples(self) -> Path:
        """The pictures that users chose as examples of levels, for the label page."""
        return self.path / "labels" / "examples.json"

    @property
    def labels_checked(self) -> Path:
        """The copies of hand labels that hold the contract."""
        return self.labels / "checked"

    def checked_labels(self, attribute: str) -> Path:
        return self.labels_checked / f"{attribute}.csv"

    def labels_seen(self, model: Path, attribute: str) -> Path:
        """The checked labels that the model in the folder ``model`` was trained with; not part of
        its content hash."""
        return model / f"labels_{attribute}.csv"

    @property
    def gender_probabilities(self) -> Path:
        return self.path / "predictions" / "all_output_decide_train_data.csv"

    def input_values(self, attribute: str) -> Path:
        return self.path / "predictions" / f"all_output_{attribute}.csv"

    def input_uncertainty(self, attribute: str) -> Path:
        """The standard deviation of a label about the predicted value of each final image."""
        return self.path / "predictions" / f"uncertainty_{attribute}.csv"

    # models
    @property
    def gender_model(self) -> Path:
        return self.path / "models" / "decide_train_data"

    def input_model(self, attribute: str) -> Path:
        return self.path / "models" / f"input_{attribute}"

    @property
    def feature_extractor(self) -> Path:
        return self.path / "models" / "feature_extractor"

    @property
    def control_regressor(self) -> Path:
        return self.path / "models" / "control_regressor"

    def evaluator(self, attribute: str) -> Path:
        return self.path / "models" / f"evaluator_{attribute}"

    @property
    def nvae(self) -> Path:
        return self.path / "models" / "nvae"

    @property
    def critic(self) -> Path:
        return self.path / "models" / "critic"

    @property
    def judge(self) -> Path:
        return self.path / "models" / "judge"

    @property
    def reconstruction_judge(self) -> Path:
        return self.path / "models" / "reconstruction_judge"

    @property
    def prior_critic(self) -> Path:
        return self.path / "models" / "prior_critic"

    @property
    def detail(self) -> Path:
        """The detail network, and the aggregate posterior that it was trained with."""
        return self.path / "models" / "detail"

    @property
    def aggregate_posterior(self) -> Path:
        """The aggregate posterior: a Gaussian for each latent group."""
        return self.path / "models" / "aggregate_posterior" / "gaussians.npz"

    # pictures made
    @property
    def samples(self) -> Path:
        return self.path / "samples"

    @property
    def samples_table(self) -> Path:
        return samples_table(self.samples)

    @property
    def retouched(self) -> Path:
        return self.path / "retouched"

    @property
    def retouched_table(self) -> Path:
        return samples_table(self.retouched)

    @property
    def retouched_part(self) -> Path:
        """The rows that an unfinished retouching has completed."""
        return self.state / "retouched.csv"

    @property
    def report(self) -> Path:
        return self.path / "report" / "report.html"

    @property
    def curation_page(self) -> Path:
        """The HTML page of ``curation_report``: which pictures the rule selects."""
        return self.path / "report" / "curation.html"

    @property
    def inputs_page(self) -> Path:
        """The HTML page of ``inputs_report``: how accurate the five values are."""
        return self.path / "report" / "inputs.html"

    @property
    def inputs_table(self) -> Path:
        """The metrics of ``inputs_page``, one per row."""
        return self.path / "report" / "inputs.csv"

    @property
    def control_table(self) -> Path:
        """Every picture of the generator's sweeps: the values requested and the values that the
        evaluators measured."""
        return self.path / "report" / "control.csv"

    def figures(self, asset: str) -> Path:
        """The metrics of an asset as JSON, for checks and the report."""
        return self.path / "report" / "figures" / f"{asset}.json"

    def picture(self, asset: str, which: str = "") -> Path:
        """The contact sheet or curve of an asset, or a further picture of it."""
        return self.path / "report" / "pictures" / f"{asset}{f'.{which}' if which else ''}.jpg"

    def pictures(self, asset: str) -> list[Path]:
        """All existing pictures of an asset, its main one first."""
        main = self.picture(asset)
        return [p for p in (main, *sorted(main.parent.glob(f"{asset}.*.jpg"))) if p.exists()]

    def all_pictures(self) -> list[Path]:
        """All existing pictures of all assets."""
        return sorted(self.picture("").parent.glob("*.jpg"))

    # logs
    @property
    def logs(self) -> Path:
        return self.path / "logs"

    def training_log(self, name: str) -> Path:
        """``name`` is ``train_data_decide_model``, ``input_decide_model``, ``nvae`` or
        ``critic``."""
        return self.logs / f"trainlog_{name}.md"

    def relative(self, path: Path) -> str:
        """``path`` as the tables hold it: relative to the root, with ``/``."""
        return path.relative_to(self.path).as_posix()


# Of the links to MLflow's pages: they then show trainings, not the traces of language models
TRAININGS_VIEW = "?workflowType=machine_learning"
TRAININGS_PAGE = f"#/experiments{TRAININGS_VIEW}"  # the list of experiments


# Inside the folder of a model
def weights_file(folder: Path, name: str = "model") -> Path:
    return folder / f"{name}.weights.h5"


def config_file(folder: Path) -> Path:
    """The configuration from which the model is built."""
    return folder / "model.json"


def checkpoints(folder: Path) -> Path:
    """The checkpoints from which a training resumes."""
    return folder / "checkpoints"


def filmstrip_file(checkpoints: Path) -> Path:
    """The faces of a training's filmstrip, beside its checkpoints."""
    return checkpoints / "progress.npz"


def best_epoch_folder(checkpoints: Path) -> Path:
    """The model of the generator's best epoch, beside its checkpoints."""
    return checkpoints / "best"


def out_of_fold(folder: Path) -> Path:
    """Out-of-fold predictions: each original is predicted by models trained without it and its
    twins."""
    return folder / "out_of_fold.csv"


def platt_file(folder: Path) -> Path:
    """Slope and offset of Platt scaling for the Gaussian process of each fold of the gender
    model."""
    return folder / "platt.json"


def posterior_file(folder: Path) -> Path:
    """The aggregate posterior that a detail network was trained with."""
    return folder / "aggregate_posterior.npz"


def sweep_result(folder: Path) -> Path:
    """The metrics of a finished training of a sweep."""
    return folder / "result.json"


def is_trained(folder: Path) -> bool:
    """Whether ``folder`` holds the weights of a model."""
    return weights_file(folder).exists()


# Inside other folders
def samples_table(folder: Path) -> Path:
    """The table of the pictures in ``folder``: the values, seed and settings of each."""
    return folder / "samples.csv"


def exported_images(folder: Path, split: str) -> Path:
    """The images of a split of an exported data set."""
    return folder / "images" / split


def exported_table(images: Path) -> Path:
    """The table of a folder of exported images, by the name that data-set hubs know."""
    return images / "metadata.csv"


def exported_parquet(folder: Path) -> Path:
    """The Parquet files of an exported data set."""
    return folder / "data"


def data_card_file(folder: Path) -> Path:
    """The data card of an exported data set."""
    return folder / "README.md"


def made_of(packed: Path) -> Path:
    """The file beside ``packed`` that holds the version of its inputs."""
    return packed.with_suffix(".json")


def retouched_photographs(out: Path) -> tuple[Path, Path]:
    """The table and the sheet of changes that ``gaip3 retouch`` writes into its folder ``out``."""
    return out / "retouched.csv", out / "changes.jpg"


def downloads(cache: Path, dataset: str) -> Path:
    """The folder in which kagglehub keeps ``dataset``."""
    return cache / "datasets" / dataset


def mlflow_first_page(server: Path) -> Path:
    """MLflow's first page, in the folder of its package ``mlflow.server``."""
    return server / "js" / "build" / "index.html"


def servers_files(folder: Path) -> tuple[Path, Path]:
    """The socket of the code server and the workspace of ``gaip3 ui``, in its temporary
    ``folder``."""
    return folder / "code", folder / "workspace.yaml"

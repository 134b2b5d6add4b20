"""The generators of a root: its own in ``models/`` and the versions in MLflow's registry, found by
content hash.

A detail network belongs to the generator that it was trained for. The registry has both, and the
network's file names its generator."""

import shlex
from collections.abc import Callable
from pathlib import Path

from gaip3_pipeline.layout import DataRoot, weights_file
from gaip3_pipeline.mlflow_tracking import ModelVersion, TrackingError
from gaip3_pipeline.models.storage import detail_version, load_config
from gaip3_pipeline.sampling.recipe import Pair, RecipeError
from gaip3_pipeline.tables.hashing import weights_version

MODEL, DETAIL, MEASURED_BY = "nvae_weights", "detail_weights", "generator_evaluation"


class Generators:
    """The generators of ``root``. A weights file is hashed again only if it changed; the registry
    is read only for versions that are not known yet."""

    def __init__(self, root: DataRoot) -> None:
        self._root = root
        self._hashed: dict[Path, tuple[tuple[int, ...], str]] = {}
        self._models: dict[str, Path] = {}
        self._details: dict[str, tuple[Path, str]] = {}

    def find(self, model: str | None, detail: str | None = None) -> Pair:
        """The generator with the hash ``model`` (None: the root's own) and its detail network with
        the hash ``detail`` (None: the one that the root, or else the registry, has for it).

        Raises :class:`RecipeError` if there is no such pair; the message names it.
        """
        own = self._own()
        if model is None:
            if not own:
                raise RecipeError(
                    f"there is no generator in {self._root.nvae} yet: run {command(self._root)}"
                )
            model = own.version
        if own and model == own.version and detail in (None, own.detail_version):
            return own
        if (
            model not in self._models
            or not self._models[model].is_dir()
            or (detail and detail not in self._details)
        ):
            self.registered()
        folder = own.folder if own and model == own.version else self._models.get(model)
        fitting = {
            version: where
            for version, (where, generator) in self._details.items()
            if generator == model
        }
        if folder is None or (detail is not None and detail not in fitting):
            here = (
                f"{own.version[:12]} with {(own.detail_version or 'none')[:12]}" if own else "none"
            )
            raise RecipeError(
                f"needs {named(model, detail)}; this root has {here}, and MLflow's registry has no"
                " such pair"
            )
        version = detail or next(iter(fitting), None)
        return Pair(folder, model, fitting[version] if version else None, version)

    def has_detail(self) -> bool:
        """Whether the root's detail network was trained for its generator. Loads neither."""
        try:
            config = load_config(self._root.detail)
        except FileNotFoundError:
            return False
        return config["generator"] == self._version(self._root.nvae, weights_version)

    def _own(self) -> Pair | None:
        root, version = self._root, self._version(self._root.nvae, weights_version)
        if not version:
            return None
        detail = self._version(root.detail, detail_version) if self.has_detail() else ""
        return Pair(root.nvae, version, root.detail, detail) if detail else Pair(root.nvae, version)

    def _version(self, folder: Path, hashed: Callable[[Path], str]) -> str:
        """The content hash of the model in ``folder``; empty where there is none."""
        try:
            stat = weights_file(folder).stat()
        except FileNotFoundError:
            return ""
        key = (stat.st_size, stat.st_mtime_ns, stat.st_ino)
        if folder not in self._hashed or key != self._hashed[folder][0]:
            self._hashed[folder] = key, hashed(folder)
        return self._hashed[folder][1]

    def registered(self) -> list[ModelVersion]:
        """The registered generators, newest first; :meth:`find` then knows them and their detail
        networks. Raises :class:`RecipeError` if the tracking server does not answer."""
        from gaip3_pipeline.definitions import tracking_of
        from gaip3_pipeline.settings import load

        tracking = tracking_of(self._root, load(self._root))
        try:
            generators = tracking.versions(MODEL, MEASURED_BY)
            details = tracking.versions(DETAIL, MEASURED_BY)
        except TrackingError as e:
            raise RecipeError(str(e)) from e
        self._models = {v.data_version: v.folder for v in generators}
        self._details = {
            v.data_version: (v.folder, load_config(v.folder)["generator"]) for v in details
        }
        return generators


def named(model: str, detail: str | None) -> str:
    """The name of a generator, and of its detail network, in messages."""
    return f"generator {model[:12]}" + (f" with detail network {detail[:12]}" if detail else "")


def command(root: DataRoot, word: str = "refresh") -> str:
    """A command for ``root``, by default the one that makes a generator."""
    return f"gaip3 {word} --root {shlex.quote(str(root.path))}"

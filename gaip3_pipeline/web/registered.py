"""Which generators a root has: its own in ``models/nvae`` and the versions in MLflow's registry, found by content hash."""

import shlex
from pathlib import Path

from gaip3_pipeline.evaluation.recipe import RecipeError
from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.mlflow_tracking import ModelVersion

MODEL, MEASURED_BY = "nvae_weights", "generator_evaluation"


class Generators:
    """The generators of ``root``; a weights file is hashed again only when it changed, the registry asked once for each version."""

    def __init__(self, root: DataRoot) -> None:
        self._root = root
        self._hashed: tuple[tuple[int, ...], str] = ((), "")
        self._folders: dict[str, Path] = {}

    def find(self, wanted: str | None) -> tuple[str, Path]:
        """Content hash and folder of the generator with the hash ``wanted``, or of the root's own. Raises :class:`RecipeError`."""
        own = self._own()
        if wanted is None and not own:
            raise RecipeError(f"there is no generator in {self._root.nvae} yet: run {command(self._root)}")
        if wanted in (None, own):
            return own, self._root.nvae
        assert wanted
        if wanted not in self._folders or not self._folders[wanted].is_dir():
            self._folders = {v.data_version: v.folder for v in self.registered()}
        if wanted not in self._folders:
            raise RecipeError(f"wants generator {wanted[:12]}; this root has {own[:12] or 'none'}, and MLflow's registry no such version")
        return wanted, self._folders[wanted]

    def _own(self) -> str:
        from gaip3_pipeline.versions import weights_version

        try:
            stat = (self._root.nvae / "model.weights.h5").stat()
        except FileNotFoundError:
            return ""
        key = (stat.st_size, stat.st_mtime_ns, stat.st_ino)
        if key != self._hashed[0]:
            self._hashed = key, weights_version(self._root.nvae)
        return self._hashed[1]

    def registered(self) -> list[ModelVersion]:
        """The registered versions, newest first."""
        from gaip3_pipeline.definitions import tracking_of
        from gaip3_pipeline.settings import load

        return tracking_of(self._root, load(self._root)).versions(MODEL, MEASURED_BY)


def command(root: DataRoot) -> str:
    """What to run to have a generator."""
    return f"gaip3 refresh --root {shlex.quote(str(root.path))}"

"""The routes by which the page compares two snapshots: what differs, and the photographs as a
snapshot has them."""

import threading
from typing import Any

from fastapi import APIRouter, HTTPException, Response
from fastapi.responses import FileResponse

from gaip3_pipeline.imaging.decode import UnusableImage
from gaip3_pipeline.layout import IMAGE_SETS, SET_OF_SEX, DataRoot
from gaip3_pipeline.settings import load
from gaip3_pipeline.tables.duplicates import set_and_stem
from gaip3_pipeline.tables.snapshots import Files, compare, files_of, find, rows_of, snapshots
from gaip3_pipeline.web.pictures import Pictures

FOLDERS = {s.id: s.folder for s in IMAGE_SETS}
# the content of a snapshot's path changes only if a photograph is erased
CACHED = {"Cache-Control": "private, max-age=3600"}


class SnapshotRoutes:
    """The routes of the snapshots of one root."""

    def __init__(self, root: DataRoot) -> None:
        self._root, self._pictures = root, Pictures(root, load(root).images)
        self._lock = threading.Lock()
        self._hashes: dict[str, dict[str, str]] = {}  # of the files of a table, by its hash
        self.router = router = APIRouter()
        router.add_api_route("/api/snapshots", self.snapshots, methods=["GET"])
        router.add_api_route("/api/snapshots/{first}/{second}", self.compare, methods=["GET"])
        router.add_api_route("/picture/snapshot/{name}/{path:path}", self.picture, methods=["GET"])

    def snapshots(self) -> dict[str, Any]:
        """Name and time of each snapshot, the oldest first."""
        found = snapshots(self._root)
        return {"snapshots": [{"name": s.name, "created": s.created} for s in found]}

    def compare(self, first: str, second: str) -> dict[str, Any]:
        """What differs between two snapshots. A picture is ``[snapshot, path]``, by which
        :meth:`picture` gives it; null if the snapshots have no photograph of a label."""
        found = compare(self._root, first, second)
        photographs = {
            set_and_stem(path): [name, path]
            for name in (first, second)
            for path in self._files(name)
            if path.startswith("original/")
        }
        return {
            "added": [[second, path] for path in found.added],
            "dropped": [[first, path] for path in found.dropped],
            "replaced": [[[first, path], [second, path]] for path in found.replaced],
            "labels": [
                {
                    "attribute": r.attribute,
                    "gender": r.gender,
                    "stem": r.stem,
                    "before": None if r.before != r.before else r.before,
                    "after": None if r.after != r.after else r.after,
                    "picture": photographs.get((SET_OF_SEX[r.gender].id, r.stem)),
                }
                for r in rows_of(found.labels)
            ],
            "settings": [[name, str(a), str(b)] for name, (a, b) in found.settings.items()],
        }

    def picture(self, name: str, path: str) -> Response:
        """A small picture of a photograph as the snapshot ``name`` has it. Raises
        :class:`~gaip3_pipeline.tables.snapshots.SnapshotError` if it was changed in place."""
        files, of = self._files(name), set_and_stem(path)
        if path not in files or not of:
            raise HTTPException(404, f"the snapshot {name} has no photograph {path}")
        kept = Files(self._root)
        resized = files.get(f"resized/{FOLDERS[of[0]]}/{of[1]}.jpg")
        if resized and kept.path(resized).exists():
            return FileResponse(kept.path(resized), media_type="image/jpeg", headers=CACHED)
        try:
            jpeg = self._pictures.small(kept.check(files[path], path))
        except (UnusableImage, OSError) as e:
            raise HTTPException(422, f"no picture: {e}") from e
        return Response(jpeg, media_type="image/jpeg", headers=CACHED)

    def _files(self, name: str) -> dict[str, str]:
        """The hash of each file of a snapshot."""
        snapshot = find(self._root, name)
        with self._lock:
            if snapshot.manifest not in self._hashes:
                table = files_of(self._root, snapshot)
                while len(self._hashes) > 3:
                    self._hashes.pop(next(iter(self._hashes)))
                self._hashes[snapshot.manifest] = dict(zip(table.path, table.sha256, strict=True))
            return self._hashes[snapshot.manifest]

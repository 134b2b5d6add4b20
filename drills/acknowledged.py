"""Write each kind of file that is acknowledged, and say so: ``power`` looks at the calls to the
kernel.

    python -m drills.acknowledged FOLDER
"""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from drills.roots import painted
from gaip3_pipeline.layout import IMAGE_SETS, DataRoot
from gaip3_pipeline.settings import load

ACKNOWLEDGED = "acknowledged "


def kinds(root: DataRoot) -> Iterator[tuple[str, Callable[[], object]]]:
    """Each kind of file, and a function that writes it. What they import is imported before."""
    import keras

    from gaip3_pipeline.imaging.processing import augment_set, resize_set
    from gaip3_pipeline.models.storage import save_weights
    from gaip3_pipeline.refresh.plan import Forecast
    from gaip3_pipeline.refresh.record import Record
    from gaip3_pipeline.sampling.draw import write_jpegs
    from gaip3_pipeline.setup.remote import pull, push
    from gaip3_pipeline.setup.snapshots import restore, take
    from gaip3_pipeline.tables.contracts import write_input_values
    from gaip3_pipeline.tables.final import link_final
    from gaip3_pipeline.tables.label_store import Edit, LabelStore
    from gaip3_pipeline.training import checkpoint

    female, images = IMAGE_SETS[1], load(root).images
    store = LabelStore(root)
    stems = list(store.images["female"])

    def label(value: float) -> None:
        store.apply([Edit("mouth", "female", stems[0], value)], "drill")

    yield "labels and history", lambda: label(0.111)
    yield "labels once more", lambda: label(0.222)
    yield "pictures and manifest", lambda: resize_set(root, female, images)
    yield "brightness copies and manifest", lambda: augment_set(root, female, images)

    def final() -> None:
        import pandas as pd

        sources = [root.relative(p) for p in sorted(root.processed("resized", female).iterdir())]
        paths = [f"final/resized_female_{Path(s).name}" for s in sources]
        link_final(root, pd.DataFrame({"path": paths, "source": sources}))

    yield "links of the final dataset", final
    yield (
        "predictions",
        lambda: write_input_values(
            root.input_values("mouth"), "mouth", ["final/a.jpg"], np.array([0.5])
        ),
    )
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("adam", "mse")
    yield "weights", lambda: save_weights(model, root.critic)
    position = checkpoint.Position(1, [{"loss": 1.0}], "drill")
    yield "a checkpoint", lambda: checkpoint.save(root.critic / "checkpoints", model, position)
    yield "samples", lambda: write_jpegs(root.samples, ["000000.jpg"], np.zeros((1, 8, 8, 3), "u1"))
    yield "the record of a refresh", lambda: Record(root, "drill", Forecast([], {}, {}))
    yield "a snapshot", lambda: take(root, "s")

    def back() -> None:
        shutil.rmtree(root.processed("resized", female))
        restore(root, "s")

    yield "a restored snapshot", back
    url = f"file://{root.path.parent}/there"
    yield "a push into a folder", lambda: push(root, "s", url, True)
    there = DataRoot(root.path.parent / "pulled")
    yield "a pull", lambda: pull(there, url, "s")


def main() -> None:
    """Write one kind after another."""
    folder = Path(sys.argv[1])
    root = painted(folder / "root", "[faces]\nd1 = 2\nfemale = 6\nmale = 2")
    os.write(1, f"{ACKNOWLEDGED}the painted root\n".encode())
    for kind, write in kinds(root):
        write()
        # one call to the kernel, in its order among those of the writes
        os.write(1, f"{ACKNOWLEDGED}{kind}\n".encode())


if __name__ == "__main__":
    main()

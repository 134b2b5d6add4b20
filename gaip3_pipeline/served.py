"""Registered models as MLflow loads them, ``mlflow.pyfunc.load_model("models:/NAME@champion")``,
in any environment with this package, and serves them, ``mlflow models serve``.

A model takes a table and returns a table with a row for each: pictures as the bytes of their files,
or the five values that a face is drawn for. The files of a version are those that the pipeline
itself reads; MLflow calls :func:`_load_pyfunc` of this module with their folder."""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gaip3_pipeline.attributes import ATTRIBUTES

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

Predict = Callable[["pd.DataFrame"], Mapping[str, Any]]
PICTURE = {"picture": "binary"}
# optional columns of a generator; the ranges of the studio's sliders
FREE = {"seed": "long", "temperature": "double", "guidance": "double"}
# of a face, as in the settings of samples; a column of the table replaces the root's own value
USUAL = ["temperature", "guidance", "detail"]


@dataclass(frozen=True)
class Kind:
    """A kind of registered model: the columns that it takes (``inputs`` and ``optional``) and
    returns, with their MLflow types; the properties of ``DataRoot`` whose folders it needs
    ``beside`` its own; and how it is loaded from its folder and the pipeline's settings of
    pictures."""

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    load: Callable[[Path, Mapping[str, Any]], Predict]
    optional: Mapping[str, str] | None = None
    beside: tuple[str, ...] = ()


def kind_of(asset: str) -> Kind | None:
    """The kind of the models of ``asset``; None for those that are of no use alone."""
    if asset.startswith("evaluator_"):
        return Kind(PICTURE, {asset.removeprefix("evaluator_"): "double"}, _regressor)
    return KINDS.get("input_model_" if asset.startswith("input_model_") else asset)


def _load_pyfunc(path: str, model_config: Mapping[str, Any]) -> "Served":
    """What MLflow calls to load the model in the folder ``path``."""
    kind = kind_of(model_config["asset"])
    assert kind
    return Served(kind.load(Path(path), model_config))


class Served:
    """A loaded model."""

    def __init__(self, predict: Predict) -> None:
        self._predict = predict

    def predict(
        self, model_input: "pd.DataFrame", params: Mapping[str, Any] | None = None
    ) -> "pd.DataFrame":
        """A row for each of ``model_input``. Raises ``ValueError`` for a picture that cannot be
        read; the message names its row."""
        import pandas as pd

        return pd.DataFrame(dict(self._predict(model_input)), index=model_input.index)


def _faces(path: Path, config: Mapping[str, Any]) -> Predict:
    """Faces as PNG files, by the generator in ``path``, or by its part ``nvae`` with the detail
    network and the aggregate posterior in ``path``."""
    from gaip3_pipeline.layout import posterior_file
    from gaip3_pipeline.models.aggregate_posterior import load_aggregate_posterior
    from gaip3_pipeline.models.detail import load_detail
    from gaip3_pipeline.models.nvae.model import load_nvae
    from gaip3_pipeline.sampling.draw import FaceGenerator
    from gaip3_pipeline.settings import Samples

    if posterior_file(path).exists():
        finish = load_detail(path)
        posterior = load_aggregate_posterior(posterior_file(path))
        generator = FaceGenerator(load_nvae(path / NVAE), posterior, finish.network)
    else:
        generator = FaceGenerator(load_nvae(path))

    def draw(table: "pd.DataFrame") -> Mapping[str, Any]:
        import numpy as np
        import pandas as pd
        from PIL import Image

        table = table.reset_index(drop=True)
        values = table[list(ATTRIBUTES)].to_numpy(np.float32)
        ways = table.reindex(columns=["seed", *USUAL]).astype(float)
        ways = ways.fillna({name: config[name] for name in USUAL})
        ways["seed"] = ways.seed.fillna(pd.Series(range(len(ways)), dtype=float)).astype(int)
        files: list[bytes] = [b""] * len(ways)
        groups: Any = ways.groupby(USUAL)
        for (temperature, guidance, detail), rows in groups:
            settings = Samples(
                temperature=float(temperature),
                guidance=float(guidance),
                detail=float(detail) if generator.detail else 0.0,
            )
            faces = generator.draw(rows.seed.to_numpy(), values[rows.index], settings)
            for row, face in zip(rows.index, np.concatenate(list(faces)), strict=True):
                file = io.BytesIO()
                Image.fromarray(face).save(file, "PNG")
                files[row] = file.getvalue()
        return {"png": files}

    return draw


def _gender(path: Path, config: Mapping[str, Any]) -> Predict:
    from gaip3_pipeline.features.extractor import load_extractor
    from gaip3_pipeline.training.gender import load_gender_models, probabilities_of, score_gender

    models, extractor = load_gender_models(path), load_extractor(path / EXTRACTOR)

    def score(table: "pd.DataFrame") -> Mapping[str, Any]:
        logits, _ = score_gender(models, extractor, [_pictures(table, config)])
        return {"female": probabilities_of(logits.mean(axis=1))[:, 1].astype(float)}

    return score


def _input_model(path: Path, config: Mapping[str, Any]) -> Predict:
    from gaip3_pipeline.features.extractor import extract, load_extractor
    from gaip3_pipeline.training.attribute_model import load_input_model

    process, extractor = load_input_model(path), load_extractor(path / EXTRACTOR)

    def predict(table: "pd.DataFrame") -> Mapping[str, Any]:
        values, deviations = process.predict(extract(extractor, [_pictures(table, config)]))
        return {"value": values.astype(float), "deviation": deviations.astype(float)}

    return predict


def _regressor(path: Path, config: Mapping[str, Any]) -> Predict:
    from gaip3_pipeline.training.regressor import load_regressor, predict_values

    model = load_regressor(path)

    def predict(table: "pd.DataFrame") -> Mapping[str, Any]:
        values = predict_values(model, [_pictures(table, config)]).astype(float)
        return dict(zip(model.attributes, values.T, strict=True))

    return predict


def _critic(path: Path, config: Mapping[str, Any]) -> Predict:
    from gaip3_pipeline.training.critic import critic_logits, load_critic

    critic = load_critic(path)
    return lambda table: {"logit": critic_logits(critic, _pictures(table, config)).astype(float)}


def _pictures(table: "pd.DataFrame", config: Mapping[str, Any]) -> "np.ndarray":
    """``(N, height, width, 3) uint8``: the pictures as the pipeline cuts them. One that is as small
    as a cut already, such as a sample, is not cut again."""
    import numpy as np

    from gaip3_pipeline.imaging.decode import Target, UnusableImage, decode
    from gaip3_pipeline.imaging.transform import resize

    height, width = config["height"], config["width"]
    cut, whole = Target(height, width, config["crop"]), Target(height, width)
    pictures = []
    for row, data in zip(table.index, table.picture, strict=True):
        try:
            picture = decode(data, f"row {row}", cut, config["max_pixels"])
        except UnusableImage as e:
            raise ValueError(f"the picture of row {row}: {e}") from e
        is_cut = picture.width * height <= picture.height * width
        pictures.append(resize(picture, whole if is_cut else cut))
    return np.stack(pictures)


NVAE, EXTRACTOR = "nvae", "feature_extractor"
_VALUES = dict.fromkeys(ATTRIBUTES, "double")
_LOGIT = Kind(PICTURE, {"logit": "double"}, _critic)
KINDS: dict[str, Kind] = {
    "nvae_weights": Kind(_VALUES, {"png": "binary"}, _faces, FREE),
    "detail_weights": Kind(
        _VALUES, {"png": "binary"}, _faces, FREE | {"detail": "double"}, (NVAE,)
    ),
    "gender_model": Kind(PICTURE, {"female": "double"}, _gender, beside=(EXTRACTOR,)),
    "input_model_": Kind(
        PICTURE, {"value": "double", "deviation": "double"}, _input_model, beside=(EXTRACTOR,)
    ),
    "control_regressor": Kind(PICTURE, _VALUES, _regressor),
    "critic_weights": _LOGIT,
    "judge_weights": _LOGIT,
    "reconstruction_judge_weights": _LOGIT,
}

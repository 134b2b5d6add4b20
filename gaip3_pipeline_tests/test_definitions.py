"""The Dagster definitions: graph, descriptions, checks, and the libraries that loading them
imports."""

import json
import subprocess
import sys

import dagster as dg
import pytest

from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.definitions import build_defs
from gaip3_pipeline.layout import IMAGE_SETS, DataRoot
from gaip3_pipeline.settings import NOISE_CONTRASTIVE, TRANSPORT, Retouch, Settings
from gaip3_pipeline.versions import described
from gaip3_pipeline_tests.refreshing import TRAINED

SETS = [s.id for s in IMAGE_SETS]
EXPECTED = {
    **{f"original_{s}": set() for s in SETS},
    **{f"hand_labels_{a}": set() for a in ATTRIBUTES},
    "dropped_images": set(),
    **{f"resized_{s}": {f"original_{s}", "dropped_images"} for s in SETS},
    "near_duplicates": {f"resized_{s}" for s in SETS},
    "image_quality": {f"resized_{s}" for s in SETS},
    **{f"augmented_{s}": {f"resized_{s}"} for s in SETS},
    **{
        f"labels_{a}": {f"hand_labels_{a}", "resized_d2_female", "resized_d2_male"}
        for a in ATTRIBUTES
    },
    **{
        f"input_model_{a}": {
            f"labels_{a}",
            "feature_extractor",
            "near_duplicates",
            *(f"resized_{s}" for s in SETS),
        }
        for a in ATTRIBUTES
    },
    "feature_extractor": {
        *(f"resized_{s}" for s in SETS),
        "augmented_d2_female",
        "augmented_d2_male",
    },
    "final_features": {"feature_extractor", "final_dataset"},
    **{
        f"input_values_{a}": {f"input_model_{a}", "final_features", "final_dataset"}
        for a in ATTRIBUTES
    },
    "label_review": {
        "near_duplicates",
        "feature_extractor",
        *(f"labels_{a}" for a in ATTRIBUTES),
        *(f"resized_{s}" for s in SETS),
    },
    "gender_model": {"feature_extractor", "near_duplicates", *(f"resized_{s}" for s in SETS)},
    "gender_probabilities": {
        "gender_model",
        "feature_extractor",
        "near_duplicates",
        *(f"{k}_{s}" for k in ("resized", "augmented") for s in SETS),
    },
    "final_dataset": {
        "gender_probabilities",
        "near_duplicates",
        *(f"{k}_{s}" for k in ("resized", "augmented") for s in SETS),
    },
    **{
        f"evaluator_{a}": {f"labels_{a}", "near_duplicates", *(f"resized_{s}" for s in SETS)}
        for a in ATTRIBUTES
    },
    "curation_report": {
        "gender_probabilities",
        "final_dataset",
        *(f"{k}_{s}" for k in ("resized", "augmented") for s in SETS),
    },
    "inputs_report": {
        "final_dataset",
        "near_duplicates",
        *(f"{n}_{a}" for a in ATTRIBUTES for n in ("labels", "input_model", "input_values")),
    },
    "generator_evaluation": {
        "nvae_weights",
        "detail_weights",
        "judge_weights",
        "control_regressor",
        "final_dataset",
        "gender_model",
        *(f"{n}_{a}" for a in ATTRIBUTES for n in ("input_values", "evaluator")),
    },
    "control_regressor": {"final_dataset", *(f"input_values_{a}" for a in ATTRIBUTES)},
    "nvae_weights": {
        "final_dataset",
        "control_regressor",
        *(f"{n}_{a}" for a in ATTRIBUTES for n in ("input_values", "evaluator")),
    },
    "aggregate_posterior": {
        "nvae_weights",
        "final_dataset",
        *(f"input_values_{a}" for a in ATTRIBUTES),
    },
    "detail_weights": {
        "nvae_weights",
        "aggregate_posterior",
        "final_dataset",
        "control_regressor",
        *(f"{n}_{a}" for a in ATTRIBUTES for n in ("input_values", "evaluator")),
    },
    "nvae_samples": {
        "nvae_weights",
        "detail_weights",
        "final_dataset",
        *(f"input_values_{a}" for a in ATTRIBUTES),
    },
}


def definitions(tmp_path, settings=None):
    return build_defs(DataRoot(tmp_path), settings or Settings())


def test_the_graph_is_the_one_of_the_documents(tmp_path):
    graph = definitions(tmp_path).resolve_asset_graph()
    for name, parents in EXPECTED.items():
        assert {p.to_user_string() for p in graph.get(dg.AssetKey(name)).parent_keys} == parents, (
            name
        )
    rest = {k.to_user_string() for k in graph.get_all_asset_keys()} - set(EXPECTED)
    critics = {"critic_weights", "judge_weights", "reconstruction_judge_weights"}
    assert rest == {*critics, "retouched_samples", "report"}


@pytest.mark.parametrize("method", [TRANSPORT, NOISE_CONTRASTIVE])
def test_every_asset_has_a_description_and_a_check(tmp_path, method):
    graph = definitions(tmp_path, Settings(retouch=Retouch(method=method))).resolve_asset_graph()
    assert (dg.AssetKey("prior_critic_weights") in graph.materializable_asset_keys) == (
        method == NOISE_CONTRASTIVE
    )
    checked = {k.asset_key for k in graph.asset_check_keys}
    for key in graph.materializable_asset_keys:
        node = graph.get(key)
        assert node.description, key
        assert node.description.endswith("."), key
        assert node.group_name != "default", key
        assert node.kinds, key
        assert node.owners, key
        assert node.code_version, key
        assert key in checked, key


def test_tags_select_all_assets_of_an_attribute_or_a_set(tmp_path):
    graph = definitions(tmp_path).resolve_asset_graph()

    def tagged(text):
        found = dg.AssetSelection.from_string(text, include_sources=True).resolve(graph)
        return {key.to_user_string() for key in found}

    of_mouth = {f"{n}_mouth" for n in ("labels", "input_model", "input_values", "evaluator")}
    assert tagged("tag:attribute=mouth") == of_mouth | {"hand_labels_mouth"}
    assert tagged("tag:set=d1") == {"original_d1", "resized_d1", "augmented_d1"}


def test_a_description_has_the_picture_where_the_label_page_serves_it(monkeypatch):
    assert "![" not in described("report", "A page.")
    monkeypatch.setenv("GAIP3_LABEL_URL", "http://127.0.0.1:3100")
    page = "http://127.0.0.1:3100/picture/asset/report"
    assert described("report", "A page.").endswith(f"[![report]({page}?width=760)]({page})")


def test_the_definitions_load_without_the_heavy_libraries():
    code = (
        "import sys, json, gaip3_pipeline.definitions as d;"
        " d.defs().resolve_asset_graph();print(json.dumps([m for m in ('tensorflow', 'keras',"
        " 'mlflow', 'cv2', 'jax', 'sklearn', 'psycopg', 'psycopg2', 'dagster_postgres', 'ray',"
        " 'dagster_ray')"
        " if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_automation_is_off_unless_switched_on_and_sources_are_observed(tmp_path):
    sensors = {
        s.name: s.default_status for s in definitions(tmp_path).get_repository_def().sensor_defs
    }
    assert sensors["observe_sources"] == dg.DefaultSensorStatus.RUNNING
    assert sensors["materialize_stale"] == dg.DefaultSensorStatus.STOPPED


def test_trainings_share_one_pool(tmp_path):
    graph = definitions(tmp_path).resolve_asset_graph()
    pools = {
        k.to_user_string(): graph.assets_def_for_key(k).op.pool
        for k in graph.materializable_asset_keys
    }
    assert {n for n, pool in pools.items() if pool} == TRAINED


def test_models_of_values_are_fitted_and_applied_without_networks():
    # Keras takes four seconds to import, a fifth of a refresh after changed labels.
    code = (
        "import sys, gaip3_pipeline.evaluation.relevance, gaip3_pipeline.evaluation.charts,"
        " gaip3_pipeline.tables.contracts, gaip3_pipeline.training.attribute_model,"
        " gaip3_pipeline.training_data;"
        "print(*(m for m in ('tensorflow', 'keras', 'jax') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []

"""Fits and scores have equal bits whatever the number of BLAS threads. The sizes are such that
several threads give other bits without the limit (on a machine of several cores)."""

import numpy as np
import pandas as pd
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from gaip3_pipeline.evaluation.review import review_table
from gaip3_pipeline.models.aggregate_posterior import AggregatePosterior
from gaip3_pipeline.settings import InputModel
from gaip3_pipeline.threads import one_blas_thread
from gaip3_pipeline.training.attribute_model import fit_process
from gaip3_pipeline.training.gender import fit_platt
from gaip3_pipeline.training.label_regression import cross_fit

N, GROUPS = 200, np.arange(0, 601, 25)


@pytest.fixture(scope="module")
def data():
    """``(2, N, 600)`` features, values that follow some of them, and buckets."""
    rng = np.random.default_rng(0)
    features = rng.normal(0, 0.3, (2, N, 600)).astype(np.float16)
    features[1] = features[0]
    values = np.clip(
        0.5 + 0.3 * features[0, :, 25:31].astype(float).sum(axis=1) + rng.normal(0, 0.1, N), 0, 1
    )
    return features, values.round(1), rng.integers(0, 100, N)


def input_model(features, values, bucket):
    process = fit_process("mouth", features, GROUPS, values, InputModel())
    learned = process.relevance, process.noise, process.scale
    return *learned, *process.posterior(features), process.left_out()


def gender(features, values, bucket):
    scaled = fit_platt(features, GROUPS, (values > 0.5).astype(np.int32))
    return scaled.slope, scaled.offset, scaled.logits(features)


def review(features, values, bucket):
    known = np.where(np.arange(N) % 3, values, np.nan)
    found = cross_fit(features.astype(np.float32), known, bucket, mirrored=False)
    images = pd.DataFrame({"gender": "female", "stem": np.arange(N).astype(str)})
    table = review_table(
        images.assign(value=known, bucket=bucket), features.astype(np.float32), mirrored=False
    )
    return found.predicted, found.variance, table.to_csv().encode()


def drawing(features, values, bucket):
    rng = np.random.default_rng(1)
    offset, factor = (rng.normal(size=(n, 600)).astype(np.float32) for n in (6, 600))
    noise = rng.normal(size=(64, 1, 1, 600)).astype(np.float32)
    return AggregatePosterior([offset], [factor]).move([noise], rng.random((64, 5)), 1.0)


@pytest.mark.parametrize("result", [input_model, gender, review, drawing])
def test_a_result_has_equal_bits_with_any_number_of_blas_threads(data, result):
    found = set()
    for threads in (1, 2, 4):
        with threadpool_limits(threads, user_api="blas"):
            found.add(b"".join(np.asarray(part).tobytes() for part in result(*data)))
    assert len(found) == 1


def test_the_number_of_threads_from_before_is_in_force_afterwards():
    @one_blas_thread
    def threads():
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    before = threads.__wrapped__()
    assert set(threads()) == {1}
    assert threads.__wrapped__() == before

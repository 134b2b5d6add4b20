"""Where a step runs on a cluster and what it asks for: dagster-ray's executor, which starts every
step as a Ray job, and the resource tags of an asset."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import dagster as dg

from gaip3_pipeline.cluster.connection import ADDRESS, DRIVER, address_of
from gaip3_pipeline.dagster_home import environment
from gaip3_pipeline.layout import DataRoot
from gaip3_pipeline.settings import Settings

RESOURCES = "dagster-ray/config"  # op tag that dagster-ray reads
# A step is repeated when its node is lost. Errors of the step itself are not repeated.
RETRIES = 3
# Variables of this process that a step needs besides those of the root. Secrets are not among them:
# they stand in the environment of every node.
_PASSED = (
    DRIVER,
    "GAIP3_MLFLOW_URL",
    "GAIP3_DAGSTER_URL",
    "KERAS_BACKEND",
    "OPENBLAS_NUM_THREADS",
)


def ray_steps(root: DataRoot, settings: Settings) -> dg.ExecutorDefinition:
    """The executor that runs every step of ``root`` as a job of the cluster that the settings name.

    No resources are set here: an executor's would override those of the assets, and leak from one
    step to the next."""
    from dagster_ray import ray_executor

    address = address_of(settings)
    return ray_executor.configured(
        {
            "ray": {
                "address": address,
                "runtime_env": {"env_vars": environment_of_steps(root, address)},
                "inherit_job_submission_client_from_ray_run_launcher": False,
            },
            "retries": {"enabled": {}},
        }
    )


def environment_of_steps(root: DataRoot, address: str) -> dict[str, str]:
    """The variables of the process of a step of ``root``. Its PATH begins with this interpreter's
    folder, since the job's command is ``dagster``."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    passed = {name: os.environ[name] for name in _PASSED if name in os.environ}
    # a job that waits longer than 15 minutes for a busy node would fail
    waits = {"RAY_JOB_START_TIMEOUT_SECONDS": str(7 * 24 * 3600)}
    return environment(root) | passed | waits | {"PATH": path, ADDRESS: address}


def on_cluster(settings: Settings, training: bool, spreads: bool) -> dict[str, Any]:
    """Arguments of ``dg.asset`` for the steps of a cluster: what a step asks for, and retries; none
    without a cluster.

    A ``training`` asks for the CPUs and GPUs of the settings. A step that ``spreads`` its work
    asks for none, since each of its tasks asks for what it needs. Every other step asks for one
    CPU."""
    if not address_of(settings):
        return {}
    cluster = settings.cluster
    asked = {"num_cpus": 0.0 if spreads else cluster.cpus if training else 1.0}
    if training and not spreads:
        asked["num_gpus"] = cluster.gpus
    return {
        "op_tags": {RESOURCES: json.dumps(asked)},
        "retry_policy": dg.RetryPolicy(max_retries=RETRIES, delay=5),
    }

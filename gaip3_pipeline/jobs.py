"""The jobs of Dagster's pages: a refresh by one press, the stages of refreshes, and every asset."""

import signal
import subprocess
from contextlib import suppress
from typing import Any

import dagster as dg

from gaip3_pipeline.processes import gaip3
from gaip3_pipeline.tables.problems import complaint
from gaip3_pipeline.versions import REFRESH_JOB, RootResource

STAGE = "refresh_stage"
_STOP_SECONDS = 60  # a training writes its state to MLflow and ends


def build() -> list:
    """``refresh``, ``refresh_stage`` and ``everything``."""
    return [_refresh(), stage(), _everything()]


def stage() -> Any:
    """The job whose runs are the stages of refreshes."""
    return dg.define_asset_job(
        STAGE,
        dg.AssetSelection.all(),
        description=(
            "The stages of refreshes: each run makes stale assets of which none depends on another."
            " The tags say what changed and which stage it is. To start a refresh, launch the job"
            " `refresh`."
        ),
    )


def _everything() -> Any:
    return dg.define_asset_job(
        "everything",
        dg.AssetSelection.all(),
        description=(
            "Every asset, stale or not. To make only what follows from changes, launch the job"
            " `refresh`."
        ),
    )


def _refresh() -> dg.JobDefinition:
    @dg.op(
        config_schema={
            "select": dg.Field(
                [str],
                default_value=[],
                description=(
                    "Only these assets and those they depend on, such as nvae_weights or"
                    " group:inputs. Empty: all that is stale."
                ),
            ),
            "warm_start": dg.Field(
                bool,
                default_value=False,
                description=(
                    "Start the generator's training from its last weights, for a third of the"
                    " epochs."
                ),
            ),
        },
        out=dg.Out(dg.Nothing),
        description="Runs gaip3 refresh and shows its output in the log.",
    )
    def gaip3_refresh(context: dg.OpExecutionContext, root: RootResource) -> None:
        config = context.op_config
        words = [w for name in config["select"] for w in ("--select", name)]
        words += ["--warm-start"] if config["warm_start"] else []
        # A session of its own, so that a signal to the servers' group reaches it once, from here.
        process = subprocess.Popen(
            gaip3("refresh", "--root", root.path, *words),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        printed = []
        try:
            for line in process.stdout or ():
                if line.strip():
                    printed.append(line.rstrip())
                    context.log.info(printed[-1])
        except BaseException:  # the run was terminated on Dagster's pages
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_SECONDS)
            raise
        if process.wait():
            raise dg.Failure(complaint(printed), allow_retries=False)

    @dg.job(
        name=REFRESH_JOB,
        executor_def=dg.in_process_executor,
        description=(
            "**Everything that follows from what changed, and nothing else**: the same as `gaip3"
            " refresh` and the Refresh tab of the label page. It looks for changes of photographs,"
            " labels, settings and code, and makes what is stale, stage by stage; the stages are"
            " runs of `refresh_stage`. Where new content equals the old, what depends on it is"
            " left as it is. Terminated, the trainings continue in the next refresh."
        ),
    )
    def refresh() -> None:
        gaip3_refresh()

    return refresh

"""MLflow's pages as ``gaip3 ui`` serves them: an app of ``mlflow server`` (entry point
``mlflow.app``) whose pages begin in the view for trainings.

MLflow keeps its view in the browser and begins with that for language models; the kind of an
experiment does not change it. A view that the user chose stays."""

import json
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from gaip3_pipeline.layout import mlflow_first_page

APP = "gaip3"
# what a browser that was never here is told, by MLflow's keys
_BEGINNINGS = {
    "mlflow.workflowType_v1": "machine_learning",
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": True,  # it opens by itself otherwise
}


def is_installed() -> bool:
    """Whether MLflow finds :func:`app`: not if the package was installed before it had it."""
    return any(point.name == APP for point in entry_points(group="mlflow.app"))


def app() -> Any:
    """MLflow's own app with another first page."""
    import mlflow.server
    from fastapi.responses import HTMLResponse
    from mlflow.server.fastapi_app import app as pages
    from starlette.routing import Route

    index = mlflow_first_page(Path(mlflow.server.__file__).parent)
    told = json.dumps({key: json.dumps(value) for key, value in _BEGINNINGS.items()})
    script = (
        f"<script>for (const [key, value] of Object.entries({told}))"
        " if (localStorage.getItem(key) === null) localStorage.setItem(key, value)</script>"
    )

    def first(_request: Any) -> HTMLResponse:
        page = index.read_text(encoding="utf-8")
        return HTMLResponse(page.replace("<head>", f"<head>{script}", 1))

    pages.router.routes.insert(0, Route("/", first))
    return pages

"""MLflow's first page as ``gaip3 ui`` serves it."""

from fastapi.testclient import TestClient

from gaip3_pipeline import mlflow_pages


def test_mlflows_first_page_tells_a_new_browser_the_view_before_its_own_scripts_run() -> None:
    client = TestClient(mlflow_pages.app(), base_url="http://127.0.0.1:5000")
    page = client.get("/")
    assert page.status_code == 200
    before, own, _ = page.text.partition("static-files/static/js/main.")
    assert own
    assert '"mlflow.workflowType_v1": "\\"machine_learning\\""' in before
    assert client.get("/health").status_code == 200  # the other pages are MLflow's
    assert client.get("/", headers={"Host": "elsewhere.example"}).status_code == 403

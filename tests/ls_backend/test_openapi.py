"""Requests made up from the published OpenAPI schema: whatever comes, the server says what it is about and goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings

from ls_backend.app import create_app
from ls_backend.service import Service
from ls_backend.settings import load_settings
from tests.ls_backend.live_server import serving

JSON = {"Content-Type": "application/json"}
CONFIG = """<View><Image name="image" value="$image"/><BrushLabels name="mask" toName="image"><Label value="Cell"/>
</BrushLabels><KeyPointLabels name="click" toName="image"><Label value="Cell"/></KeyPointLabels></View>"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home = tmp_path_factory.mktemp("server")
    # nobody listens there: what needs Label Studio gets an answer that says so
    given = {"label_studio_url": "http://127.0.0.1:1", "labels": home / "labels", "embedding_disk": 0, "device": "cpu"}
    with serving(create_app(Service(load_settings(**given)))) as address:
        yield address


def test_no_request_makes_the_server_fail(address: str) -> None:
    published = schemathesis.openapi.from_url(f"{address}/openapi.json")
    operations = [found.ok() for found in published.get_all_operations()]
    paths = {operation.path for operation in operations}
    assert {"/predict", "/setup", "/webhook", "/versions", "/train", "/health", "/metrics"} <= paths
    for operation in operations:

        @settings(max_examples=25, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
        @given(operation.as_strategy())
        def ask(case: schemathesis.Case) -> None:
            answer = case.call(timeout=30)
            assert answer.status_code < 500, answer.text
            if answer.status_code >= 400:
                assert answer.json()["error"]

        ask()


@pytest.mark.parametrize("value", [None, 3, [], {}, "x", [None], {"x": 1e400}, "\ud800", -1e300])
@pytest.mark.parametrize("where", ["region", "value", "x", "id", "type", "to_name", "original_width", "data"])
def test_no_damaged_region_does_either(address: str, where: str, value: Any) -> None:
    region: dict[str, Any] = {
        "id": "a", "type": "keypointlabels", "from_name": "click", "to_name": "image", "is_positive": True,
        "original_width": 64, "original_height": 64, "image_rotation": 0,
        "value": {"x": 50.0, "y": 50.0, "width": 0.3, "keypointlabels": ["Cell"]},
    }  # fmt: skip
    data: Any = {"image": "data:image/png;base64,iVBORw0KGgo="}
    if where == "x":
        region["value"]["x"] = value
    elif where == "data":
        data = {"image": value}
    elif where == "region":
        region = value
    else:
        region[where] = value
    request = {
        "tasks": [{"id": 1, "data": data}],
        "project": "1.1",
        "label_config": CONFIG,
        "params": {"context": {"result": [region]}},
    }
    answer = requests.post(f"{address}/predict", json.dumps(request), headers=JSON, timeout=30)
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.json()["error"]
    assert requests.get(f"{address}/health", timeout=30).status_code == 200

"""The Postman collection: complete, and of the shape that Postman reads."""

from __future__ import annotations

import re

from web.app import openapi_document
from web.postman import LAST, STORY, postman_collection


def test_every_operation_is_in_it_once_and_the_story_names_only_what_is_there() -> None:
    document = openapi_document()
    operations = {operation["operationId"] for path in document["paths"].values() for operation in path.values()}
    assert {step.operation for step in (*STORY, *LAST)} <= operations
    collection = postman_collection(document)
    sent = {
        (
            item["request"]["method"],
            re.sub(r"\{\{(\w+)\}\}", r"{\1}", item["request"]["url"]["raw"]).removeprefix("{base_url}").split("?")[0],
        )
        for item in collection["item"]
    }
    assert sent == {(method.upper(), path) for path, item in document["paths"].items() for method in item}


def test_each_request_checks_its_status() -> None:
    for item in postman_collection(openapi_document())["item"]:
        assert any("pm.test" in line for event in item["event"] for line in event["script"]["exec"])

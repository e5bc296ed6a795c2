"""The picture of the graph in the docs: current and whole, with the steps in the order in which they wait."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import Any

import pytest
from graph_picture import PICTURE, Node, content_of, drawn, graph_of


@pytest.fixture(scope="module")
def content() -> dict[str, Any]:
    return content_of("finetune")


def steps(node: Node) -> list[Node]:
    return [node] if not node.columns else [step for inner in node.inner for step in steps(inner)]


def test_the_committed_picture_is_that_of_the_compiled_graph(content: dict[str, Any]) -> None:
    assert PICTURE.read_text(encoding="utf-8") == drawn(content), "run `make compile`"


def test_every_step_stands_in_it_once(content: dict[str, Any]) -> None:
    words = [element.text for element in ET.fromstring(drawn(content)).iter() if element.tag.endswith("text")]
    executors = {
        name.removeprefix("exec-").replace("-", "_") for name in content["deploymentSpec"]["executors"]
    }
    assert sorted(words.count(name) for name in executors) == [1] * len(executors)
    assert {"if something new", "if nothing new", "if good enough", "if not good enough"} <= set(words)


def test_steps_follow_what_they_wait_for(content: dict[str, Any]) -> None:
    waits = {step.name: [each.name for each in step.waits_for] for step in steps(graph_of(content))}
    assert waits["promote"] == ["deploy"], "a promotion follows the rollout"
    assert waits["deploy"] == ["register"]
    assert waits["train"] == ["tokenize"]
    assert waits["finish"] == ["run"]


def test_colours_suit_light_and_dark() -> None:
    used = set(re.findall(r"var\((--[\w-]+)\)", PICTURE.read_text(encoding="utf-8")))
    (light, dark) = re.findall(r":root \{(.*?)\}", PICTURE.read_text(encoding="utf-8"), re.DOTALL)
    assert all(f"{name}:" in light and f"{name}:" in dark for name in used)


def test_the_graph_of_predictions_can_be_drawn_too() -> None:
    assert {step.name for step in steps(graph_of(content_of("predict")))} == {
        "choose",
        "split",
        "predict",
        "merge",
    }

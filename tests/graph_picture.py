"""The picture of a graph for the docs: `python tests/graph_picture.py` or make compile draws docs/graph.svg.

Drawn from the compiled file, so that it shows what a cluster is given: a box is a step, a frame a group that
runs only if its condition holds, and arrows lead from each step to what waits for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from pipelines.compiling import compiled

PICTURE = Path(__file__).parents[1] / "docs/graph.svg"

_BOX, _LINE, _GAP, _STACK, _PAD, _TITLE = 96, 46, 30, 18, 14, 24
_LETTER = 7
"""Width and height of a step; room beside, below, and inside a frame; of a frame's title and its letters."""
_COLORS = files("prottune.reports").joinpath("colors.css").read_text(encoding="utf-8")
_STYLE = """
text { font-family: system-ui, -apple-system, "Segoe UI", sans-serif; font-size: 14px; fill: var(--ink); }
.what { font-size: 11px; fill: var(--muted); } .step { font-weight: 600; }
.title { font-size: 12px; font-style: italic; fill: var(--muted); }
.ground { fill: var(--paper); stroke: var(--grid); }
rect.light { fill: var(--paper); stroke: var(--series-1); stroke-width: 1.5; }
rect.torch { fill: var(--paper); stroke: var(--series-2); stroke-width: 3; }
.frame { fill: var(--ground); stroke: var(--grid); } .choice { stroke: var(--muted); stroke-dasharray: 5 4; }
path { fill: none; stroke: var(--muted); stroke-width: 1.5; }
marker path { fill: var(--muted); stroke: none; }
"""
_MADE = ("system.Dataset", "system.Model")
_ALWAYS = "ALL_UPSTREAM_TASKS_COMPLETED"
"""How a task runs that runs also when those before it have failed."""


@dataclass
class Node:
    """A step, or a group of them, and where it stands in the picture."""

    name: str
    kind: str
    """light or torch (a step, by its image), frame (all of them), choice (runs if its condition holds), or
    choices (of which one runs)."""
    what: str = ""
    columns: list[list[Node]] = field(default_factory=list)
    waits_for: list[Node] = field(default_factory=list)
    x: float = 0
    y: float = 0
    width: float = _BOX
    height: float = _LINE
    line: float = _LINE / 2
    """How far below its top arrows meet it: at the middle of its first step."""

    @property
    def inner(self) -> list[Node]:
        return [node for column in self.columns for node in column]

    @property
    def begins(self) -> list[Node]:
        """Where arrows to it end: at its frame, or at each of the choices."""
        return self.inner if self.kind == "choices" else [self]


def graph_of(content: Mapping[str, Any]) -> Node:
    """The graph of a compiled file, without places."""
    executors = content["deploymentSpec"]["executors"]

    def node(task: Mapping[str, Any]) -> Node:
        component = content["components"][task["componentRef"]["name"]]
        name = task["taskInfo"]["name"]
        if "dag" not in component:
            image = executors[component["executorLabel"]]["container"]["image"]
            made = component.get("outputDefinitions", {}).get("artifacts", {})
            told = [key for key, each in made.items() if each["artifactType"]["schemaTitle"] in _MADE]
            told += ["always"] * (task.get("triggerPolicy", {}).get("strategy") == _ALWAYS)
            kind = "torch" if "torch_image" in image else "light"
            return Node(name.replace("-", "_"), kind, ", ".join(told))
        kind = "choice" if "condition" in task.get("triggerPolicy", {}) else "frame"
        if name.startswith("condition-branches"):
            return Node("", "choices", columns=[[node(each) for each in component["dag"]["tasks"].values()]])
        return Node(name, kind, columns=columns(component["dag"]["tasks"]))

    def columns(tasks: Mapping[str, Any]) -> list[list[Node]]:
        nodes = {key: node(task) for key, task in tasks.items()}
        before = {key: _nearest(key, tasks) for key in tasks}
        depth: dict[str, int] = {}
        while len(depth) < len(tasks):
            for key in tasks:
                if all(other in depth for other in before[key]):
                    depth[key] = 1 + max((depth[other] for other in before[key]), default=-1)
        for key, others in before.items():
            nodes[key].waits_for = [nodes[other] for other in sorted(others)]
        return [
            [nodes[key] for key in tasks if depth[key] == number] for number in range(max(depth.values()) + 1)
        ]

    return Node("", "root", columns=columns(content["root"]["dag"]["tasks"]))


def _nearest(key: str, tasks: Mapping[str, Any]) -> set[str]:
    """The tasks that one waits for, without those that these wait for anyway."""

    def before(each: str) -> set[str]:
        named = set(tasks[each].get("dependentTasks", []))
        return named.union(*(before(other) for other in named))

    named = set(tasks[key].get("dependentTasks", []))
    return named - set().union(*(before(other) for other in named))


def _measure(node: Node) -> None:
    """Give a group the size that its content needs."""
    if not node.columns:
        return
    for inner in node.inner:
        _measure(inner)
    pad, title = _room(node)
    widths = [max(inner.width for inner in column) for column in node.columns]
    node.line = pad + title + max(column[0].line for column in node.columns)
    lowest = max(
        node.line - column[0].line + sum(each.height + _STACK for each in column) - _STACK
        for column in node.columns
    )
    node.width = max(sum(widths) + _GAP * (len(widths) - 1), _LETTER * len(_told(node))) + 2 * pad
    node.height = lowest + pad


def _place(node: Node, x: float, y: float) -> None:
    """Put a node there, and what is in it: columns beside each other, their first nodes on one line."""
    node.x, node.y = x, y
    left = x + _room(node)[0]
    for column in node.columns:
        top = y + node.line - column[0].line
        for inner in column:
            _place(inner, left, top)
            top += inner.height + _STACK
        left += max(inner.width for inner in column) + _GAP


def _room(node: Node) -> tuple[float, float]:
    """Room that a frame needs on each side, and for its title."""
    return (0, 0) if node.kind in ("choices", "root") else (_PAD, _TITLE)


def _told(node: Node) -> str:
    return f"if {node.name}" if node.kind == "choice" else node.name


def _drawn(node: Node) -> list[str]:
    place = f'x="{node.x:g}" y="{node.y:g}" width="{node.width:g}" height="{node.height:g}"'
    lines = []
    if node.kind in ("light", "torch"):
        middle = node.x + node.width / 2
        down = 20 if node.what else 28
        lines.append(f'<rect class="{node.kind}" {place} rx="7"/>')
        lines.append(_text(middle, node.y + down, node.name, "step", "middle"))
        if node.what:
            lines.append(_text(middle, node.y + 36, node.what, "what", "middle"))
    elif node.kind in ("frame", "choice"):
        lines.append(f'<rect class="frame {node.kind}" {place} rx="10"/>')
        lines.append(_text(node.x + _PAD, node.y + 22, _told(node), "title"))
    for inner in node.inner:
        lines += _drawn(inner)
    return lines + [_arrow(source, target) for source in node.waits_for for target in node.begins]


def _arrow(source: Node, target: Node) -> str:
    """A line from one node to the next column; a bend where they stand at different heights."""
    x1, y1, x2, y2 = source.x + source.width, source.y + source.line, target.x - 2, target.y + target.line
    bend = (x1 + x2) / 2
    return (
        f'<path d="M{x1:g} {y1:g} C{bend:g} {y1:g} {bend:g} {y2:g} {x2:g} {y2:g}" marker-end="url(#head)"/>'
    )


def _text(x: float, y: float, words: str, kind: str, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(words)}</text>'


def _legend(y: float) -> list[str]:
    told = (
        ("light", 16, "a step in the light image"),
        ("torch", 240, "a step in the torch image, on GPUs where there are some"),
        ("frame choice", 640, "runs only if its condition holds"),
    )
    lines = []
    for kind, x, words in told:
        lines.append(f'<rect class="{kind}" x="{x}" y="{y - 11:g}" width="22" height="14" rx="4"/>')
        lines.append(_text(x + 30, y, words, "what"))
    return lines


def drawn(content: Mapping[str, Any]) -> str:
    """A compiled graph as SVG, in colours for light and dark."""
    graph = graph_of(content)
    _measure(graph)
    _place(graph, _PAD, _PAD)
    width, height = graph.width + 2 * _PAD, graph.height + 2 * _PAD + 24
    name = escape(content["pipelineInfo"]["displayName"])
    head = (
        '<marker id="head" viewBox="0 0 10 10" refX="8" refY="5" markerWidth="7" markerHeight="7" '
        'orient="auto">'
        '<path d="M0 0 L10 5 L0 10 z"/></marker>'
    )
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img">',
        f"<title>{name}</title>",
        f"<style>{_COLORS}{_STYLE}</style>",
        f"<defs>{head}</defs>",
        f'<rect class="ground" x="0.5" y="0.5" width="{width - 1:g}" height="{height - 1:g}" rx="12"/>',
        *_drawn(graph),
        *_legend(height - 14),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def content_of(graph: str) -> dict[str, Any]:
    """The first document of a compiled graph: the graph itself; the second says what Kubernetes gives."""
    found: dict[str, Any] = next(yaml.load_all(compiled(graph).read_bytes(), yaml.CSafeLoader))
    return found


if __name__ == "__main__":
    PICTURE.write_text(drawn(content_of("finetune")), encoding="utf-8")
    print(PICTURE)

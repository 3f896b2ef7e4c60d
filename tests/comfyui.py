"""What ComfyUI would say of a graph: node names, input names, links and types, by its own signatures as they were recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_FILE = Path(__file__).parent / "families" / "comfyui_nodes.json"
TABLE: dict[str, dict[str, Any]] = json.loads(_FILE.read_text(encoding="utf-8"))["nodes"]
_VALUES = {"INT": int, "FLOAT": (int, float), "STRING": str, "BOOLEAN": bool, "COMBO": str}


def is_widget(row: dict[str, Any]) -> bool:
    """Whether an input is a value, not a link."""
    return isinstance(row["type"], list) or row["type"] in _VALUES


def list_values(kind: str, inputs: dict[str, Any]) -> list[Any]:
    """What the editor keeps of a node: the values in order, whether a seed changes behind it, and a button to upload at the end."""
    rows = [row for row in TABLE[kind]["inputs"] if is_widget(row)]
    values = [[inputs[row["name"]], *(["fixed"] if row.get("control_after_generate") else [])] for row in rows]
    return [value for some in values for value in some] + ["image"] * any(row.get("image_upload") for row in rows)


def check_prompt(prompt: dict[str, Any]) -> None:
    """The form of the server."""
    for node in prompt.values():
        known = {row["name"]: row for row in TABLE[node["class_type"]]["inputs"]}
        needed = {name for name, row in known.items() if not row["optional"]}
        assert needed <= node["inputs"].keys() <= known.keys(), node
        for name, value in node["inputs"].items():
            kind = known[name]["type"]
            if not is_widget(known[name]):
                source, slot = value
                assert TABLE[prompt[source]["class_type"]]["outputs"][slot] == kind, (node, name)
            elif isinstance(kind, list):
                assert value in kind, (node, name)
            else:
                assert isinstance(value, _VALUES[kind]) and (kind == "BOOLEAN" or not isinstance(value, bool)), (node, name)
    assert [node["class_type"] for node in prompt.values()].count("SaveImage") == 1
    used = {value[0] for node in prompt.values() for value in node["inputs"].values() if isinstance(value, list)}
    assert {number for number, node in prompt.items() if node["class_type"] != "SaveImage"} == used  # nothing hangs in the air


def check_workflow(workflow: dict[str, Any], prompt: dict[str, Any]) -> None:
    """The form of the editor, which says the same."""
    nodes = {node["id"]: node for node in workflow["nodes"]}
    links = {link[0]: link[1:] for link in workflow["links"]}
    assert len(links) == len(workflow["links"]) == workflow["last_link_id"] and max(nodes) == workflow["last_node_id"]
    assert {str(number) for number in nodes} == prompt.keys()
    for number, node in nodes.items():
        row, said = TABLE[node["type"]], prompt[str(number)]
        assert node["type"] == said["class_type"]
        assert [one["name"] for one in node["inputs"]] == [one["name"] for one in row["inputs"] if not is_widget(one)]
        for place, one in enumerate(node["inputs"]):
            source, slot, target, target_slot, kind = links[one["link"]]
            assert (target, target_slot, kind) == (number, place, one["type"])
            assert said["inputs"][one["name"]] == [str(source), slot]
            assert one["link"] in nodes[source]["outputs"][slot]["links"]
        assert [one["type"] for one in node["outputs"]] == row["outputs"]
        assert node["widgets_values"] == list_values(node["type"], said["inputs"])
    assert len({tuple(node["pos"]) for node in nodes.values()}) == len(nodes)


def find(prompt: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """The inputs of all nodes of a kind."""
    return [node["inputs"] for node in prompt.values() if node["class_type"] == kind]

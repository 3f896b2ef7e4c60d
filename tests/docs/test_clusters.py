"""Examples for clusters: what they start is a command line of weber, and the variables are those that a process finds itself by."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import yaml

from weber.commands.verbs import app

ROOT = Path(__file__).parents[2]


def parse(words: list[str]) -> dict[str, Any]:
    """What the verb is called with. Raises CycloptsError for words that mean nothing."""
    assert Path(words[0]).name == "weber"
    return dict(app.parse_args(words[1:], exit_on_error=False, print_error=False)[1].arguments)


def test_a_job_of_two_machines() -> None:
    service, job = yaml.safe_load_all((ROOT / "examples" / "kubernetes.yaml").read_text(encoding="utf-8"))
    template = job["spec"]["template"]["spec"]
    [container] = template["containers"]
    [script] = container["args"]
    given = parse(shlex.split(script)[1:])
    name, nodes = job["metadata"]["name"], int(given["nodes"])
    assert nodes == job["spec"]["completions"] == job["spec"]["parallelism"] and job["spec"]["completionMode"] == "Indexed"
    assert service["metadata"]["name"] == template["subdomain"] and service["spec"]["selector"] == {"job-name": name}
    domain = template["subdomain"]
    assert given["resume"] and given["at"] == f"{name}-0.{domain}:29400" and given["address"] == f"`hostname`.{domain}"
    assert {one["name"] for one in container["volumeMounts"]} == {one["name"] for one in template["volumes"]}


def test_a_pytorchjob() -> None:
    [text] = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "parallel.md").read_text(encoding="utf-8"), re.DOTALL)
    specs = yaml.safe_load(text)["spec"]["pytorchReplicaSpecs"]
    assert set(specs) == {"Master", "Worker"} and specs["Worker"]["template"] == specs["Master"]["template"]
    [container] = specs["Worker"]["template"]["spec"]["containers"]
    assert container["name"] == "pytorch" and container["resources"]["limits"] == {"nvidia.com/gpu": 1}
    assert parse(container["command"])["resume"]

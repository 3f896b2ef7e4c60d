"""What a run's plan says beside what the run did: pictures, cuts, memory and time."""

from __future__ import annotations

from typing import Any

from weber.config.run import RunConfig
from weber.errors import WeberError
from weber.planning.budget import build_estimate
from weber.planning.data_report import describe_pictures
from weber.planning.plan import build_plan
from weber.progress import Progress


def describe_plan(config: RunConfig, progress: Progress) -> dict[str, Any]:
    """Seconds of a step, bytes and lines on the pictures; where the model or the pictures are not here any more, why there are none."""
    try:
        plan = build_plan(config, progress, is_resumed=True)
        estimate = build_estimate(plan.config, plan.workload)
    except WeberError as error:
        return {"why": error.what}
    found = {"perStep": estimate.time.seconds, "pictures": "\n".join(describe_pictures(plan))}
    # on a processor what was measured is the whole process, with all libraries
    return found if plan.device.type == "cpu" else found | {"memory": estimate.peak.num_bytes}

"""The teacher's answers to the fixed pairs, asked before the first step and kept in the cache."""

from __future__ import annotations

from weber.cache.store import Store
from weber.cache.writer import Writer
from weber.planning.lessons import ANSWER_NAME
from weber.planning.plan import Plan, list_lacking
from weber.progress import Progress, ignore_progress
from weber.training.batch import Loader
from weber.training.learner import Learner
from weber.training.question import build_question, draw_timesteps

_WHAT = "asking the teacher"


def write_answers(plan: Plan, learner: Learner, *, loader: Loader, store: Store, progress: Progress = ignore_progress) -> int:
    """Ask for what the cache lacks, one picture at a time, so that no answer depends on its neighbors; their number."""
    lacking = list_lacking(plan, store)
    if not lacking:
        return 0
    progress(_WHAT, 0, len(lacking))
    with Writer(store) as writer:
        for done, (key, lesson) in enumerate(lacking.items(), start=1):
            batch = loader.load_lesson(lesson)
            (t_B,) = draw_timesteps(learner, [batch], step=0)
            writer.add(key, {ANSWER_NAME: build_question(learner, batch, t_B=t_B, step=0).target_BCHW[0]})
            progress(_WHAT, done, len(lacking))
    return len(lacking)

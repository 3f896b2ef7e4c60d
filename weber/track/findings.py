"""What goes wrong with a run, as the recorded signals tell it: a row for each fault, and in its words the setting to change.

Each row is silent where there is too little to say it: a fault is only one if it is there beyond what chance makes of a few steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from statistics import fmean, median, stdev
from typing import NamedTuple

from weber.track.scores import EMPTY, HELD_OUT, LEARNED
from weber.track.signals import GRADIENT, LIKENESS, NOISE, UPDATE, Signals, Use

_NUM_BINS, _TINY = 8, 1e-12
_LEAST_USES, _MOST_USES = 40, 1000
"""Of pictures, at the start and at the end of a run, to be compared."""
_RISE, _ERRORS = 1.2, 4.0
_SCORES_RISE = 1.05
_EXPLODED, _VANISHED, _WINDOW = 30.0, 1e-3, 10
_STILL, _WILD, _NO_GRADIENT = 1e-7, 0.5, 1e-6
_GAP, _PAST_BEST = 0.1, 1.05
_SAME_CAPTION = 1e-3
_ABOVE, _FAR, _FEW_USES, _FEWEST, _NUM_NAMED = 1.3, 2.2, 6, 5, 3
_NOISY, _NOISIER, _ALIKE, _APART = 0.5, 1.7, 0.97, 0.9


class Finding(NamedTuple):
    """A fault, by the name of its row, and in a sentence."""

    name: str
    text: str


def list_findings(signals: Signals) -> list[Finding]:
    """All that goes wrong, in the order of the rows."""
    found = ((name, detect(signals)) for name, detect in DETECTORS.items())
    return [Finding(name, text) for name, text in found if text is not None]


def _find_rising_loss(signals: Signals) -> str | None:
    """On pictures that are learned, at fixed noise where that is measured; else of uses at equal noise levels."""
    scores = _list_scores(signals, LEARNED)
    if len(scores) >= 2:
        rise = scores[-1][LEARNED] / scores[0][LEARNED]
        is_rising = rise > _SCORES_RISE and scores[-1][HELD_OUT] > _SCORES_RISE * scores[0][HELD_OUT]
        where = "on pictures that are learned, at the same noise,"
    else:
        first, last = _split(signals)
        if len(first) < _LEAST_USES:
            return None
        before, after = _relate(first, last)
        start = max(fmean(before), _TINY)
        rise, error = fmean(after) / start, math.hypot(_error(before), _error(after)) / start
        is_rising, where = rise > _RISE and rise - 1 > _ERRORS * error, "at equal noise levels"
    if not is_rising:
        return None
    return f"the loss {where} is {100 * (rise - 1):.0f} % higher than at the start, so the run unlearns: lower optim.lr to a third"


def _find_exploding(signals: Signals) -> str | None:
    start, end = _compare(signals.norms)
    if end <= _EXPLODED * start or start == 0:
        return None
    return (
        f"gradients have grown to {end / start:.3g} times their size at the start ({start:.3g} to {end:.3g}): lower optim.lr to a third, or"
        " set optim.warmup_steps"
    )


def _find_vanishing(signals: Signals) -> str | None:
    start, end = _compare(signals.norms)
    if start > 0 and end < _VANISHED * start:
        return f"gradients are gone, from {start:.3g} to {end:.3g}, and nothing more is learned: start again with a lower optim.lr"
    gradients = {name: one for name, one in signals.probes[-1].items() if name.startswith(GRADIENT)} if signals.probes else {}
    idle = [name.removeprefix(GRADIENT) for name, one in gradients.items() if one <= _NO_GRADIENT * max(gradients.values())]
    if not idle:
        return None
    return f"no gradient reaches {', '.join(idle)}, so nothing is learned there: leave them out with adapter.exclude"


def _find_still(signals: Signals) -> str | None:
    """Weights that hardly move, while the schedule is not at one of its ends."""
    ways = _list_updates(signals.probes[-1]) if signals.probes else {}
    if not ways or max(ways.values()) >= _STILL or signals.lr_share < 0.5:
        return None
    return f"a step moves the weights by {max(ways.values()):.1g} of their size, which is nothing: raise optim.lr a hundredfold"


def _find_wild(signals: Signals) -> str | None:
    """In any step that was looked at: weights that have grown a hundredfold move by a small share again."""
    wild = [(way, name, probe["step"]) for probe in signals.probes for name, way in _list_updates(probe).items() if way > _WILD]
    if not wild:
        return None
    way, name, step = max(wild)
    return f"step {step:g} moved the weights of {name} by {100 * way:.0f} % of their size, which forgets what they were: lower optim.lr"


def _find_over_fitting(signals: Signals) -> str | None:
    scores = _list_scores(signals, LEARNED)
    if len(scores) < 3:
        return None
    now, start, best = scores[-1], scores[0], min(scores, key=lambda line: line[HELD_OUT])
    gap = now[HELD_OUT] / start[HELD_OUT] - now[LEARNED] / start[LEARNED]
    if gap <= _GAP or now[HELD_OUT] <= _PAST_BEST * best[HELD_OUT] or now[LEARNED] > start[LEARNED]:
        return None
    where = "before the first step" if best is start else f"after step {best['step']:g}"
    return (
        f"over-fitting: pictures that are learned have {100 * (1 - now[LEARNED] / start[LEARNED]):.0f} % less loss than at the start, those"
        f" that are held out {100 * (now[HELD_OUT] / start[HELD_OUT] - 1):+.0f} % and were best {where}: stop there (train.steps), lower"
        " adapter.rank or optim.lr, or add pictures"
    )


def _find_stuck_pictures(signals: Signals) -> str | None:
    """Pictures that are far above all others at equal noise levels in the later half of their last uses, and were above in the earlier."""
    means = _average_levels([use for uses in signals.uses.values() for use in uses])
    shares = {name: [use.loss / means[_place(use)] for use in uses] for name, uses in signals.uses.items() if len(uses) >= _FEW_USES}
    if len(shares) < _FEWEST:
        return None
    early = {name: fmean(one[: len(one) // 2]) for name, one in shares.items()}
    late = {name: fmean(one[len(one) // 2 :]) for name, one in shares.items()}
    usual, usual_late = median(early.values()), max(median(late.values()), _TINY)
    ratios = {name: one / usual_late for name, one in late.items() if early[name] > _ABOVE * usual}
    far = {name: ratio for name, ratio in ratios.items() if ratio > _FAR}
    if not far or len(far) > len(shares) // 4:
        return None
    named = sorted(far, key=lambda name: -far[name])
    shown = ", ".join(f"{PurePath(name).name} ({far[name]:.1f} times)" for name in named[:_NUM_NAMED])
    more = f" and {len(named) - _NUM_NAMED} more" if len(named) > _NUM_NAMED else ""
    return f"the loss of {shown}{more} stays far above that of others: look at the pictures and captions, or remove them"


def _find_idle_captions(signals: Signals) -> str | None:
    """Of the last evaluation, once something was learned."""
    scores = _list_scores(signals, EMPTY)
    if len(scores) < 2:
        return None
    more = scores[-1][EMPTY] / scores[-1][HELD_OUT] - 1
    if abs(more) >= _SAME_CAPTION:
        return None
    return (
        f"captions make no difference: with the empty caption the loss of pictures that are held out changes by {100 * more:+.2f} %: look"
        " whether captions belong to their pictures and whether model.text_encoder is whole, and lower data.caption_dropout"
    )


def _find_noise(signals: Signals) -> str | None:
    looks = [line for line in signals.looks if NOISE in line]
    if len(looks) < 2 or looks[-1][NOISE] < max(_NOISY, _NOISIER * looks[0][NOISE]):
        return None
    return (
        f"painted pictures turn into noise ({looks[-1][NOISE]:.0%} of their contrast is between neighbors, {looks[0][NOISE]:.0%} in the"
        " first ones): go on from an earlier checkpoint with a lower optim.lr"
    )


def _find_collapse(signals: Signals) -> str | None:
    looks = [line for line in signals.looks if LIKENESS in line]
    if len(looks) < 2 or looks[-1][LIKENESS] < _ALIKE or looks[0][LIKENESS] > _APART:
        return None
    return (
        f"pictures of different prompts have become one picture (likeness {looks[-1][LIKENESS]:.2f}, {looks[0][LIKENESS]:.2f} in the first"
        " ones): go on from an earlier checkpoint with a lower optim.lr, or add pictures and captions that differ"
    )


Detector = Callable[[Signals], str | None]
DETECTORS: dict[str, Detector] = {
    "rising_loss": _find_rising_loss,
    "exploding_gradients": _find_exploding,
    "vanishing_gradients": _find_vanishing,
    "weights_hardly_move": _find_still,
    "weights_move_too_far": _find_wild,
    "over_fitting": _find_over_fitting,
    "stuck_pictures": _find_stuck_pictures,
    "idle_captions": _find_idle_captions,
    "painted_noise": _find_noise,
    "painted_collapse": _find_collapse,
}


def _list_scores(signals: Signals, part: str) -> list[Mapping[str, float]]:
    """Evaluations with that part; where masks leave nothing to be learned there is nothing to be compared."""
    return [line for line in signals.scores if min(line.get(part, 0.0), line[HELD_OUT]) > 0]


def _list_updates(probe: Mapping[str, float]) -> dict[str, float]:
    """By group."""
    return {name.removeprefix(UPDATE): way for name, way in probe.items() if name.startswith(UPDATE)}


def _compare(norms: Sequence[float]) -> tuple[float, float]:
    """At the start and at the end of a run, its own noise apart."""
    return (median(norms[:_WINDOW]), median(norms[-_WINDOW:])) if len(norms) >= 2 * _WINDOW else (0.0, 0.0)


def _split(signals: Signals) -> tuple[Sequence[Use], Sequence[Use]]:
    """Uses at the start and at the end of a run, a third of it each at most."""
    last = list(signals.last)
    number = min(_MOST_USES, len(signals.first) // 3)
    return signals.first[:number], last[-number:] if number else []


def _place(use: Use) -> int:
    return min(_NUM_BINS - 1, int(_NUM_BINS * use.level))


def _average_levels(uses: Sequence[Use]) -> dict[int, float]:
    """The mean loss of each range of noise levels."""
    found: dict[int, list[float]] = {}
    for use in uses:
        found.setdefault(_place(use), []).append(use.loss)
    return {place: max(fmean(losses), _TINY) for place, losses in found.items()}


def _relate(first: Sequence[Use], last: Sequence[Use]) -> tuple[list[float], list[float]]:
    """Losses as shares of what is usual at their noise level."""
    means = _average_levels([*first, *last])
    return [use.loss / means[_place(use)] for use in first], [use.loss / means[_place(use)] for use in last]


def _error(numbers: Sequence[float]) -> float:
    """Of their mean."""
    return stdev(numbers) / math.sqrt(len(numbers))

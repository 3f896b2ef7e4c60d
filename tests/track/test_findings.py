"""Each row of the doctor's table, on signals that have its fault, and on the nearest ones that have not."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest

from weber.track.findings import DETECTORS, list_findings
from weber.track.scores import EMPTY, HELD_OUT, LEARNED
from weber.track.signals import GRADIENT, LIKENESS, LOSS_AT, NOISE, UPDATE, Signals, Use

HEALTHY_PROBE = {"step": 1, f"{UPDATE}single": 0.005, f"{UPDATE}double": 0.01, f"{GRADIENT}single": 0.2, f"{GRADIENT}double": 0.4}


def build(*, fall: float = 0.2, num_steps: int = 60, odd: float = 1.0) -> Signals:
    """A run of ten pictures whose loss falls by that share; that of the last one is `odd` times the others'."""
    signals, generator = Signals(), random.Random(0)
    for step in range(num_steps):
        uses = []
        for number in range(5):
            picture, level = (5 * step + number) % 10, generator.random()
            factor = (1 - fall * step / num_steps) * generator.uniform(0.8, 1.2) * (odd if picture == 9 else 1.0)
            uses.append(Use(f"/set/{picture}.png", level, (1.5 - level) * factor))
        signals.note({"grad_norm": generator.uniform(0.5, 2.0)}, uses)
    signals.probes.append(HEALTHY_PROBE)
    return signals


def score(signals: Signals, *rows: tuple[float, float, float]) -> Signals:
    """With evaluations: held out, learned, empty caption."""
    signals.scores += [{"step": 10 * place, HELD_OUT: one, LEARNED: two, EMPTY: three} for place, (one, two, three) in enumerate(rows)]
    return signals


def look(signals: Signals, *rows: Mapping[str, float]) -> Signals:
    signals.looks += rows
    return signals


def probe(signals: Signals, **numbers: float) -> Signals:
    signals.probes.append(HEALTHY_PROBE | {name.replace("_", "/"): number for name, number in numbers.items()})
    return signals


def norm(signals: Signals, factor: float) -> Signals:
    signals.norms += [factor * one for one in signals.norms[:20]]
    return signals


def late(signals: Signals) -> Signals:
    signals.lr_share = 0.01
    return signals


def zero(signals: Signals) -> Signals:
    """Nothing is learned of any picture."""
    silent = Signals(norms=[0.0] * 60)
    for use in signals.last:
        silent.note({"grad_norm": 0.0}, [use._replace(loss=0.0)])
    return silent


HEALTHY = {
    "falling": build(),
    "standing": build(fall=0.0),
    "short": build(num_steps=3, fall=-5.0),
    "evaluated": score(build(), (1.0, 1.0, 1.1), (0.9, 0.85, 1.0), (0.86, 0.8, 0.95)),
    "noisy evaluation": score(build(), (1.0, 1.0, 1.1), (0.9, 0.85, 1.0), (0.93, 0.84, 0.95)),
    "worse with captions": score(build(), (1.0, 1.0, 0.8), (0.9, 0.85, 0.7)),
    "first evaluation": score(build(), (1.0, 1.0, 1.0)),
    "at the end of a schedule": late(probe(build(), update_single=1e-9, update_double=1e-9)),
    "larger gradients": norm(build(), 5.0),
    "smaller gradients": norm(build(), 0.05),
    "harder pictures": build(odd=1.4),
    "painted": look(build(), {NOISE: 0.2, LIKENESS: 0.1}, {NOISE: 0.3, LIKENESS: 0.3}),
    "noise from the start": look(build(), {NOISE: 0.8, LIKENESS: 0.99}, {NOISE: 0.9, LIKENESS: 1.0}),
    "nothing yet": Signals(),
    "masks that leave nothing": score(build(fall=1.0, odd=0.0), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0)),
    "losses of zero": zero(build()),
}
FAULTS = {
    "rising_loss": [build(fall=-0.8), score(build(), (1.0, 1.0, 1.1), (1.2, 1.1, 1.4))],
    "exploding_gradients": [norm(build(), 100.0)],
    "vanishing_gradients": [norm(build(), 1e-5), probe(build(), gradient_single=0.0)],
    "weights_hardly_move": [probe(build(), update_single=1e-9, update_double=0.0)],
    "weights_move_too_far": [probe(probe(build(), update_single=8.0), update_single=0.01)],
    "over_fitting": [score(build(), (1.0, 1.0, 1.1), (0.8, 0.7, 0.9), (0.95, 0.3, 1.1))],
    "stuck_pictures": [build(odd=4.0)],
    "idle_captions": [score(build(), (1.0, 1.0, 1.1), (0.9, 0.9, 0.9002))],
    "painted_noise": [look(build(), {NOISE: 0.25}, {NOISE: 0.75})],
    "painted_collapse": [look(build(), {NOISE: 0.2, LIKENESS: 0.3}, {NOISE: 0.2, LIKENESS: 0.99})],
}


@pytest.mark.parametrize("name", HEALTHY)
def test_nothing_is_found_in_a_healthy_run(name: str) -> None:
    assert list_findings(HEALTHY[name]) == []


@pytest.mark.parametrize(("name", "signals"), [(name, one) for name, rows in FAULTS.items() for one in rows])
def test_a_fault_is_found_alone_and_said_with_what_to_change(name: str, signals: Signals) -> None:
    found = list_findings(signals)
    assert [one.name for one in found] == [name]
    assert ": " in found[0].text and not found[0].text.endswith(".") and "\n" not in found[0].text


def test_every_row_has_its_fault() -> None:
    assert list(FAULTS) == list(DETECTORS)


def test_pictures_are_named() -> None:
    [found] = list_findings(build(odd=4.0))
    assert "the loss of 9.png (" in found.text and "/set/" not in found.text


def test_losses_by_noise_level_are_those_since_the_last_reading() -> None:
    signals = Signals()
    signals.note({"grad_norm": 1.0}, [Use("a", 0.1, 2.0), Use("a", 0.2, 4.0), Use("a", 0.9, 1.0)])
    assert signals.take_losses() == {f"{LOSS_AT}0.25": 3.0, f"{LOSS_AT}1": 1.0}
    assert signals.take_losses() == {}


def test_what_was_recorded_goes_on() -> None:
    signals = Signals()
    readings = [HEALTHY_PROBE, {"step": 1, NOISE: 0.2}, {"step": 1, f"{LOSS_AT}1": 1.0}]
    signals.load([{"step": 1, "grad_norm": 0.5}, {"step": 2, "loss": 1.0}], readings, scores=[{"step": 1, HELD_OUT: 1.0}])
    assert (signals.norms, signals.probes, signals.looks, len(signals.scores)) == ([0.5], readings[:1], readings[1:2], 1)

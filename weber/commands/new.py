"""`weber new`: a file of settings, by a few questions."""

from __future__ import annotations

import shlex
import sys
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from weber.commands.terminal import build_watcher, say
from weber.errors import ConfigError, WeberError

if TYPE_CHECKING:
    from weber.planning.plan import Plan
    from weber.questions.answers import Answers, Model

_CARDS = ("RTX 5090", "RTX 4090", "RTX 3090", "RTX 5080", "RTX 4080", "RTX 4070", "RTX 4060 Ti", "RTX 3060", "L40S", "A100", "H100")
"""Those that many people have or rent; any other can be typed."""


@dataclass(frozen=True)
class Given:
    """Answers that are given before anybody is asked."""

    word: Annotated[str | None, Parameter(help="The word for what is in the pictures, which prompts will have.")] = None
    model: Annotated[str | None, Parameter(help="Which model learns it: a name of `weber variants`.")] = None
    card: Annotated[str | None, Parameter(help='The GPU it will run on, such as "RTX 4090"; left out: that of this machine.')] = None
    steps: Annotated[int | None, Parameter(help="How many steps it trains; left out: about 100 for each picture.")] = None
    prompt: Annotated[list[str], Parameter(help="A prompt that is painted on the way; may be given several times.", negative="")] = field(
        default_factory=list
    )
    name: Annotated[str | None, Parameter(help="Name of the run's folder below `runs`; left out: the word.")] = None


def new(
    folder: Path | None = None,
    /,
    *,
    given: Annotated[Given | None, Parameter(name="*")] = None,
    out: Annotated[Path, Parameter(name=["--out", "-o"])] = Path("run.toml"),
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    yes: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Ask a few questions, and write a file of settings with remarks. What flags say is not asked; in a pipe nothing is, and what is not
    said is as usual.

    Parameters
    ----------
    folder
        The folder of pictures.
    out
        The TOML file to write.
    overwrite
        Write over a file that is there.
    yes
        Ask nothing: what is not said is as usual.
    """
    given = given or Given()
    asks = not yes and sys.stdin.isatty() and sys.stdout.isatty()
    _check(out, given.steps, asks=asks, overwrite=overwrite)
    if out.exists() and not overwrite and asks:
        from weber.questions.asking import ask_file

        chosen = ask_file(out)
        if chosen is None:
            return
        out = chosen
    if folder is None and not asks:
        raise ConfigError("Nobody is asked here which folder it is.", got="weber new", expected="a folder", fix="write weber new pictures")
    answers = _ask(folder, given) if asks else _take(folder or Path(), given)
    from weber.questions.answers import write_run

    text = write_run(answers, file=shlex.quote(out.as_posix()))
    _save(out, text)
    say(f"\nWritten: {out}\n")
    say("\n".join(f"  {line}".rstrip() for line in text.splitlines()))
    say(f"\nWhat would happen:\n{_describe(text, out)}\n\n{_say_start(answers)}: weber train {shlex.quote(str(out))}")


def _say_start(answers: Answers) -> str:
    return "To start" if answers.card is None else f"To start, on the machine with {answers.card}"


def _take(folder: Path, given: Given) -> Answers:
    """What was given, and for the rest what is usual."""
    from weber.questions.answers import Answers
    from weber.questions.folder import read_folder

    looked, models, here = read_folder(folder), _list_models(), _find_gpu()
    model = _find_usual(models, here=here, card=given.card) if given.model is None else _find_model(models, given.model)
    prompts = tuple(given.prompt)
    return Answers(looked, given.word, model, given.card, here is not None, steps=given.steps, prompts=prompts, name=given.name)


def _ask(folder: Path | None, given: Given) -> Answers:
    """What was given, and for the rest what somebody answers."""
    from weber.questions.answers import Answers
    from weber.questions.asking import ask_card, ask_folder, ask_model, ask_prompts, ask_steps, ask_word

    looked = ask_folder(say, first=folder)
    word = given.word or ask_word(looked)
    models, here = _list_models(), _find_gpu()
    card = given.card or ask_card(_CARDS, here=here)
    usual = _find_usual(models, here=here, card=card)
    model = ask_model(models, usual=usual) if given.model is None else _find_model(models, given.model)
    answers = Answers(looked, word, model, card, here is not None, steps=given.steps, prompts=tuple(given.prompt), name=given.name)
    if given.steps is None:
        answers = replace(answers, steps=ask_steps(answers.chosen_steps, describe=_build_measure(answers)))
    return answers if given.prompt else replace(answers, prompts=tuple(ask_prompts(answers.chosen_prompts)))


def _find_usual(models: Sequence[Model], *, here: str | None, card: str | None) -> Model:
    """The first of the table; where no GPU is, the one that needs none."""
    if here is not None or card is not None:
        return models[0]
    small = next(one for one in models if one.is_small)
    say(f'This machine has no GPU. {small.name} is small enough for it, and shows how it goes; --card "RTX 4090" is for another one.')
    return small


def _check(out: Path, steps: int | None, *, asks: bool, overwrite: bool) -> None:
    """Refuse what can be refused before anybody is asked."""
    if out.suffix.lower() != ".toml" or out.is_dir():
        raise ConfigError(f"{out} is no TOML file.", got=f"--out {out}", expected="the name of a TOML file", fix="write --out run.toml")
    if out.exists() and not overwrite and not asks:
        fix = "write --out with another name, or --overwrite"
        raise ConfigError(f"{out} is there already.", got=f"--out {out}", expected="the name of a new file", fix=fix)
    if steps is not None and steps < 1:
        raise ConfigError("A run has steps.", got=f"--steps {steps}", expected="a whole number, at least 1", fix="write --steps 1000")


def _list_models() -> list[Model]:
    """The models of the table, the usual one first."""
    from weber.families.table import FAMILIES
    from weber.questions.answers import Model

    rows = [(name, *row) for family in FAMILIES for name, row in family.variants.items()]
    return [Model(name, summary, home, is_small=Path(home).is_absolute()) for name, home, summary in rows]


def _find_model(models: Sequence[Model], name: str) -> Model:
    from weber.config.near import find_near

    found = next((one for one in models if one.name == name), None)
    if found is not None:
        return found
    names = [one.name for one in models]
    near = find_near(name, names)
    fix = f"did you mean {near}?" if near is not None else "`weber variants` lists them"
    raise ConfigError(f"There is no model {name!r}.", got=f"--model {name}", expected=", ".join(names), fix=fix)


def _find_gpu() -> str | None:
    """The GPU of this machine by its name."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def _build_plan(text: str) -> Plan:
    from weber.config.load import build_config
    from weber.planning.plan import build_plan

    watcher = build_watcher()
    with watcher.shown():
        return build_plan(build_config(tomllib.loads(text)), watcher.report)


def _build_measure(answers: Answers) -> Callable[[int], str]:
    """Says how long steps take, as far as the plan knows it."""
    from weber.planning.budget import build_estimate
    from weber.planning.costs import write_seconds
    from weber.questions.answers import write_run

    try:
        plan = _build_plan(write_run(answers))
        seconds = build_estimate(plan.config, plan.workload).time.seconds
    except WeberError as error:
        say(f"It is not known how long that takes: {error.what}")
        return lambda steps: "which takes as long as it takes"
    return lambda steps: f"about {write_seconds(steps * seconds)}"


def _save(out: Path, text: str) -> None:
    from weber.config.document import read_document, write_document

    out.parent.mkdir(parents=True, exist_ok=True)
    write_document(read_document(out), text)


def _describe(text: str, out: Path) -> str:
    """The plan in short. Raises WeberError where the run cannot be; the file is written all the same."""
    from weber.planning.budget import build_estimate
    from weber.planning.costs import list_seconds, write_seconds
    from weber.planning.report import build_summary

    try:
        plan = _build_plan(text)
        estimate = build_estimate(plan.config, plan.workload)
        whole = write_seconds(sum(list_seconds(plan, estimate).values()))
    except WeberError as error:
        raise ConfigError(
            f"{out} is written, but the run cannot be like that yet: {error.what}",
            got=error.got,
            expected=error.expected,
            fix=error.fix or f"change {out}, and look with weber plan {out}",
        ) from error
    peak, gib = estimate.peak, 2**30
    lines = [*build_summary(plan).splitlines(), f"most memory: {peak.num_bytes / gib:.2f} GiB, {peak.name}"]
    lines.append(f"the whole run: about {whole} on {estimate.rates_name}, without reading the model; `weber plan {out}` says more")
    return "\n".join(f"  {line}" for line in lines)

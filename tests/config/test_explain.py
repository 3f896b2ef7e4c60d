"""Wrong configs: each is one ConfigError that names the key, what was got and what to change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from weber.config.load import build_config, load_config
from weber.config.settings import list_settings
from weber.errors import ConfigError

SET = '[[data]]\npath = "pictures"\n'


def _refuse(folder: Path, text: str, overrides: Sequence[str] = ()) -> ConfigError:
    path = folder / "run.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return caught.value


# text of the file, start of the message, what was got, part of the fix
ZOO: dict[str, tuple[str, str, str, str]] = {
    "a choice misspelled": (SET + 'crop = "centre"', "data.0.crop cannot", '"centre"', 'write data.0.crop = "center"'),
    "a choice in capitals": (SET + '[memory]\ndtype = "BF16"', "memory.dtype cannot", '"BF16"', 'write memory.dtype = "bf16"'),
    "a name of no optimizer": (SET + '[optim]\nname = "prodigi"', 'optim.name: "prodigi" is no optimizer', '"prodigi"', 'name = "prodigy"'),
    "a number in quotes": (SET + '[train]\nsteps = "10"', "train.steps cannot", '"10"', "write train.steps = 10"),
    "a float for a count": (SET + "[train]\nsteps = 10.0", "train.steps cannot", "10.0", "write train.steps = 10"),
    "half a step": (SET + "[train]\nsteps = 0.5", "train.steps cannot", "0.5", "a whole number, at least 1"),
    "true for a count": (SET + "[train]\nbatch_size = true", "train.batch_size cannot", "true", "remove it for the default 1"),
    "a word for a number": (SET + '[optim]\nlr = "fast"', "optim.lr cannot", '"fast"', "a number above 0"),
    "zero for a count": (SET + "repeats = 0", "data.0.repeats cannot", "0", "at least 1"),
    "below zero": (SET + "[train]\nseed = -1", "train.seed cannot", "-1", "at least 0"),
    "not a number": (SET + "[optim]\nlr = nan", "optim.lr cannot", "nan", "a number above 0"),
    "infinity": (SET + "[adapter]\nalpha = inf", "adapter.alpha cannot", "inf", "a number above 0; or remove it"),
    "dropout of one": (SET + "[adapter]\ndropout = 1.0", "adapter.dropout cannot", "1.0", "at least 0 and below 1"),
    "beyond both limits": (SET + "max_aspect = 20", "data.0.max_aspect cannot", "20", "at least 1 and at most 16"),
    "yes for true": (SET + 'upscale = "yes"', "data.0.upscale cannot", '"yes"', "write data.0.upscale = true"),
    "one for true": (SET + "[adapter]\ndora = 1", "adapter.dora cannot", "1", "true or false"),
    "a number for text": (SET + "name = 2024", "data.0.name cannot", "2024", 'write data.0.name = "2024"'),
    "a date for text": (SET + "name = 2024-05-01", "data.0.name cannot", "2024-05-01", 'write data.0.name = "2024-05-01"'),
    "one text for a list": (SET + '[sampling]\nprompts = "a cat"', "sampling.prompts cannot", '"a cat"', 'prompts = ["a cat"]'),
    "a number in a list": (SET + '[sampling]\nprompts = ["a", 5]', "sampling.prompts cannot", '["a", 5]', "a list of texts"),
    "a list for one value": (SET + "[adapter]\nrank = [8]", "adapter.rank cannot", "[8]", "write adapter.rank = 8"),
    "one beta": (SET + "[optim]\nbetas = [0.9]", "optim.betas cannot", "[0.9]", "a list of 2 numbers, each at least 0 and below 1"),
    "clipping at zero": (SET + "[optim]\nclip_norm = 0", "optim.clip_norm cannot", "0", 'a number above 0 or "off"'),
    "empty text": ('[[data]]\npath = ""', "data.0.path: an empty text", '""', "set it"),
    "a tab in a path": ('[[data]]\npath = "C:\\train"', "data.0.path: a path holds a tab", '"C:\\train"', "single quotes"),
    "a variable in a path": ('[[data]]\npath = "$HOME/pictures"', "data.0.path: only a shell", "$HOME", "~ for your home"),
    "a variable of Windows": (SET + "[output]\nfolder = '%TEMP%/run'", "output.folder: only a shell", "%TEMP%/run", "write the folder"),
    "a variable in a place": (SET + '[model]\npath = "${MODELS}/dev"', "model.path: only a shell", "${MODELS}", "write the folder"),
    "a key misspelled": (SET + "[train]\nstep = 5", "train.step is not a setting", "train.step = 5", "use train.steps (Optimizer steps)"),
    "a key in another section": (SET + "[train]\nlr = 1e-3", "train.lr is not a setting", "train.lr = 0.001", "use optim.lr"),
    "a key of another trainer": (SET + "[train]\nlearning_rate = 1", "train.learning_rate is", "train.learning_rate = 1", "use optim.lr"),
    "a key in capitals with dashes": (SET + "[adapter]\nNetwork-Dim = 8", "adapter.Network-Dim is", "Dim = 8", "use adapter.rank"),
    "a key of two meanings": (SET + "[train]\nguidance_scale = 3", "train.guidance_scale is", "= 3", "objective.guidance"),
    "a key of another trainer for a table": (
        SET + "[objective]\nscheduled_sampling_max_step_offset = 2",
        "objective.scheduled_sampling_max_step_offset is not",
        "= 2",
        "use objective.rollout.max_steps",
    ),
    "a key that begins with a model": (SET + "[objective]\nx_guidance_min = 2", "objective.x_guidance_min is", "= 2", "guidance_range"),
    "a reading of the answer that is not ours": (
        SET + '[objective]\nmodel_prediction_type = "sigma_scaled"',
        "objective.model_prediction_type is not a setting: these models answer with the velocity",
        '"sigma_scaled"',
        "remove it",
    ),
    "the reading of the answer that is ours": (
        SET + '[objective]\nmodel-prediction-type = "raw"',
        "objective.model-prediction-type is not a setting: ",
        '"raw"',
        "remove it; it is what weber does in any case",
    ),
    "what only noise schedules have": (SET + "[train]\nsnr_gamma = 5", "train.snr_gamma is not a setting: it belongs", "= 5", "remove it"),
    "what is off in any case": (SET + "[train]\nnoise_offset = 0", "train.noise_offset is not", "= 0", "what weber does in any case"),
    "what has no place outside sections": ("snr_gamma = 5\n" + SET, "snr_gamma is not a setting: it belongs", "= 5", "remove it"),
    "an unknown key": (SET + "[train]\nflubber = 5", "train.flubber is not a setting", "flubber = 5", "remove it"),
    "an unknown key of a set": (SET + 'caption = "textfile"', "data.0.caption is not", "caption = ", "use data.0.captions"),
    "an unknown section": (SET + "[zebra]\nx = 1", "zebra is not a section", "zebra = {x = 1}", "remove it"),
    "a section of another trainer": (SET + "[optimizer]\nlr = 1", "optimizer is not a section", "{lr = 1}", "write [optim]"),
    "a section misspelled": (SET + "[outputs]\nkeep_last = 1", "outputs is not a section", "keep_last", "write [output]"),
    "sets under another name": ('[[datasets]]\npath = "a"\n' + SET, "datasets is not a section", "path", "write [[data]]"),
    "a key outside sections": ("lr = 1e-3\n" + SET, "lr stands outside any section", "lr = 0.001", "use optim.lr"),
    "a value for a section": ("train = 5\n" + SET, "train cannot", "5", "write [train] on a line of its own"),
    "a list for a section": (SET + "[[train]]\nsteps = 5", "train cannot", "[{steps = 5}]", "write [train] once, with one bracket"),
    "a section for a value": ("[train.steps]\nx = 5\n" + SET, "train.steps cannot", "{x = 5}", "a whole number"),
    "no data": ("[train]\nsteps = 5", "data is missing", "no [[data]]", "write [[data]]"),
    "an empty list of sets": ("data = []", "data cannot", "[]", "write [[data]]"),
    "a folder for the sets": ('data = "pictures"', "data cannot", '"pictures"', 'write [[data]] and below it path = "pictures"'),
    "folders for the sets": ('data = ["pictures"]', "data.0 cannot", '"pictures"', 'write [[data]] and below it path = "pictures"'),
    "one bracket for a set": ('[data]\npath = "pictures"', "data cannot", '{path = "pictures"}', "two brackets"),
    "a set without a path": ("[[data]]\nrepeats = 2", "data.0: the set has no pictures", "", 'write path = "folder/of/pictures"'),
    "two sets of one name": (SET + SET, "data: two sets are named pictures", "pictures", 'name = "pictures-2"'),
    "crops that are not random": (SET + "num_crops = 3", "data.0: num_crops has no effect", "num_crops = 3", 'crop = "random"'),
    "a prompt without its kind": (SET + 'instance_prompt = "x"', "data.0: instance_prompt has no", '"x"', 'captions = "instance"'),
    "a kind without its prompt": (SET + 'captions = "instance"', "data.0: captions = ", '"instance"', "set it to the caption"),
    "a square without a crop": (
        SET + 'aspect = "square"\ncrop = "off"',
        "data.0: aspect",
        'aspect = "square", crop = "off"',
        'crop = "center"',
    ),
    "aspects of squares": (SET + 'aspect = "square"\nmax_aspect = 2', "data.0: max_aspect", "max_aspect = 2", "remove it"),
    "steps and epochs": (SET + "[train]\nsteps = 5\nepochs = 2", "train: steps and epochs", "steps = 5, epochs = 2", "keep one"),
    "shift of a draw without one": (
        SET + '[objective]\ntimesteps = "fast"\nshift = 3', "objective: shift has no effect", "shift = 3", 'timesteps = "sigmoid"'
    ),
    "a draw without its shift": (SET + '[objective]\ntimesteps = "shift"', "objective: timesteps", '"shift"', "shift = 3.0"),
    "a scale of nothing": (
        SET + '[objective]\ntimesteps = "uniform"\nsigmoid_scale = 2',
        "objective: sigmoid_scale has no effect",
        'timesteps = "uniform", sigmoid_scale = 2',
        "remove it",
    ),
    "an end that is never reached": (SET + "[optim]\nend_lr = 1e-6", "optim: end_lr has no", "end_lr = 1e-06", 'schedule = "linear"'),
    "a power of nothing": (SET + "[optim]\npower = 2", "optim: power has no effect", "power = 2", 'schedule = "polynomial"'),
    "a rate that rises": (SET + '[optim]\nschedule = "linear"\nend_lr = 1', "optim.end_lr = 1.0 is above", "end_lr = 1", "only go down"),
    "pictures without prompts": (SET + "[sampling]\nevery = 5", "sampling: every cannot take effect", "every = 5", "sampling.prompts"),
}


@pytest.mark.parametrize("name", ZOO)
def test_a_wrong_config_is_one_message(name: str, tmp_path: Path) -> None:
    text, what, got, fix = ZOO[name]
    error = _refuse(tmp_path, text)
    assert error.what.startswith(what)
    assert got in error.got
    assert fix in error.fix or fix in error.expected
    assert error.fix
    assert "\n" not in error.what, "one problem, one sentence"


def test_every_problem_is_listed_in_one_message(tmp_path: Path) -> None:
    error = _refuse(tmp_path, SET + 'crop = "centre"\n[train]\nsteps = "10"\nbatch = 2\n[optim]\nend_lr = 1e-6\n[zebra]\n')
    assert error.what.startswith("5 settings cannot be used\n1. ")
    for key in ("data.0.crop", "train.steps", "train.batch is not", "optim: end_lr", "zebra is not a section"):
        assert key in error.what
    assert error.what.count("fix: ") == 5


def test_the_problems_of_a_union_are_one(tmp_path: Path) -> None:
    assert _refuse(tmp_path, SET + '[optim]\nclip_norm = "on"').what == "optim.clip_norm cannot have this value"


def test_a_wrong_override_is_explained_like_a_line_of_the_file(tmp_path: Path) -> None:
    error = _refuse(tmp_path, SET, ["sampling.prompts=a cat"])
    assert (error.got, error.fix) == ('"a cat"', 'write sampling.prompts = ["a cat"]')


def test_a_long_value_is_cut_in_the_message(tmp_path: Path) -> None:
    assert len(_refuse(tmp_path, SET + f'crop = "{"x" * 5000}"').got) < 200


def test_a_value_that_toml_does_not_know_is_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        build_config({"data": [{"path": "a"}], "train": {"steps": object()}})
    assert caught.value.got.startswith("<object object")


@pytest.mark.parametrize("key", [setting.key for setting in list_settings()])
def test_every_setting_explains_a_wrong_value_and_a_misspelled_key(key: str) -> None:
    home, _, name = key.rpartition(".")
    wrong_value = 7 if name in _TABLES else {"x": [[]]}
    for wrong, expected in (({name: wrong_value}, f"{key} cannot have this value"), ({f"{name}x": 1}, f"{key}x is not a setting")):
        tree: dict[str, object] = {"data": [{"path": "a"}]} | _nest(home.split("."), {"path": "a", **wrong} if home == "data.0" else wrong)
        with pytest.raises(ConfigError) as caught:
            build_config(tree)
        assert f"{expected}\n" in f"{caught.value}\n"
    assert f"use {key} (" in str(caught.value)


_TABLES = {setting.name for setting in list_settings() if setting.table is not None}


def _nest(parts: Sequence[str], table: Mapping[str, object]) -> dict[str, Any]:
    """A tree with a table at that place; 0 is the first of a list."""
    inner: Any = dict(table)
    for part in reversed(parts):
        inner = [inner] if part == "0" else {part: inner}
    assert isinstance(inner, dict)
    return inner

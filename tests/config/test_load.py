"""A file and `section.key=value` become one config; a config written to disk is read back equal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from weber.config.data import DataConfig
from weber.config.load import build_config, list_changes, load_config, save_config
from weber.config.optim import LARGEST_LR, OptimConfig
from weber.config.output import OutputConfig, SamplingConfig
from weber.config.run import RunConfig
from weber.config.settings import Setting, list_settings
from weber.config.train import TrainConfig
from weber.errors import ConfigError

SHORTEST = '[[data]]\npath = "pictures"\n'


def _write(folder: Path, text: str) -> Path:
    path = folder / "run.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_shortest_file_is_a_run(tmp_path: Path) -> None:
    assert load_config(_write(tmp_path, SHORTEST)) == RunConfig(data=[DataConfig(path=Path("pictures"))])


def test_overrides_change_and_add(tmp_path: Path) -> None:
    config = load_config(
        _write(tmp_path, SHORTEST + "[train]\nsteps = 7\n"),
        ["train.seed=5", "data.0.resolution=512", "data.1.path=more", "optim.lr=2e-4", "optim.betas=[0.8, 0.9]", "memory.dtype=fp32"],
    )
    assert (config.train.steps, config.train.seed) == (7, 5)
    assert [(data.path, data.resolution) for data in config.data] == [(Path("pictures"), 512), (Path("more"), None)]
    assert (config.optim.lr, config.optim.betas, config.memory.dtype) == (2e-4, (0.8, 0.9), "fp32")


def test_no_file_is_needed() -> None:
    assert load_config(None, ["data.0.path=pictures", "data.0.repeats=3"]).data[0].repeats == 3


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r"C:\new\pictures", Path(r"C:\new\pictures")),
        (r"\\server\share", Path(r"\\server\share")),
        ("pictures/with space", Path("pictures/with space")),
        ("2026-05-01", Path("2026-05-01")),
        ("a=b", Path("a=b")),
        ('"quoted"', Path("quoted")),
        ("#1", Path("#1")),
        ("Bücher/猫", Path("Bücher/猫")),
        ("a\nb = 2", None),
    ],
)
def test_a_value_that_is_not_toml_is_text(text: str, value: Path | None) -> None:
    overrides = [f"data.0.path={text}"]
    if value is None:
        with pytest.raises(ConfigError, match="line break"):
            load_config(None, overrides)
    else:
        assert load_config(None, overrides).data[0].path == value


def test_lists_are_set_as_a_whole_or_one_by_one() -> None:
    whole = load_config(None, ["data.0.path=a", 'sampling.prompts=["a cat", "a = b"]'])
    single = load_config(None, ["data.0.path=a", "sampling.prompts.0=a cat", "sampling.prompts.1=a = b"])
    assert whole.sampling.prompts == single.sampling.prompts == ["a cat", "a = b"]


def test_an_entry_of_a_list_in_the_file_is_changed(tmp_path: Path) -> None:
    path = _write(tmp_path, SHORTEST + '[sampling]\nprompts = ["a", "b"]\n')
    assert load_config(path, ["sampling.prompts.1=c"]).sampling.prompts == ["a", "c"]


@pytest.mark.parametrize(
    ("override", "what", "fix"),
    [
        ("train.steps", "'train.steps' is not a setting", "equals sign"),
        ("=5", "'=5' is not a setting", "the key"),
        ("train..steps=5", "'train..steps=5' is not a setting", "write train.steps=5"),
        ("data.-1.path=x", "data.-1 cannot be set: data is a list of 1", "write data.0.path"),
        ("data.first.path=x", "data.first cannot be set: data is a list of 1", "write data.0.path"),
        ("data.path=x", "data.path cannot be set: data is a list of 1", "write data.0.path"),
        ("data.2.path=x", "data.2 cannot be set: data is a list of 1", "write data.1.path"),
        ("train.steps.x=1", "train.steps.x cannot be set: train.steps is not a section", "use train.steps=value"),
        ("data.0.path=\udcff", "data.0.path holds characters that are not text", "UTF-8"),
    ],
)
def test_a_wrong_override_is_one_message(tmp_path: Path, override: str, what: str, fix: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(_write(tmp_path, SHORTEST + "[train]\nsteps = 3\n"), [override])
    assert caught.value.what == what
    assert caught.value.got
    assert fix in caught.value.fix


def test_a_key_given_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="train.steps is given twice on the command line"):
        load_config(None, ["data.0.path=a", "train.steps=1", "train.steps=2"])


@pytest.mark.parametrize(
    ("overrides", "key", "value"),
    [
        (["train.steps=null"], "train.steps", None),
        (["adapter.rank=null"], "adapter.rank", 16),
        (["adapter=null"], "adapter.rank", 16),
        (["optim.lr=null"], "optim.lr", None),
        (["adapter.rules=null"], "adapter.rules", []),
        (["data.1=null"], "data.0.name", "a"),
        (["data.0=null"], "data.0.name", "b"),
        (["data.2.path=c", "data.0=null", "data.1=null"], "data.0.set_name", "c"),
        (["data.0.repeats=null", "data.0.captions=filename"], "data.0.repeats", 1),
        (["sampling.prompts.0=null"], "sampling.prompts", ["y"]),
    ],
)
def test_null_leaves_out_what_the_file_says(tmp_path: Path, overrides: list[str], key: str, value: object) -> None:
    path = tmp_path / "run.toml"
    path.write_text(
        '[[data]]\npath = "a"\nname = "a"\nrepeats = 3\n[[data]]\npath = "b"\nname = "b"\n[train]\nsteps = 5\n[adapter]\nrank = 4\n'
        '[[adapter.rules]]\nmatch = "x"\nrank = 2\n[sampling]\nprompts = ["x", "y"]\n',
        encoding="utf-8",
    )
    found: Any = load_config(path, overrides)
    for part in key.split("."):
        found = found[int(part)] if part.isdecimal() else getattr(found, part)
    assert found == value


@pytest.mark.parametrize(("override", "what"), [("optim.lrr=null", "optim.lrr is not a setting"), ("zebra=null", "zebra stands outside")])
def test_null_for_what_there_is_not_is_a_mistake(tmp_path: Path, override: str, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        load_config(None, ["data.0.path=a", override])


def test_quotes_keep_null_a_text() -> None:
    assert load_config(None, ["data.0.path=a", 'data.0.name="null"']).data[0].name == "null"


@pytest.mark.parametrize(
    ("override", "right"),
    [
        ("data.0.conditioning=[zorb]", "\"data.0.conditioning=['zorb']\""),
        ("sampling.prompts=[a cat, a dog]", "\"sampling.prompts=['a cat', 'a dog']\""),
        ("adapter.targets=[attn.to_k,attn.to_q]", "\"adapter.targets=['attn.to_k', 'attn.to_q']\""),
        ("data.0.instance_prompt=[a cat,a dog]", "\"data.0.instance_prompt=['a cat', 'a dog']\""),
        ("objective.timestep_list=[high,0.5]", "\"objective.timestep_list=['high', 0.5]\""),
        ("optim.options={d_coef=0.8,mode=fast}", "\"optim.options={d_coef = 0.8, mode = 'fast'}\""),
        ("objective.rollout={ramp=cosine,ramp_steps=5}", "\"objective.rollout={ramp = 'cosine', ramp_steps = 5}\""),
    ],
)
def test_a_list_whose_quotes_the_shell_took_is_told_from_a_text(override: str, right: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, ["data.0.path=a", override])
    assert "has lost its quotes" in caught.value.what
    assert right in caught.value.fix


def test_a_text_in_brackets_is_a_text_where_no_list_can_be() -> None:
    assert load_config(None, ["data.0.path=a", "data.0.name=[v] dog", "output.folder=[x]"]).data[0].name == "[v] dog"


@pytest.mark.parametrize(
    ("override", "right"),
    [
        ("adapter.targets=attn.to_k,attn.to_q", '["attn.to_k", "attn.to_q"]'),
        ("adapter.targets=to_k to_q", '["to_k", "to_q"]'),
        ('adapter.targets=["attn.to_k, attn.to_q"]', '["attn.to_k", "attn.to_q"]'),
        ('adapter.exclude=["a,b", "c"]', '["a", "b", "c"]'),
        ("adapter.exclude=a,b", '["a", "b"]'),
        ('adapter.rules.0={match = "a,b", rank = 2}', "write a rule for each"),
    ],
)
def test_several_names_in_one_text_are_several(override: str, right: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, ["data.0.path=a", override])
    assert right in caught.value.fix


@pytest.mark.parametrize("targets", [["attn.to_[kq]"], ["attn.to_[k,q]", "*.proj_out"], "all+ffs", "ai-toolkit"])
def test_one_name_is_one(targets: object) -> None:
    assert build_config({"data": [{"path": "a"}], "adapter": {"targets": targets}}).adapter.targets == targets


def test_the_tree_is_not_changed() -> None:
    tree = {"data": [{"path": "a"}], "train": {"steps": 3}}
    build_config(tree)
    assert tree == {"data": [{"path": "a"}], "train": {"steps": 3}}


def test_only_what_differs_from_its_default_is_a_change() -> None:
    overrides = ["data.0.path=a", "data.1.path=b", "data.1.repeats=1", "data.1.crop=random", "train.steps=9", "optim.warmup_steps=0"]
    config = load_config(None, overrides)
    assert list_changes(config) == [
        ("data.0.path", Path("a"), None),
        ("data.1.path", Path("b"), None),
        ("data.1.crop", "random", "center"),
        ("train.steps", 9, None),
    ]


WORDS = st.text(min_size=1, max_size=12).filter(lambda text: text.strip())
PATHS = st.lists(st.text("abc .-_äß猫\"'", min_size=1, max_size=6).filter(str.strip), min_size=1, max_size=3).map("/".join).map(Path)
COUNTS = st.integers(1, 10**12)
POSITIVE = st.floats(min_value=0, exclude_min=True, allow_infinity=False)


NO_FILE = st.text().filter(lambda text: "." not in text)


@st.composite
def _draw_data(draw: st.DrawFn) -> DataConfig:
    instance = draw(st.none() | WORDS | st.lists(WORDS, min_size=1, max_size=3))
    crop = draw(st.sampled_from(["off", "center", "random", "corner"]))
    return DataConfig(
        path=draw(PATHS),
        name=draw(WORDS),
        repeats=draw(COUNTS),
        captions="instance" if instance else draw(st.sampled_from(["textfile", "filename", "none"])),
        instance_prompt=instance,
        resolution=draw(POSITIVE),
        crop=crop,
        num_crops=draw(st.none() | COUNTS) if crop == "random" else None,
        max_aspect=draw(st.floats(1, 16)),
    )


def _draw_configs() -> SearchStrategy[RunConfig]:
    return st.builds(
        RunConfig,
        data=st.lists(_draw_data(), min_size=1, max_size=3, unique_by=lambda data: data.name),
        optim=st.builds(
            OptimConfig,
            lr=st.floats(0, LARGEST_LR, exclude_min=True),
            clip_norm=POSITIVE | st.just("off"),
            betas=st.tuples(st.floats(0, 0.999), st.floats(0, 0.999)),
            warmup_steps=st.integers(0, 10**12),
        ),
        train=st.builds(TrainConfig, steps=st.none() | COUNTS, seed=st.integers(0, 2**64)),
        sampling=st.just(SamplingConfig())
        | st.builds(SamplingConfig, prompts=st.lists(NO_FILE, min_size=1), width=st.none() | st.just(16)),
        output=st.builds(
            OutputConfig,
            folder=PATHS,
            name=st.none() | st.just("my-style.v2"),
            cache=PATHS,
            save_every=COUNTS | st.just("2 epochs"),
            keep_last=COUNTS | st.just("all"),
            trackers=st.lists(st.sampled_from(["tensorboard", "trackio", "wandb"]), unique=True),
        ),
    )


@given(config=_draw_configs())
def test_a_saved_config_is_loaded_equal(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("saved") / "run.toml"
    save_config(config, path)
    assert load_config(path) == config
    assert list_changes(load_config(path)) == list_changes(config)


def _is_there(setting: Setting) -> bool:
    """Tables are there only if somebody writes one."""
    return setting.default not in (None, {}) and "." not in setting.section


def test_a_saved_config_holds_every_setting_and_replaces_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "config.toml"
    save_config(load_config(None, ["data.0.path=a"]), path)
    save_config(load_config(None, ["data.0.path=b"]), path)
    assert [file.name for file in path.parent.iterdir()] == ["config.toml"]
    lines = path.read_text(encoding="utf-8").splitlines()
    assert 'path = "b"' in lines
    written = {line.partition(" = ")[0] for line in lines}
    assert [setting.key for setting in list_settings() if _is_there(setting) and setting.name not in written] == []

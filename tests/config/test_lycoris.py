"""The settings of LyCORIS: its own files are read as they are, and what cannot act is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from weber.config.load import build_config, load_config, save_config
from weber.config.run import RunConfig
from weber.errors import ConfigError

STOCK = {
    "algo": "lokr",
    "multiplier": 1.0,
    "linear_dim": 10000,
    "linear_alpha": 1,
    "factor": 16,
    "apply_preset": {
        "target_module": ["Attention", "FeedForward"],
        "module_algo_map": {"Attention": {"factor": 16}, "FeedForward": {"factor": 8}},
    },
}
"""What SimpleTuner comes with."""


def build(lycoris: object, **adapter: Any) -> RunConfig:
    return build_config({"data": [{"path": "."}], "adapter": {"kind": "lycoris", "lycoris": lycoris, **adapter}})


def test_the_stock_file_is_read_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "lycoris_config.json"
    file.write_text(json.dumps(STOCK | {"dropout": None}))
    config = build(str(file))
    assert config == build(STOCK)
    lycoris = config.adapter.lycoris
    assert lycoris is not None and config.adapter.form == "lokr" and config.optim.choose_lr("lokr") == 1e-3
    layers = lycoris.build_layers()
    assert {key: (one.factor, one.dim) for key, one in layers.items()} == {
        "": (16, 10000),
        "module_algo_map.Attention": (16, 10000),
        "module_algo_map.FeedForward": (8, 10000),
    }


def test_as_toml_on_the_command_line_and_back(tmp_path: Path) -> None:
    file = tmp_path / "lycoris_config.json"
    file.write_text(json.dumps(STOCK))
    written = tmp_path / "run.toml"
    written.write_text(f"[[data]]\npath = '.'\n[adapter]\nkind = 'lycoris'\nlycoris = '{file}'\n")
    config = load_config(written)
    assert config == load_config(None, ["data.0.path=.", "adapter.kind=lycoris", f"adapter.lycoris='{file}'"])
    save_config(config, tmp_path / "saved.toml")
    again = load_config(tmp_path / "saved.toml")
    assert again == config
    assert again.adapter.lycoris is not None and config.adapter.lycoris is not None
    assert again.adapter.lycoris.build_layers() == config.adapter.lycoris.build_layers()


def test_an_entry_inherits_what_acts_in_its_form() -> None:
    preset = {"target_module": ["A"], "module_algo_map": {"A": {"algo": "loha"}}}
    lycoris = build({"algo": "lokr", "factor": 4, "linear_dim": 8, "apply_preset": preset}).adapter.lycoris
    assert lycoris is not None
    entry = lycoris.build_layers()["module_algo_map.A"]
    assert (entry.algo, entry.dim, entry.factor) == ("loha", 8, -1)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "factor with loha": ({"algo": "loha", "factor": 4}, 'factor has no effect with algo = "loha"'),
    "alpha with full": ({"algo": "full", "linear_alpha": 4.0}, 'linear_alpha has no effect with algo = "full"'),
    "constraint with lokr": ({"constraint": 0.1}, 'constraint has no effect with algo = "lokr"'),
    "lengths of turns": ({"algo": "boft", "dora_wd": True}, 'dora_wd has no effect with algo = "boft"'),
    "bypass with loha": ({"algo": "loha", "bypass_mode": True}, 'bypass_mode has no effect with algo = "loha"'),
    "bypass with dora": ({"dora_wd": True, "bypass_mode": True}, "bypass_mode cannot act with"),
    "direction without dora": ({"wd_on_output": False}, "wd_on_output has no effect without"),
    "rank": ({"rank": 4}, "rank is called linear_dim here"),
    "name of a map": ({"alpha": 4}, "alpha is called linear_alpha here"),
    "decomposed and whole": ({"full_matrix": True, "decompose_both": True}, "decompose_both has no effect with full_matrix"),
    "multiplier": ({"multiplier": 0.5}, "set linear_alpha"),
    "tucker": ({"use_tucker": True}, "use_tucker is for convolutions"),
    "scalar": ({"use_scalar": True}, "use_scalar is not in the file"),
    "norms": ({"train_norm": True}, "train_norm cannot act"),
    "block size": ({"block_size": 4}, "block_size is for dylora"),
    "convolutions": ({"conv_dim": 4}, "conv_dim is for convolutions"),
    "dropout of turns": ({"algo": "diag-oft", "dropout": 0.1}, 'dropout has no effect with algo = "diag-oft"'),
    "dropout of dora": ({"dora_wd": True, "rank_dropout": 0.1}, "rank_dropout cannot act with DoRA"),
    "ia3": ({"algo": "ia3"}, 'algo = "ia3" is not trained'),
    "dylora": ({"algo": "dylora"}, 'algo = "dylora" is not trained'),
    "tlora": ({"algo": "tlora"}, 'algo = "tlora" is not trained'),
    "in a map": (
        {"apply_preset": {"target_module": ["A"], "module_algo_map": {"A": {"algo": "loha", "factor": 4}}}},
        "apply_preset.module_algo_map.A: factor has no effect",
    ),
    "unknown in a map": ({"apply_preset": {"target_module": ["A"], "module_algo_map": {"A": {"fctor": 4}}}}, "A: fctor is not a setting"),
    "name of the top in a map": (
        {"apply_preset": {"target_module": ["A"], "module_algo_map": {"A": {"linear_dim": 4}}}},
        "A: linear_dim is called dim here",
    ),
    "capitals in a map": ({"apply_preset": {"target_module": ["A"], "module_algo_map": {"A": {"algo": "LoHa"}}}}, "A: algo = 'LoHa'"),
    "names alone": ({"apply_preset": {"target_name": ["a"]}}, "changes all linear layers in LyCORIS"),
    "nothing": ({"apply_preset": {"target_module": []}}, "apply_preset names no layers"),
    "pattern": ({"apply_preset": {"target_module": [], "target_name": ["*a"]}}, "is no regular expression"),
    "unknown": ({"linear_dimm": 4}, "linear_dimm"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    table, message = REFUSED[case]
    with pytest.raises(ConfigError) as caught:
        build(table)
    assert message in str(caught.value) and "fix" in str(caught.value)


@pytest.mark.parametrize(
    ("adapter", "message"),
    [
        ({"rank": 4}, "rank cannot act"),
        ({"targets": "attention"}, "targets cannot act with lycoris.apply_preset"),
        ({"exclude": ["a"]}, "exclude cannot act with lycoris.apply_preset"),
    ],
)
def test_refused_beside_it(adapter: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(STOCK, **adapter)
    assert message in str(caught.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    cases = {
        "absent.json": (None, "no such file"),
        "bad.json": ("{", "is not JSON"),
        "other.json": ("\ufeff{}", "UTF-8"),
        "list.json": ("[1]", r"with \[1\]"),
    }
    for name, (text, message) in cases.items():
        if text is not None:
            (tmp_path / name).write_text(text, encoding="utf-16-le" if name == "other.json" else "utf-8")
        with pytest.raises(ConfigError, match=message):
            build(str(tmp_path / name))
    (tmp_path / "unknown.json").write_text('{"algo": "lokr", "fctor": 4}')
    with pytest.raises(ConfigError, match="fctor"):
        build(str(tmp_path / "unknown.json"))

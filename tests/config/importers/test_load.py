"""Whose file it is, what is no file of a trainer, and the way back: a written import is the same run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from weber.config.importers.commented import write_commented
from weber.config.importers.load import import_run, load_any
from weber.config.importers.outcome import Imported
from weber.config.importers.page import build_page
from weber.config.importers.report import list_groups, write_page, write_report, write_summary
from weber.config.importers.table import TOOLS
from weber.config.load import load_config
from weber.errors import ConfigError

FILES = Path(__file__).parent / "files"
STARTS = {
    "ai-toolkit": ("ai_toolkit/dev.yaml", "ai_toolkit/klein-ui.json"),
    "diffusers": ("diffusers/schnell.sh", "diffusers/prior.bat", "diffusers/klein.ps1", "diffusers/kontext.ipynb"),
    "kohya": ("kohya/fluxgym", "kohya/lokr.bat", "kohya/blocks.ps1", "kohya/gui_lora.json", "kohya/boat.ipynb"),
    "onetrainer": ("onetrainer/save", "onetrainer/klein", "onetrainer/tags/config.json"),
    "simpletuner": ("simpletuner/env", "simpletuner/toml", "simpletuner/kontext", "simpletuner/webui/config.json"),
}
CASES = [(tool, name) for tool, names in STARTS.items() for name in names]


@pytest.fixture(scope="module")
def imported() -> dict[str, Imported]:
    return {name: import_run(FILES / name) for _, name in CASES}


@pytest.mark.parametrize(("tool", "name"), CASES)
def test_each_trainer_knows_its_files_and_no_others(imported: dict[str, Imported], tool: str, name: str) -> None:
    assert imported[name].tool == tool
    config, found = load_any(FILES / name)
    assert found is not None and config == imported[name].config


@pytest.mark.parametrize("name", [name for _, name in CASES])
def test_what_is_written_is_the_same_run(tmp_path: Path, imported: dict[str, Imported], name: str) -> None:
    text = write_commented(imported[name])
    (tmp_path / "run.toml").write_text(text, encoding="utf-8")
    assert load_config(tmp_path / "run.toml") == imported[name].config
    settings = [line for line in text.splitlines() if " = " in line and not line.startswith("#")]
    assert len(settings) >= 5
    is_told, before = False, ""
    for line in text.splitlines():
        is_said = "  # " in line or before.startswith("# ")
        is_told = is_said if line.startswith("[") else is_told  # the whole table came from there
        assert line not in settings or is_told or is_said, f"{line} does not say where it came from"
        before = line
    assert load_any(tmp_path / "run.toml") == (imported[name].config, None)


@pytest.mark.parametrize("name", [name for _, name in CASES])
def test_the_report_has_every_key_once(imported: dict[str, Imported], name: str) -> None:
    found = imported[name]
    given = [one for one in found.outcomes if not one.given.is_default and "the last one counts" not in one.line]
    spelled = [(one.given.spelled, one.given.where) for one in given]
    assert len(spelled) == len(set(spelled)), [one for one in spelled if spelled.count(one) > 1]
    text = write_report(found)
    for outcome in found.outcomes:
        assert outcome.line, outcome.given
        if not outcome.is_example and not outcome.given.is_default:
            assert outcome.given.spelled in text
    assert write_page(found).count("\n- ") == sum(len(group.lines) for group in list_groups(found))
    refused = [one for one in found.outcomes if one.kind == "refused"]
    assert write_summary(found).count("cannot be had") == len(refused)


def test_settings_behind_the_file_count() -> None:
    found = import_run(FILES / "ai_toolkit/dev.yaml", ["optim.lr=0.5", "data.0.path=elsewhere"])
    assert found.config.optim.lr == 0.5 and found.config.data[0].path == Path("elsewhere")
    assert found.origins["optim.lr"] == "optim.lr=0.5 (command line)"


def test_a_trainer_may_be_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="weber reads no files of musubi"):
        import_run(FILES / "ai_toolkit/dev.yaml", tool="musubi")
    assert import_run(FILES / "ai_toolkit/dev.yaml", tool="AI-Toolkit").tool == "ai-toolkit"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("other.json", '{"hello": 1}', "is of no trainer that weber knows"),
        ("list.json", "[1, 2]", "is of no trainer that weber knows"),
        ("half.json", '{"learning_rate": 1e-4,', "is not valid JSON at line 1"),
        ("other.sh", "python my_trainer.py --lr 1", "a script that calls my_trainer.py"),
        ("none.sh", "echo hello", "calls no Python program"),
        ("sdxl.sh", "accelerate launch sdxl_train_network.py --network_dim 4", "sdxl"),
        ("pickle.pt", "abc", r"the ending \.pt"),
        ("run.exe", "abc", "the ending .exe"),
    ],
)
def test_files_of_nobody(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        import_run(tmp_path / name)
    assert caught.value.fix


def test_folders(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a folder without a file that any known trainer begins with"):
        import_run(tmp_path)
    with pytest.raises(ConfigError, match="there is no file"):
        import_run(tmp_path / "none.json")


def test_toml_of_our_own_is_read_as_such_also_with_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text('[[data]]\npath = "pictures"\n')
    assert load_any(tmp_path / "run.toml")[1] is None
    (tmp_path / "run.toml").write_text('[[data]]\npath = "pictures"\n[trian]\nsteps = 1\n')
    with pytest.raises(ConfigError, match="trian"):
        load_any(tmp_path / "run.toml")


def test_mistakes_of_our_own_are_said_as_such(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text('[[data]]\npath = "pictures"\n')
    with pytest.raises(ConfigError, match="has the settings of weber already"):
        import_run(tmp_path / "run.toml")
    with pytest.raises(ConfigError, match=r"^train\.stps is not a setting"):
        import_run(FILES / "ai_toolkit/dev.yaml", ["train.stps=3"])


def test_what_weber_refuses_is_said_with_the_key_that_it_came_from(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text(json.dumps({"job": "extension", "config": {"name": "x", "process": [{"type": "sd_trainer"}]}}))
    with pytest.raises(ConfigError):
        import_run(tmp_path / "job.json")


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
def test_pages_are_as_they_would_be_made_now_and_hold_every_key(tool: object) -> None:
    from weber.config.importers.answers import list_names
    from weber.config.importers.tool import Tool

    assert isinstance(tool, Tool)
    page = build_page(tool)
    assert all(f"`{name}`" in page for table in tool.tables.values() for name in list_names(table))
    assert all("| |" not in line for line in page.splitlines()), "every row says what becomes of the key"

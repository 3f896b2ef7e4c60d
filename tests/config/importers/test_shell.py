"""Scripts are read as shells read them, and never run."""

from __future__ import annotations

import pytest

from weber.config.importers.shell import UNREAD, Dialect, check_read, parse_notebook, parse_script, read_flags
from weber.errors import ConfigError

LAUNCH = [("lr", "1e-4"), ("out", "a b"), ("args", ["x=1", "y=2"]), ("flag", True)]


@pytest.mark.parametrize(
    ("dialect", "text"),
    [
        ("sh", "python train.py --lr 1e-4 --out 'a b' --args x=1 y=2 --flag"),
        ("sh", 'python train.py \\\n  --lr=1e-4 \\  \n  --out="a b" \\\n  --args "x=1" "y=2" \\\n  --flag\n'),
        ("sh", "python train.py\n  --lr 1e-4 --out a\\ b\n  # --lr 2\n  --args x=1 y=2\n  --flag"),
        ("sh", 'LR=1e-4\nexport OUT="a b" ARGS="x=1 y=2"\npython train.py --lr ${LR} --out "$OUT" --args $ARGS --flag > log.txt'),
        ("cmd", 'set LR=1e-4\npython train.py ^\n  --lr %LR% ^--out "a b" ^\n:: a remark\n  --args x=1 y=2 ^\n  --flag\n'),
        ("powershell", '$lr = "1e-4"\npython train.py `\n  --lr $lr --out "a b" `\n  --args x=1 y=2 `\n  --flag\n'),
    ],
)
def test_a_command_is_its_words(dialect: Dialect, text: str) -> None:
    [command] = parse_script(text, dialect=dialect).commands
    assert command.words[:2] == ("python", "train.py")
    found = [(name, value[0] if name == "flag" and isinstance(value, list) else value) for name, value in read_flags(command.words)]
    assert found[:3] == LAUNCH[:3] and found[3][0] == "flag"


def test_variables_sums_conditions_and_additions() -> None:
    text = """
export STEPS=1000  # @param {type:"number"}
export EVERY=$((STEPS / 10 + 5))
export HALF=$(( ${STEPS} / 2 ))
ARGS="--a=1"
ARGS="${ARGS} --b=2"
ARGS+=" --c"
if [[ -z "$NAME" ]]; then NAME="none"; fi
if [ "$STEPS" == "1000" ]; then BIG=yes; else BIG=no; fi
if [ -f /etc/passwd ]; then KNOWN=1; else KNOWN=2; fi
OTHER=${MISSING:-fallback}
NESTED=${MISSING:-"x-${STEPS:-1}-${MISSING:-2}"}
KEPT=${STEPS:+set}
HOST=$(hostname)
"""
    script = parse_script(text, dialect="sh")
    assert script.variables == {
        "STEPS": "1000",
        "EVERY": "105",
        "HALF": "500",
        "ARGS": "--a=1 --b=2 --c",
        "NAME": "none",
        "BIG": "yes",
        "OTHER": "fallback",
        "NESTED": "x-1000-2",
        "KEPT": "set",
        "HOST": UNREAD,
    }
    assert script.lines["EVERY"] == 3 and script.commands == []


def test_what_a_program_would_say_is_not_known() -> None:
    [command] = parse_script('python train.py --seed "$(date +%s)" --out `pwd`', dialect="sh").commands
    assert dict(read_flags(command.words)) == {"seed": UNREAD, "out": UNREAD}
    with pytest.raises(ConfigError, match=r"never runs them"):
        check_read(str(dict(read_flags(command.words))["seed"]), name="--seed", where="train.sh")


def test_several_commands_and_their_lines() -> None:
    script = parse_script("cd a && python one.py --x 1; python two.py\n\n\npython three.py | tee log", dialect="sh")
    assert [(command.words[-1], command.line) for command in script.commands] == [
        ("a", 1), ("1", 1), ("two.py", 1), ("three.py", 4), ("log", 4)
    ]


def test_doubled_flags_stay_in_order() -> None:
    assert read_flags(["--lr", "1", "--lr=2", "--neg", "-1.5"]) == [("lr", "1"), ("lr", "2"), ("neg", "-1.5")]


def test_text_over_several_lines_and_quotes_within_quotes() -> None:
    script = parse_script("""PROMPT="a cat
with 'a hat'"\nOTHER='a "b" $PROMPT'""", dialect="sh")
    assert script.variables == {"PROMPT": "a cat\nwith 'a hat'", "OTHER": 'a "b" $PROMPT'}


def test_here_strings_of_powershell() -> None:
    script = parse_script('$yaml = @"\njob: extension\nconfig:\n  name: x\n"@\nSet-Content a.yaml $yaml', dialect="powershell")
    assert script.variables["yaml"] == "job: extension\nconfig:\n  name: x"


def test_cmd_counts() -> None:
    assert parse_script("@echo off\nset /A N=4*5+1\nset NAME=a b\n", dialect="cmd").variables == {"N": "21", "NAME": "a b"}


def test_cells_of_a_notebook() -> None:
    cells = [
        {"cell_type": "markdown", "source": ["python no.py"]},
        {"cell_type": "code", "source": ['lr = 1e-4  #@param {type:"number"}\n', 'folder = "my pictures"\n', "print(lr)\n"]},
        {"cell_type": "code", "source": ["!python train.py \\\n", '  --lr {lr} --data "$folder"\n']},
        {"cell_type": "code", "source": ["%%bash\n", "python again.py --x 1\n"]},
    ]
    script = parse_script(parse_notebook({"cells": cells}), dialect="sh")
    assert [command.words for command in script.commands if command.words[0] == "python"] == [
        ("python", "train.py", "--lr", "0.0001", "--data", "my pictures"),
        ("python", "again.py", "--x", "1"),
    ]

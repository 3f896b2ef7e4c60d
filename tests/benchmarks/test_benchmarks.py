"""A tiny run of every benchmark, so that none rots: what it prints has its shape, and where no clock is asked, its values.

`kill` makes its run here with a stand-in that takes no time; with weber itself it is in tests/training/test_kill.py.
"""

from __future__ import annotations

import importlib
import io
import json
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
NAMES = sorted(path.stem for path in BENCHMARKS.glob("*.py") if path.stem != "machine")
README = (BENCHMARKS / "README.md").read_text(encoding="utf-8")

Run = Callable[..., list[str]]

# Stands for `weber train` with the files that are watched. Gone on with, one of its kinds forgets what it was doing.
STAND_IN = """
import json, shutil, sys, time, tomllib
from pathlib import Path

settings = tomllib.loads(Path(sys.argv[2]).read_text())
run, cache = Path(settings["output"]["folder"]), Path(settings["output"]["cache"])
run.mkdir(exist_ok=True)
(run / "run.lock").touch()
cache.mkdir(exist_ok=True)
for name in "index.sqlite", "1.safetensors", "2.safetensors", "3.safetensors":
    time.sleep(0.01)
    (cache / name).touch()
metrics, step = run / "metrics.jsonl", max((int(path.name[-6:]) for path in run.glob("checkpoint-*")), default=0)
lines = metrics.read_text().splitlines(keepends=True)[:step] if step else []
while step < settings["train"]["steps"]:
    step += 1
    time.sleep(0.01)
    lines.append(json.dumps({"step": step, "seconds": time.time()}) + "\\n")
    metrics.write_text("".join(lines))
    if step % settings["output"]["save_every"] == 0:
        partial = run / f".checkpoint-{step:06d}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        (partial / "step").write_text(str(step))
        time.sleep(0.01)
        partial.rename(run / f"checkpoint-{step:06d}")
shutil.copyfile(sys.argv[2], run / "config.toml")
(run / "adapter.safetensors").write_text("other" if FORGETS and "--resume" in sys.argv else "learned")
"""


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """A benchmark as a module; threads and random numbers are afterwards as they were."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    num_threads = torch.get_num_threads()
    with torch.random.fork_rng():
        yield importlib.import_module
    torch.set_num_threads(num_threads)


@pytest.fixture
def run(load: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a benchmark as its command line does, in this process and without warming up; the lines that it prints below the machine."""

    def run_here(name: str, *words: str) -> list[str]:
        module = load(name)
        monkeypatch.setattr(module, "NUM_WARM_UP", 0, raising=False)
        monkeypatch.setattr(load("machine"), "run_alone", lambda file, words: _run_part(module, words))
        module.main(words)
        machine, *lines = [line for line in capsys.readouterr().out.splitlines() if line.strip()]
        assert re.match(r"\d{4}-\d\d-\d\d, .*, torch .*, 1 threads, load average \d", machine)
        return lines

    return run_here


def _run_part(module: ModuleType, words: Sequence[str]) -> Any:
    with redirect_stdout(io.StringIO()) as printed:
        module.main(words)
    return json.loads(printed.getvalue().splitlines()[-1])


def _read_numbers(text: str) -> list[float]:
    """The numbers in a line that has no other figures; neither nan nor inf is there."""
    assert not re.search(r"\b(nan|inf)\b", text), text
    return [float(number) for number in re.findall(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:e[-+]\d+)?", text)]


def _read_rows(lines: Sequence[str], num_columns: int) -> list[list[str]]:
    """The cells of a Markdown table below its head."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert {len(row) for row in rows} == {num_columns}
    return rows[2:]


def test_every_benchmark_has_a_tiny_run() -> None:
    assert [name for name in NAMES if f"test_{name}" not in globals()] == []


@pytest.mark.parametrize("name", NAMES)
def test_the_options_at_the_top_are_the_defaults(load: Callable[[str], ModuleType], name: str) -> None:
    module = load(name)
    parser = module.build_options()
    usage = re.search(rf"^    python benchmarks/{name}\.py (.+)$", module.__doc__, re.MULTILINE)
    assert usage is not None
    assert sorted(re.findall(r"--[\w-]+", usage[1])) == sorted(re.findall(r"--[\w-]+", parser.format_usage()))
    said = re.sub(r"\[--[\w-]+ [A-Z]+(?: \.\.\.)?\]", "", usage[1])  # no value is named: whatever the default is
    assert parser.parse_args(shlex.split(re.sub(r"[][]", " ", said))) == parser.parse_args([])


def test_the_page_has_a_command_that_works_for_every_benchmark(load: Callable[[str], ModuleType]) -> None:
    commands = re.findall(r"^\.venv/bin/python benchmarks/(\w+)\.py([^#\n]*)#", README, re.MULTILINE)
    assert sorted(name for name, _ in commands) == NAMES
    for name, words in commands:
        load(name).build_options().parse_args(shlex.split(words))
    assert sorted(re.findall(r"^## (\w+)\.py", README, re.MULTILINE)) == [name for name in NAMES if name not in ELSEWHERE]


ELSEWHERE = {"regularization": "docs/regularization.md", "tread": "docs/objective.md", "variance": "docs/objective.md"}
"""Pages that have the numbers of a benchmark in place of the README."""


@pytest.mark.parametrize(("name", "page"), ELSEWHERE.items())
def test_other_pages_name_the_benchmark_of_their_numbers(name: str, page: str) -> None:
    assert f"`benchmarks/{name}.py`" in (BENCHMARKS.parent / page).read_text(encoding="utf-8")


@pytest.mark.parametrize("words", [["--steps", "0"], ["--threads", "-1"], ["--tokens", "100"]])
def test_a_number_that_cannot_be_is_refused(load: Callable[[str], ModuleType], words: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        load("step").main(words)


def test_a_part_that_fails_says_why(load: Callable[[str], ModuleType], tmp_path: Path) -> None:
    script = tmp_path / "part.py"
    script.write_text("import sys; print('1 2'); print('[7]') if sys.argv[1] == 'well' else sys.exit('no such disk')")
    assert load("machine").run_alone(str(script), ["well"]) == [7]
    with pytest.raises(RuntimeError, match="ended with 1:\nno such disk"):
        load("machine").run_alone(str(script), ["badly"])


def test_probe(run: Run) -> None:
    units, _, line = run("probe", "--steps", "1", "--widths", "64", "--tokens", "64")
    assert units.startswith("units for bf16: ")
    width, fp32, bf16, gain, said, seconds = _read_numbers(line)
    assert width == 64 and fp32 > 0 and bf16 > 0 and said > 0 and seconds > 0
    assert gain == pytest.approx(fp32 / bf16, rel=0.05, abs=0.01)
    assert line.split()[-2:] == ["no", "fp32"], "so small a model is not tried"


def test_product(run: Run) -> None:
    said, _, *lines = run("product", "--rounds", "1", "--tokens", "8", "--width", "64")
    assert said.startswith("MKL leaves the widest units of this processor idle: ")
    names = ["product", "product back", "gradient of the weight"]
    names += [f"{what}, {dtype}" for dtype in ("fp32", "bf16") for what in ("attention", "attention back", "GELU")]
    assert [line[14:40].strip() for line in lines] == names
    for line in lines:
        plain, own, share = map(float, line[40:].split())
        assert int(line[:14]) == 8 and plain > 0 and share == pytest.approx(own / plain, rel=0.1, abs=0.01)


def test_soak(run: Run) -> None:
    done, memory, others, same, _ = run("soak", "--steps", "2", "--every", "1")
    steps, messages, pictures, looks = _read_numbers(done)
    assert steps == 2 and pictures == 3 and messages > 10 and looks >= 1
    before, after, grown = _read_numbers(memory)
    assert before > 100 and grown == pytest.approx(after - before, abs=0.11)
    assert all(number >= 1 for number in _read_numbers(others))
    assert same == "losses and bytes of the adapter: the same as of the run alone"


def test_pages(run: Run) -> None:
    words = ("--rounds", "2", "--pictures", "20", "--events", "4", "--runs", "0")
    pages, rest = [], []
    for line in run("pages", *words):
        (pages if " kB" in line else rest).append(line)
    assert len(pages) == 10 and all(_read_numbers(line)[0] > 0 for line in pages)
    assert rest[0].startswith("the slowest page")
    if not rest[1].startswith("no browser"):
        _, paint, scripts, elements, server, _ = rest
        assert _read_numbers(paint)[0] > 0 and min(_read_numbers(elements)) > 50
        assert min(*_read_numbers(scripts), *_read_numbers(server)) > 1


def test_step(run: Run) -> None:
    _, _, *lines = run("step", "--steps", "2", "--tokens", "64")
    kinds = "lora", "full", "bf16"
    assert [line.split()[:3] for line in lines] == [[kind, "64", state] for kind in kinds for state in ("off", "on")]
    for line in lines:
        ours, our_tail, plain, plain_tail, ratio, *losses = _read_numbers(line)[1:]
        assert 0 < ours <= our_tail and 0 < plain <= plain_tail
        assert ratio == pytest.approx(plain / ours, rel=0.01, abs=0.01)
        loss, plain_loss, norm, plain_norm = losses
        error = 0.002 if line.startswith("bf16") else 1e-6
        assert loss == pytest.approx(plain_loss, rel=error) and loss > 0.5, "both sides learn from the same"
        assert norm == pytest.approx(plain_norm, rel=error) and norm > 0.01


def test_loop(run: Run) -> None:
    lines = run("loop", "--steps", "2", "--save-every", "2")
    heads = [number for number, line in enumerate(lines) if line.startswith("progress as")]
    assert [lines[number].split(":")[0] for number in heads] == ["progress as lines", "progress as bars"]
    for found in (lines[: heads[1]], lines[heads[1] :]):
        costs = {line[:24].strip(): _read_numbers(line[24:])[0] for line in found[1:-1]}
        (num, step), (checkpoint, _) = _read_numbers(found[0]), _read_numbers(found[-1])
        assert num == 1 and checkpoint > 0
        parts = sum(costs[name] for name in ("forward", "backward", "optimizer", "outside these"))
        assert parts == pytest.approx(step, abs=0.1), "of one step the medians add up"
        named = sum(cost for name, cost in costs.items() if name not in ("forward", "backward", "optimizer", "outside these"))
        assert named == pytest.approx(costs["outside these"], abs=0.05)
        assert {"gradient norm", "loss", "data", "metrics", "progress", "draws: timesteps", "the rest"} <= set(costs)


def test_cache(run: Run, tmp_path: Path) -> None:
    size, *lines = run("cache", "--samples", "9", "--rounds", "2", "--indexed", "300", "--folder", str(tmp_path))
    assert size.startswith(f"9 samples, 14 MiB, 2 rounds, folder {tmp_path}") and not list(tmp_path.iterdir())
    ways = [line[:34].strip() for line in lines]
    assert (ways.index("writing"), ways.index("reading"), len(ways)) == (0, 4, 13)
    for line, way in zip(lines[:10], ways, strict=False):
        if way not in ("writing", "reading"):
            rate, micros, ratio = _read_numbers(line[34:])[:3]
            assert rate * micros == pytest.approx(1e6, rel=0.05)
            assert ratio >= 0 and (ratio == 1 or way not in ("raw write + fsync", "one file per sample, load_file"))
    goals = [way for line, way in zip(lines, ways, strict=True) if re.search(r"goal \d\.\d( s)?: (met|MISSED)$", line)]
    assert goals == ["store", "store", ways[-2]]
    assert lines[-2].startswith("opening 300 samples: ") and " without; " in lines[-2]


@pytest.mark.parametrize("forgets", [False, True])
def test_kill(
    load: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], forgets: bool
) -> None:
    kill = load("kill")
    monkeypatch.setattr(kill, "CHILD", STAND_IN.replace("FORGETS", str(forgets)))
    with pytest.raises(SystemExit, match=str(int(forgets))):
        kill.main(["--kills", "2", "--steps", "7", "--seed", "1"])
    *_, first, second, phases, left, verdict = capsys.readouterr().out.replace("\n\n", "\n").splitlines()
    if forgets:
        assert re.match(r"FAIL: 2 kills, [1-9]\d* differences", verdict) and left.startswith("differs: adapter.safetensors: 5 bytes")
        return
    assert (first.split()[0], second.split()[0]) == ("1", "2")
    assert sum(_read_numbers(phases)) == 2
    assert (left, verdict) == ("left behind at the end: nothing", "PASS: 2 kills, 0 differences")


def test_a_run_that_has_its_lock_and_no_cache_yet_counts_no_shards(load: Callable[[str], ModuleType], tmp_path: Path) -> None:
    kill = load("kill")
    place = kill.build_place(tmp_path, num_steps=2)
    place.run.mkdir(parents=True)
    (place.run / "run.lock").touch()
    assert kill.count_signs(place, 0.0)["shards"] == 0 and not place.cache.exists()


def test_saved(run: Run) -> None:
    rows = _read_rows(run("saved", "--blocks", "1", "--pixels", "256", "--models", "FLUX.1-dev", "klein-4B", "FLUX.3"), 9)
    assert len(rows) == 3 * 6 and {row[1] for row in rows} == {"256"}
    for number in range(0, len(rows), 6):
        found = {row[2]: _read_numbers(" ".join(row[3:])) for row in rows[number : number + 6]}
        saved = {mode: numbers[0] for mode, numbers in found.items()}
        flops = {mode: numbers[2] for mode, numbers in found.items()}
        assert saved["all"] < saved["lean"] < saved["none"] < saved["diffusers + PEFT"]
        assert flops["none"] < flops["2"] < flops["all"]
        assert all(abs(numbers[4] - 1) < 0.1 and numbers[5] > 0 for numbers in found.values()), "the formula holds for the blocks"


def test_traffic(run: Run) -> None:
    rows = _read_rows(run("traffic", "--blocks", "1", "--pixels", "256", "--models", "FLUX.1-dev", "klein-4B", "FLUX.3"), 15)
    assert len(rows) == 3 * 10 and {row[1] for row in rows} == {"256"}
    for number in range(0, len(rows), 10):
        found = {(row[2], row[3]): _read_numbers(" ".join(row[4:])) for row in rows[number : number + 10]}
        for moved, skinny, kernels, saved, _, formula, *parts, seconds in found.values():
            assert min(moved, skinny, kernels, saved) > 0
            assert abs(formula - 1) < 0.15, "of few blocks the first weighs more: nothing goes back to what is before it"
            assert seconds == pytest.approx(sum(parts) / 1000, abs=0.003)
        for mode in ("none", "lean", "all"):
            ours, plain = (found[mode, way] for way in ("weber", "the library's blocks"))
            assert ours[0] < 0.5 * plain[0] and ours[2] < 0.6 * plain[2], "each way is itself, whatever ran before"
        ours, plain, theirs = (found["none", way] for way in ("weber", "the library's blocks", "diffusers + PEFT"))
        assert ours[0] < 0.4 * min(plain[0], theirs[0]) and ours[2] < plain[2] and ours[3] < plain[3] < theirs[3]
        assert ours[-1] < min(plain[-1], theirs[-1])
        assert all(found["all", way][3] < found["none", way][3] for mode, way in found if mode == "none")


def test_gpu(run: Run) -> None:
    """On a CPU: that both sides run, in every precision. Without a GPU it says so."""
    small = ("--device", "cpu", "--blocks", "1", "--heads", "1", "--pixels", "64", "--steps", "1", "--modes", "none", "lean")
    where, *lines = run("gpu", *small, "--models", "FLUX.1-dev", "klein-4B", "--tests")
    rows = _read_rows(lines, 10)
    assert where == "on cpu" and [row[:4] for row in rows] == [
        [model, "64", precision, mode]
        for model, precision in (("FLUX.1-dev", "bf16"), ("FLUX.1-dev", "nf4"), ("klein-4B", "bf16"))
        for mode in ("none", "lean")
    ]
    for *_, mode, ours, share, peak, theirs, their_peak, ratio in rows:
        assert float(ours) > 0 and (share, peak, their_peak) == ("", "", "")
        assert (theirs, ratio) == ("-", "") if mode == "lean" else float(theirs) > 0 and float(ratio) > 0
    if not torch.cuda.is_available():
        with pytest.raises(SystemExit, match="2"):
            run("gpu", "--tests")


def test_precision(run: Run) -> None:
    (row,) = _read_rows(run("precision", "--steps", "1", "--painting", "1", "--ways", "bf16"), 6)
    assert row[0] == "bf16" and row[2] == "+0.00 %" and row[4] == "6 of 6"
    assert 0 < float(row[1]) < 2 and 0 < float(row[3]) < 1 and float(row[5]) > 0


def test_a_card_that_is_not_known_is_refused(load: Callable[[str], ModuleType]) -> None:
    with pytest.raises(SystemExit, match="2"):
        load("traffic").main(["--card", "Voodoo 2"])


def test_memory(run: Run, load: Callable[[str], ModuleType]) -> None:
    case = next(number for number, (_, edge, _) in enumerate(load("memory").list_cases()) if edge == 256)
    *lines, worst = run("memory", "--cases", str(case))
    ((model, pixels, settings, estimate, measured, off, *rest),) = _read_rows(lines, 9)
    assert (model, pixels, settings) == ("flux1-dev", "256", "gradient_checkpointing none")
    assert float(estimate) == pytest.approx(float(measured), rel=0.1)
    assert float(off.strip("%")) == pytest.approx(100 * (float(estimate) / float(measured) - 1), abs=0.1)
    assert min(map(float, rest)) > 0 and worst == f"worst: {off.strip('+-')}"


@pytest.mark.parametrize("is_against", [False, True])
def test_start(run: Run, is_against: bool) -> None:
    """Of the command that is quick everywhere; the others are in tests/test_imports.py."""
    against = ["--against", str(BENCHMARKS.parent)] if is_against else []
    counted, *lines = run("start", "--rounds", "1", "--only", "help", *against)
    assert counted.startswith("median of 1 rounds, in seconds of the processor")
    [[name, ours, goal, *others]] = _read_rows(lines, 5 if is_against else 3)
    processor, clock = _read_numbers(ours.replace("(", "").replace(")", ""))
    assert name == "help" and 0 < processor <= clock and re.fullmatch(r"0\.4 (met|MISSED)", goal)
    if is_against:
        theirs = _read_numbers(others[0].replace("(", "").replace(")", ""))[0]
        assert float(others[1]) == pytest.approx(theirs / processor, abs=0.05)


def test_streaming(run: Run, tmp_path: Path) -> None:
    options = ["--blocks", "1", "--heads", "4", "--text-tokens", "8", "--precision", "int8", "--folder", str(tmp_path)]
    written, head, *lines = run("streaming", *options)
    assert re.match(r"\d\.\d GB of weights written", written) and head.startswith("precision | start") and not list(tmp_path.iterdir())
    rows = [[cell.strip() for cell in line.split("|")] for line in lines]
    assert [row[:2] for row in rows] == [["int8", "first"], ["int8", "second"]]
    first, second = (_read_numbers(" ".join(row[2:])) for row in rows)
    assert len(first) == 5 and first[1] <= first[2] and first[3] == second[3] > 0 and first[4] == second[4] > 0
    assert len(second) == 9 and second[7] > 0 and second[8] > 0, "a step has been made"


def test_variance(run: Run) -> None:
    pictures, _, head, *lines = run("variance", "--steps", "40", "--noises", "1", "--levels", "2")
    assert pictures.startswith("32 pictures, 1 draws of noise, 2 levels: mean loss") and 0.5 < _read_numbers(pictures)[-1] < 2
    assert head.split()[:2] == ["law", "group"]
    assert [line.split()[:2] for line in lines] == [[law, group] for law in ("sigmoid", "token_shift", "uniform") for group in "48"]
    for line in lines:
        levels, noise, both = map(float, line.split()[2:])
        assert 0 < levels == noise < 0.8, "of one draw of noise no other is drawn; levels that are spread evenly vary less"
        assert 0 < both < 1.2


def test_tread(run: Run) -> None:
    lines = run("tread", "--rounds", "1", "--tokens", "64")
    rows = [re.fullmatch(r"ratio +([\d.]+): +\d+ ms, x ([\d.]+); +([\d.]+) GFLOP, x ([\d.]+)", line) for line in lines]
    found = [[float(number) for number in row.groups()] for row in rows if row is not None]
    assert [row[0] for row in found] == [0, 0.25, 0.5, 0.75]
    assert found[0][1] == found[0][3] == 1 and min(row[1] for row in found) > 0
    # 4 of 20 blocks see all 128 tokens, the others 64 of text and what the route leaves
    assert [row[3] for row in found] == pytest.approx([0.2 + 0.8 * (64 + 64 * (1 - row[0])) / 128 for row in found], abs=0.03)


def test_regularization(run: Run) -> None:
    """Unrelated prompts stay closer to the base; the numbers of the whole benchmark are in docs/regularization.md."""
    names = ["the subject alone", "regularization"]
    options = ["--steps", "10", "--lr", "6e-3", "--seeds", "1", "--paint-steps", "4"]
    head, *lines = run("regularization", "--rows", *names, *options)
    assert head == "10 steps at lr 0.006, means over the seeds [1]"
    assert [line[:36].strip() for line in lines] == names
    alone, kept = (_read_numbers(line[36:]) for line in lines)
    assert alone[0] > 0.05 and kept[0] < 0.8 * alone[0]
    assert alone[1] < 0.85 and kept[1] < 0.85, "the subject is learned all the same"
    assert min(*alone[2:], *kept[2:]) >= 0


def test_machine_code(run: Run) -> None:
    version, *lines = run("machine_code", "--archs", "86", "120", "--widths", "256", "--rank", "4", "--only", "rotate", "gather")
    assert re.fullmatch(r"Triton \d+\.\d+\.\d+", version)
    rows = _read_rows(lines, 6)
    assert [row[:2] for row in rows] == [["rotate", "256"], ["gather", "256"]]
    for _, _, warps, spilled, *cells in rows:
        assert int(warps) > 0 and spilled == "0"
        for registers, shared, held in (re.fullmatch(r"(\d+), ([\d.]+) KiB, (\d+)%", cell).groups() for cell in cells):
            assert 16 < int(registers) < 256 and 0 <= float(shared) <= 99 and 0 < int(held) <= 100


def test_data(run: Run, tmp_path: Path) -> None:
    sets, *parts, loading, files, edited = run("data", "--pictures", "40", "--files", "10", "--rounds", "1", "--folder", str(tmp_path))
    assert sets.startswith("40 pictures in 2 sets and 5 buckets, ")
    assert [line.split()[0] for line in parts] == ["open", "epoch", "plan"]
    assert all(re.search(r" s, .* of its own, \d+ MB with all pages: (met|MISSED)$", line) for line in parts)
    assert re.match(r"reading cached samples as a step does: \d+ a second of processor time, goal 5,000: (met|MISSED)$", loading)
    assert re.match(r"10 known files, half of them captions: \d+\.\d\d s, goal 5 s for 100,000: (met|MISSED)$", files)
    assert edited == (
        "texts to encode with all of them in the cache: {'clip': 0, 't5': 0}; after one caption was edited: {'clip': 1, 't5': 1}: met"
    )


def test_check(run: Run) -> None:
    folder, parts, *found = run("check", "--pictures", "60", "--edge", "256")
    assert re.fullmatch(r"60 pictures of 256 x 256 pixels: \d+\.\d s, \d+ a second", folder)
    assert re.fullmatch(r"looking \d+\.\d s, comparing \d+\.\d s; \d+ ms of processor for each", parts)
    assert found == [f"{kind}: 2 of 2 found, 0 others named" for kind in ("alike", "blurred", "artifacts")]


def test_parallel(run: Run) -> None:
    head, line, last = run("parallel", "--processes", "1", "--steps", "2", "--only", "full, fsdp")
    assert head.split() == ["run", "processes", "s/step", "of", "one", "bytes"]
    size, seconds, share = _read_numbers(line[21:])
    assert (size, share) == (1, 1) and seconds > 0 and line.endswith("equal")
    assert last == "PASS: 0 differences"


def test_parallel_sees_what_differs(load: Callable[[str], ModuleType], tmp_path: Path) -> None:
    for name, loss, number in (("one", 0.5, 1.0), ("other", 0.5, 1.0), ("loss", 0.25, 1.0), ("bytes", 0.5, 2.0)):
        folder = tmp_path / name / "checkpoint-000001"
        folder.mkdir(parents=True)
        (tmp_path / name / "metrics.jsonl").write_text(f'{{"loss": {loss}}}\n')
        save_file({"a": torch.tensor(number)}, folder / "weights.safetensors")
    compare = load("parallel").compare
    assert compare(tmp_path / "one", tmp_path / "other") == []
    assert compare(tmp_path / "one", tmp_path / "loss") == ["losses"]
    assert compare(tmp_path / "one", tmp_path / "bytes") == ["weights.safetensors: a"]


def test_scale(run: Run) -> None:
    _, *lines = run("scale", "--gpus", "1", "16", "--model", "flux2-klein-base-4b", "--pixels", "256")
    rows = [_read_numbers(line) for line in lines if line.split()[0] in ("1", "16")]
    assert len(rows) == 6
    for one, many in zip(rows[::2], rows[1::2], strict=True):
        assert one[0] == 1 and many[0] == 16 and one[1] == many[1] > 0
        assert one[2] == one[3] == one[4] == 0 and many[2] > 0 and many[5] == pytest.approx(16 * one[5], abs=1e-3)
    assert [many[3] > 0 for many in rows[1::2]] == [False, True, True], "weights are sent where blocks are sharded"

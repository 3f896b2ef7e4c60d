"""What a command imports, and that no library speaks on its way to a person. Whatever large is imported anew has to be allowed here."""

from __future__ import annotations

import gc
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from weber.imports import begin_work, load_module, start_command

POCKET = Path(__file__).parents[1] / "weber" / "pocket" / "weights"

COMMANDS = """
import json, sys
from weber import cli

there, imported = set(), []
for words in json.loads(sys.argv[1]):
    sys.argv = ["weber", *words]
    try:
        cli.main()
    except SystemExit as error:
        print(f"exit code {error.code}", file=sys.stderr)
    imported.append([name for name, module in sys.modules.items() if module is not None and name not in there])
    there |= {*sys.modules}
with open("imported.json", "w") as file:
    json.dump(imported, file)
"""
"""Runs commands one after the other, and writes down what each has imported that was not there before."""

LIGHT = {"attr", "attrs", "cyclopts", "docstring_parser", "markdown_it", "mdurl", "pygments", "rich", "typing_extensions", "weber"} | {
    "sitecustomize"  # of a system, if it has one: Debian's reports crashes
}
SETTINGS = LIGHT | {"annotated_types", "pydantic", "pydantic_core", "typing_inspection"}
TORCH = SETTINGS | {"huggingface_hub", "numpy", "safetensors", "torch", "torchgen", "tqdm"}
LIBRARIES = TORCH | {"PIL", "accelerate", "diffusers", "peft", "tokenizers", "transformers"}
THEIRS = {
    *("anyio", "brotli", "certifi", "charset_normalizer", "filelock", "fsspec", "google", "h11", "httpcore2", "httpx2", "idna", "jinja2"),
    *("markupsafe", "mpmath", "packaging", "psutil", "regex", "requests", "sniffio", "sympy", "triton", "truststore", "urllib3", "yaml"),
}
"""What the libraries import by themselves. Triton: PyTorch, with `torch._dynamo` and with its counter of FLOPs."""
MODELS = {"transformers.models.auto.modeling_auto", "transformers.models.bloom.modeling_bloom"}
"""Models of transformers that PEFT imports by itself. Of the run's text encoders only the tokenizers are there."""
TOKENIZERS = {"auto", "bloom", "encoder_decoder", "clip", "t5"}
NEVER = {"bitsandbytes", "torchao", "boto3", "torch._inductor.compile_fx", "torch._functorch.aot_autograd", "networkx", "lycoris"}
"""What compiles, and what is not used. `torch._dynamo`, the front of its compiler, PyTorch imports for any sum on the meta device."""
DIFFUSERS = {"configuration_utils", "dependency_versions_check", "dependency_versions_table", "hooks", "image_processor", "loaders"} | {
    *("models", "quantizers", "schedulers", "utils", "video_processor")
}
"""No pipelines."""
PROGRESS = re.compile(r"(looking at|reading|counting) .*: \d+/\d+")


def run(code: str, *words: str, folder: Path) -> tuple[list[str], list[str]]:
    """The lines of standard output and of standard error of a process."""
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), done.stderr.splitlines()


def list_imports(folder: Path) -> list[set[str]]:
    """By each command."""
    return [set(names) for names in json.loads((folder / "imported.json").read_text(encoding="utf-8"))]


def list_packages(names: set[str]) -> set[str]:
    """Without Python's own, and without what compiled ones have to themselves."""
    packages = {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names)
    return {name for name in packages if not name.startswith("_") and not re.search("mypyc|cython", name)}


def list_parts(names: set[str], package: str) -> set[str]:
    """What is imported of a package, one level below it."""
    return {name.removeprefix(f"{package}.").partition(".")[0] for name in names if name.startswith(f"{package}.")}


def test_what_commands_import_that_read_no_model(tmp_path: Path) -> None:
    """Help, a mistake in the settings, the variants, and what a file is."""
    (tmp_path / "typo.toml").write_text("[model]\nvarant = 1\n")
    file = str(POCKET / "transformer" / "diffusion_pytorch_model.safetensors")
    commands = [["--help"], ["plan", "typo.toml"], ["train", "typo.toml"], ["variants"], ["inspect", file]]
    said, noted = run(COMMANDS, json.dumps(commands), folder=tmp_path)
    helped, planned, trained, listed, inspected = list_imports(tmp_path)
    assert list_packages(helped) <= LIGHT
    assert list_packages(planned | trained) <= SETTINGS
    assert list_packages(listed | inspected) <= TORCH
    assert not any(name.startswith("torch._dynamo") for name in listed | inspected)
    mistakes = [line for line in noted if line.startswith(("error:", "exit code"))]
    assert [line[:11] for line in mistakes] == ["error: 2 se", "exit code 2"] * 2
    assert {line.split()[0].rstrip(":.") for line in noted} <= {"error", "exit", "1", "2", "got", "expected", "fix"}
    assert said[-1].split()[0] == "use:"


def test_what_commands_import_that_read_adapters(tmp_path: Path) -> None:
    names = [f"diffusion_model.single_blocks.0.linear2.lora_{side}.weight" for side in ("down", "up")]
    save_file({names[0]: torch.rand(4, 40), names[1]: torch.rand(8, 4)}, tmp_path / "a.safetensors")
    resized = ["resize", "a.safetensors", "--rank", "2", "--out", "b.safetensors"]
    commands = [resized, ["diff", "a.safetensors", "b.safetensors"], ["check", "b.safetensors", "--original", "a.safetensors"]]
    said, _ = run(COMMANDS, json.dumps(commands), folder=tmp_path)
    assert list_packages(set.union(*list_imports(tmp_path))) <= TORCH
    assert said[0] == "b.safetensors: rank 4 -> 2: 1 of 1 layers are cut" and "1 layers in both, of which 1 differ" in said
    assert any(line.strip().startswith("note: without a model nothing is said of its bits") for line in said)


def test_what_commands_import_that_prepare_pictures(pictures: Path, tmp_path: Path) -> None:
    """No PyTorch where none is needed, and no model's library before there is something to look at."""
    folder = str(pictures)
    commands = [["tags", "count", folder], ["metadata", "build", folder, "m.jsonl"]]
    commands += [["data", "resize", folder, "--out", "new", "--edge", "64"]]
    commands += [["data", "check", folder, "data.0.resolution=64"], ["caption", "--list"]]
    run(COMMANDS, json.dumps(commands), folder=tmp_path)
    *plain, checked, listed = list_imports(tmp_path)
    assert list_packages(set.union(*plain)) <= SETTINGS | {"PIL", "numpy"}
    assert list_packages(checked) <= SETTINGS | THEIRS | {"PIL", "huggingface_hub", "numpy", "tqdm"}
    assert list_packages(listed) <= TORCH | THEIRS
    assert len((tmp_path / "m.jsonl").read_text(encoding="utf-8").splitlines()) == len(list((tmp_path / "new").glob("*.png"))) == 12


def test_what_a_plan_imports_and_says(run_toml: Path, tmp_path: Path) -> None:
    said, noted = run(COMMANDS, json.dumps([["plan", str(run_toml)]]), folder=tmp_path)
    [names] = list_imports(tmp_path)
    assert list_packages(names) <= LIBRARIES | THEIRS
    assert not NEVER & names
    assert list_parts(names, "transformers.models") <= TOKENIZERS
    assert {name for name in names if name.startswith("transformers.models.") and ".modeling_" in name} <= MODELS
    assert list_parts(names, "diffusers") <= DIFFUSERS
    assert all(PROGRESS.fullmatch(line) for line in noted), noted
    assert said[0] == "Model" and all(re.fullmatch(r"(  .*)?|[A-Z][a-z ]+", line) for line in said), said


def test_libraries_are_silent_where_weber_is_a_library_too(run_toml: Path, tmp_path: Path) -> None:
    code = "import sys, weber; weber.plan(weber.load_config(sys.argv[1])); assert 'bitsandbytes' in sys.modules"
    said, noted = run(code, str(run_toml), folder=tmp_path)
    assert not said and all(PROGRESS.fullmatch(line) for line in noted), noted


def test_nothing_is_arranged_in_a_process_that_has_pytorch_already() -> None:
    hidden = {name: sys.modules.get(name, "absent") for name in ("bitsandbytes", "boto3", "torchao", "torch._dynamo")}
    frozen = gc.get_freeze_count()
    start_command()
    begin_work()
    assert gc.isenabled() and gc.get_freeze_count() == frozen
    assert {name: sys.modules.get(name, "absent") for name in hidden} == hidden


def test_work_begins_with_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    gc.disable()
    try:
        begin_work()
        assert gc.isenabled() and gc.get_freeze_count() > 0
    finally:
        gc.enable()
        gc.unfreeze()


def test_a_hidden_library_is_found_where_weber_uses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao", None)
    assert load_module("json") is json
    assert "torchao" not in sys.modules


def test_pages_are_served_without_pytorch(tmp_path: Path) -> None:
    """All of them are imported when the server starts; what they import later is none of it either."""
    code = "import sys; from weber.serve.server import serve; from weber.serve.app import PAGES; print(len(PAGES), *sys.modules, sep='\\n')"
    said, noted = run(code, folder=tmp_path)
    assert int(said[0]) > 0 and not noted
    allowed = SETTINGS | {"PIL", "filelock", "numpy", "psutil", "safetensors", "yaml"}
    theirs = {"anyio", "click", "dotenv", "h11", "httptools", "idna", "jinja2", "markupsafe", "python_multipart", "sniffio"}
    assert list_packages(set(said[1:])) - {"__main__"} <= allowed | theirs | {"starlette", "uvicorn", "uvloop", "watchfiles", "websockets"}

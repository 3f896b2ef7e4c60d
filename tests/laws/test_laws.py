"""The laws of `docs/architecture.md` that no linter knows, checked on the syntax tree of every file.

A law is a function from a file to its breaches; each is shown to catch what it forbids, so that none can pass by accident.
An exception is a line in a table here, with its reason.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = ("weber", "recipes", "examples", "tests", "benchmarks", "docs")

LONG_FILES: dict[str, str] = {}
FREE_POSITIONALS = {
    "ignore_progress": "has the signature of Progress, a callback",
    "report": "has the signature of Progress, a callback",
    "build_noisy": "tensors in the order of the formula",
    "build_losses": "tensors in the order of the formula",
    "build_return": "tensors in the order of the formula",
    "predict_rollout": "tensors in the order of the formula",
    "predict_latents": "tensors in the order of the formula",
    "write_rounded": "tensors in the order of the formula",
    "unpack": "tokens, height, width",
    "build_ids": "tokens, height, width",
    "encode_prompts": "part, encoder, prompts: beside encode_images(encoder, pixels)",
}
EDGES = {
    "weber/cli.py": "talks to the person at the terminal",
    "weber/commands/terminal.py": "talks to the person at the terminal",
    "weber/__init__.py": "imports lazily",
    "weber/api.py": "imports lazily",
}
BANNED_FILES = {"base", "common", "helper", "helpers", "manager", "misc", "util", "utils"}
# Written with a gap so that this file does not break its own law.
FAMILY_WORDS = re.compile("flu" + "x|kle" + "in|schn" + "ell|kr" + "ea|kont" + "ext", re.IGNORECASE)
UNFINISHED = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|X" + r"XX)\b")

Function = ast.FunctionDef | ast.AsyncFunctionDef
BLOCKS = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.TryStar, ast.Match)


@dataclass(frozen=True)
class Source:
    """One file, parsed."""

    name: str
    text: str
    tree: ast.Module

    @cached_property
    def nodes(self) -> tuple[ast.AST, ...]:
        """All of the tree: most laws look at each."""
        return tuple(ast.walk(self.tree))

    @property
    def room(self) -> str:
        parts = self.name.split("/")
        return parts[1] if parts[0] == "weber" and len(parts) > 2 else ""


Breach = tuple[int, str]
Law = Callable[[Source], Iterator[Breach]]


def _parse(name: str, text: str) -> Source:
    return Source(name, text, ast.parse(text))


@cache
def _list_sources(folder: str) -> tuple[Source, ...]:
    paths = sorted((ROOT / folder).rglob("*.py"))
    return tuple(_parse(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")) for path in paths)


def _functions(source: Source) -> Iterator[Function]:
    return (node for node in source.nodes if isinstance(node, Function))


def _classes(source: Source) -> Iterator[ast.ClassDef]:
    return (node for node in source.nodes if isinstance(node, ast.ClassDef))


def file_of_at_most_600_lines(source: Source) -> Iterator[Breach]:
    num_lines = len(source.text.splitlines())
    if num_lines > 600 and source.name not in LONG_FILES:
        yield 1, f"the file has {num_lines} lines"


def function_of_at_most_100_lines(source: Source) -> Iterator[Breach]:
    for function in _functions(source):
        num_lines = (function.end_lineno or function.lineno) - function.lineno + 1
        if num_lines > 100:
            yield function.lineno, f"{function.name} has {num_lines} lines"


def nesting_of_at_most_4_levels(source: Source) -> Iterator[Breach]:
    for function in _functions(source):
        depth = max(map(_measure_depth, function.body))
        if depth > 4:
            yield function.lineno, f"{function.name} nests {depth} levels deep"


def _measure_depth(node: ast.AST) -> int:
    if isinstance(node, Function | ast.ClassDef):
        return 0
    inside = [_measure_depth(child) for child in ast.iter_child_nodes(node)]
    if isinstance(node, ast.If) and len(node.orelse) == 1 and isinstance(node.orelse[0], ast.If):
        inside[-1] -= 1  # elif stands on the level of its if
    return max(inside, default=0) + isinstance(node, BLOCKS)


def at_most_8_parameters_keyword_only_after_the_second(source: Source) -> Iterator[Breach]:
    inner = {id(node) for function in _functions(source) for node in ast.walk(function) if node is not function}
    for function in _functions(source):
        if "triton.jit" in map(ast.unparse, function.decorator_list):
            continue  # a kernel has an argument for each pointer, size and stride
        positional = [argument.arg for argument in function.args.posonlyargs + function.args.args]
        positional = positional[1:] if positional[:1] in (["self"], ["cls"], ["ctx"]) else positional
        num_parameters = len(positional) + len(function.args.kwonlyargs)
        given = function.name in ("forward", "backward") or re.fullmatch(r"__(?!init__)\w+__", function.name)
        given = given or source.room == "kernels"  # operations, which PyTorch calls by position
        private = function.name.startswith("_") and function.name != "__init__"
        if num_parameters > 8:
            yield function.lineno, f"{function.name} has {num_parameters} parameters"
        if len(positional) > 2 and not (given or private or id(function) in inner or function.name in FREE_POSITIONALS):
            yield function.lineno, f"{function.name} takes {', '.join(positional[2:])} by position"


def class_of_at_most_15_methods(source: Source) -> Iterator[Breach]:
    for found in _classes(source):
        num_methods = sum(isinstance(node, Function) for node in found.body)
        if num_methods > 15:
            yield found.lineno, f"{found.name} has {num_methods} methods"


def class_that_inherits_at_most_once_from_a_class_of_ours(source: Source) -> Iterator[Breach]:
    parents = _map_parents() | {found.name: _name_bases(found) for found in _classes(source)}
    for found in _classes(source):
        ours = [base for base in _name_bases(found) if base in parents]
        above = [base for parent in ours for base in parents[parent] if base in parents]
        if len(ours) > 1 or above:
            yield found.lineno, f"{found.name} inherits from {', '.join(ours + above)}"


@cache
def _map_parents() -> dict[str, list[str]]:
    return {found.name: _name_bases(found) for source in _list_sources("weber") for found in _classes(source)}


def _name_bases(found: ast.ClassDef) -> list[str]:
    return [ast.unparse(base).split("[")[0].rpartition(".")[2] for base in found.bases]


def no_family_word_outside_families_and_pocket(source: Source) -> Iterator[Breach]:
    if source.room in ("families", "pocket") or source.name.startswith("weber/config/importers/"):
        return
    for number, line in enumerate(source.text.splitlines(), 1):
        if found := FAMILY_WORDS.search(line):
            yield number, f"{found[0]!r} is a word of a family"


def no_getattr_on_a_config(source: Source) -> Iterator[Breach]:
    for node in source.nodes:
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("getattr", "hasattr") and node.args):
            continue
        name = ast.unparse(node.args[0]).rpartition(".")[2]
        if name in ("config", "cfg", "args") or name.endswith("_config"):
            yield node.lineno, f"{node.func.id} on {name}"


def no_bare_or_broad_except(source: Source) -> Iterator[Breach]:
    for node in source.nodes:
        if isinstance(node, ast.ExceptHandler):
            caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            if any(kind is None or ast.unparse(kind) in ("Exception", "BaseException") for kind in caught):
                yield node.lineno, "catches everything"


def no_print_exit_or_environment_in_a_library_room(source: Source) -> Iterator[Breach]:
    if source.name in EDGES:
        return
    for node in source.nodes:
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("print", "input", "exit", "quit"):
            yield node.lineno, f"calls {ast.unparse(node.func)}"
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("sys.exit", "os._exit", "os.environ", "os.getenv", "os.putenv"):
            yield node.lineno, f"uses {ast.unparse(node)}"
        if isinstance(node, ast.Name) and node.id == "SystemExit":
            yield node.lineno, "raises SystemExit"


def no_import_of_weber_inside_a_function(source: Source) -> Iterator[Breach]:
    if source.name in EDGES or source.room == "commands":
        return
    for node in chain.from_iterable(ast.walk(function) for function in _functions(source)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        if any(name.split(".")[0] == "weber" for name in names):
            yield node.lineno, f"imports {', '.join(names)}"


def nothing_left_unfinished(source: Source) -> Iterator[Breach]:
    for number, line in enumerate(source.text.splitlines(), 1):
        if found := UNFINISHED.search(line):
            yield number, found[0]


def no_file_named_for_nothing(source: Source) -> Iterator[Breach]:
    if BANNED_FILES & set(source.name.removesuffix(".py").split("/")):
        yield 1, "the name says nothing about what is inside"


EVERYWHERE: list[Law] = [file_of_at_most_600_lines, nothing_left_unfinished, no_file_named_for_nothing]
IN_THE_PACKAGE: list[Law] = [
    function_of_at_most_100_lines,
    nesting_of_at_most_4_levels,
    at_most_8_parameters_keyword_only_after_the_second,
    class_of_at_most_15_methods,
    class_that_inherits_at_most_once_from_a_class_of_ours,
    no_family_word_outside_families_and_pocket,
    no_getattr_on_a_config,
    no_bare_or_broad_except,
    no_print_exit_or_environment_in_a_library_room,
    no_import_of_weber_inside_a_function,
]


@pytest.mark.parametrize("law", EVERYWHERE + IN_THE_PACKAGE, ids=lambda law: law.__name__)
def test_the_law_holds(law: Law) -> None:
    sources = [source for folder in (CODE if law in EVERYWHERE else ["weber"]) for source in _list_sources(folder)]
    breaches = [f"{source.name}:{line}: {what}" for source in sources for line, what in law(source)]
    assert len(sources) > 20, "the law looked at no code"
    assert not breaches, "\n".join([f"{len(breaches)} breaches of the law '{law.__name__.replace('_', ' ')}':", *breaches])


def _clones(sources: tuple[Source, ...]) -> list[str]:
    """Functions of 12 lines or more with one and the same body."""
    places: dict[str, list[str]] = {}
    for source in sources:
        for function in _functions(source):
            body = function.body[1:] if ast.get_docstring(function) else function.body
            if body and (body[-1].end_lineno or 0) - body[0].lineno + 1 >= 12:
                key = "\n".join(ast.dump(statement) for statement in body)
                places.setdefault(key, []).append(f"{source.name}:{function.lineno} {function.name}")
    return [" = ".join(same) for same in places.values() if len(same) > 1]


def test_no_function_has_a_twin() -> None:
    assert not _clones(_list_sources("weber")), "write these once"


def _nest(depth: int) -> str:
    return "def f(x):\n" + "".join("    " * level + "if x:\n" for level in range(1, depth + 1)) + "    " * (depth + 1) + "pass\n"


CAUGHT: list[tuple[Law, str]] = [
    (file_of_at_most_600_lines, "x = 1\n" * 601),
    (function_of_at_most_100_lines, "def f():\n" + "    x = 1\n" * 100),
    (nesting_of_at_most_4_levels, _nest(5)),
    (nesting_of_at_most_4_levels, "def f():\n for a in b:\n  with c:\n   try: ...\n   finally:\n    if d:\n     while e: ..."),
    (at_most_8_parameters_keyword_only_after_the_second, "def _f(*, a, b, c, d, e, f, g, h, i): ..."),
    (at_most_8_parameters_keyword_only_after_the_second, "def f(a, b, c): ..."),
    (at_most_8_parameters_keyword_only_after_the_second, "class A:\n    def __init__(self, a, b, c): ..."),
    (class_of_at_most_15_methods, "class A:\n" + "".join(f"    def f{number}(self): ...\n" for number in range(16))),
    (class_that_inherits_at_most_once_from_a_class_of_ours, "class A: ...\nclass B(A): ...\nclass C(B): ..."),
    (class_that_inherits_at_most_once_from_a_class_of_ours, "class A: ...\nclass B: ...\nclass C(A, m.B): ..."),
    (no_family_word_outside_families_and_pocket, "# for " + "FLU" + "X.1"),
    (no_getattr_on_a_config, "getattr(self.config, 'x', 1)"),
    (no_getattr_on_a_config, "hasattr(data_config, 'x')"),
    (no_bare_or_broad_except, "try: ...\nexcept: ..."),
    (no_bare_or_broad_except, "try: ...\nexcept (ValueError, Exception): ..."),
    (no_print_exit_or_environment_in_a_library_room, "print(1)"),
    (no_print_exit_or_environment_in_a_library_room, "import os\nx = os.environ['A']"),
    (no_print_exit_or_environment_in_a_library_room, "raise SystemExit(2)"),
    (no_import_of_weber_inside_a_function, "def f():\n    from weber.config import run"),
    (no_import_of_weber_inside_a_function, "class A:\n    def f(self):\n        import weber.errors"),
    (nothing_left_unfinished, "# TO" + "DO: later"),
]
ALLOWED: list[tuple[Law, str]] = [
    (nesting_of_at_most_4_levels, _nest(4)),
    (nesting_of_at_most_4_levels, "def f(x):\n    if x == 0: ...\n" + "".join(f"    elif x == {number}: ...\n" for number in range(1, 9))),
    (at_most_8_parameters_keyword_only_after_the_second, "class A:\n    def f(self, a, b, *, c, d, e, f, g, h): ..."),
    (at_most_8_parameters_keyword_only_after_the_second, "class A:\n    def __exit__(self, a, b, c): ..."),
    (at_most_8_parameters_keyword_only_after_the_second, "def _f(a, b, c): ...\ndef forward(a, b, c): ..."),
    (at_most_8_parameters_keyword_only_after_the_second, "@triton.jit\ndef _f(a, b, c, d, e, f, g, h, i): ..."),
    (class_that_inherits_at_most_once_from_a_class_of_ours, "class A(nn.Module): ...\nclass B(A): ..."),
    (no_getattr_on_a_config, "getattr(module, 'weight')"),
    (no_bare_or_broad_except, "try: ...\nexcept (OSError, ValueError): ..."),
    (no_print_exit_or_environment_in_a_library_room, "console.print(1)"),
    (no_import_of_weber_inside_a_function, "import weber.errors\ndef f():\n    import torch"),
]


@pytest.mark.parametrize(("law", "text"), CAUGHT, ids=lambda value: getattr(value, "__name__", ""))
def test_the_law_catches(law: Law, text: str) -> None:
    assert list(law(_parse("weber/room/file.py", text)))


@pytest.mark.parametrize(("law", "text"), ALLOWED, ids=lambda value: getattr(value, "__name__", ""))
def test_the_law_allows(law: Law, text: str) -> None:
    assert not list(law(_parse("weber/room/file.py", text)))


def test_where_a_file_stands_matters() -> None:
    text = "# FLU" + "X"
    assert not list(no_family_word_outside_families_and_pocket(_parse("weber/families/flux1/keys.py", text)))
    assert list(no_family_word_outside_families_and_pocket(_parse("weber/families.py", text)))
    assert list(no_file_named_for_nothing(_parse("weber/data/utils.py", "")))
    assert not list(no_print_exit_or_environment_in_a_library_room(_parse("weber/cli.py", "print(1)")))


def test_twins_are_found() -> None:
    body = "".join(f"    x = {number}\n" for number in range(12))
    one, two = _parse("weber/a.py", f"def f():\n    'One.'\n{body}"), _parse("weber/b.py", f"def g():\n{body}")
    other = _parse("weber/c.py", f"def h():\n{body}    return x\n")
    assert _clones((one, two, other)) == ["weber/a.py:1 f = weber/b.py:1 g"]


def test_the_map_names_every_file() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rooms = re.split(r"\n  (?=\S)", page.split("```")[1])
    words = {text.split()[0].strip("/"): set(re.findall(r"[\w.]+", text)) for text in rooms}
    absent = []
    for path in sorted((ROOT / "weber").rglob("*.py")):
        room, *inner = path.relative_to(ROOT / "weber").with_suffix("").parts
        named = words.get(room if inner else path.name, set())
        if path.stem != "__init__" and not {path.stem, path.name} & named:
            absent.append(path.relative_to(ROOT).as_posix())
    assert absent == ["weber/version.py"]  # beside another


@pytest.mark.parametrize("exempt", [LONG_FILES, EDGES])
def test_every_exempt_file_exists(exempt: dict[str, str]) -> None:
    assert [name for name in exempt if not (ROOT / name).is_file()] == []

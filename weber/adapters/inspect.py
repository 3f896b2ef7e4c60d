"""What is this file? Said of anything: adapters of any trainer, whole models, parts of them, folders, and what is none of these."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten

import torch

from weber.adapters.factors import Factors
from weber.adapters.files import AdapterFile, load_adapter
from weber.adapters.kinds import LORA, LYCORIS, TRANSFORMER, Kind, find_kind
from weber.adapters.layouts import LAYOUTS, check_layout, list_readers
from weber.adapters.lycoris_files import load_lycoris
from weber.adapters.lycoris_layers import count_factors
from weber.adapters.metadata import read_facts
from weber.adapters.names import DIFFUSERS
from weber.adapters.target import find_set
from weber.adapters.text import is_text, split_modules
from weber.errors import AdapterError, ModelError
from weber.families.pairing import find_module, find_original
from weber.families.table import FAMILIES, FamilyRow
from weber.families.tensors import Weights, open_weights, read_metadata

_OTHER_ENDINGS = {
    ".ckpt": "a checkpoint in pickle format",
    ".pt": "a checkpoint in pickle format",
    ".pth": "a checkpoint in pickle format",
    ".bin": "weights in pickle format",
    ".gguf": "quantized weights in GGUF format",
}
_STORIES = {
    "ss_base_model_version": "base model",
    "ss_sd_model_name": "base model",
    "modelspec.architecture": "architecture",
    "modelspec.title": "title",
    "ss_output_name": "title",
    "ss_network_module": "network",
    "ss_steps": "steps",
    "ss_max_train_steps": "steps",
    "ss_epoch": "epochs",
    "ss_num_train_images": "pictures",
    "ss_learning_rate": "learning rate",
    "ss_unet_lr": "learning rate",
    "ss_optimizer": "optimizer",
    "ss_lr_scheduler": "schedule",
    "ss_seed": "seed",
    "ss_resolution": "resolution",
    "modelspec.resolution": "resolution",
    "ss_timestep_sampling": "timesteps",
    "ss_guidance_scale": "guidance",
    "ss_training_comment": "comment",
    "training_info": "training",
    "software": "made by",
    "ot_revision": "made by OneTrainer",
}
"""Entry of a header -> what it says; of two entries that say the same the first counts."""
_PARTS_OF_CHECKPOINTS = {
    "trained.safetensors": (
        "trained weights of a checkpoint of weber",
        ("paint with them (`weber sample`)", "put them into their model (`weber export`)"),
    ),
    "exact.safetensors": ("numbers in a checkpoint of weber that its adapter file rounds", ()),
    "ema.safetensors": ("running mean in a checkpoint of weber", ("paint with it (`weber sample`)",)),
    "optimizer.safetensors": ("state of the optimizer in a checkpoint of weber", ()),
}
"""Names of files -> what they are, and what can be done with them."""
_NUM_WORDS, _NUM_COUNTS, _NUM_LAYERS, _NUM_LETTERS = 8, 4, 3, 200


@dataclass(frozen=True)
class Report:
    """What a file is; `str` of it is what `weber inspect` prints. `lines` are (label, text) in the order in which they are told; `uses`
    says what weber can do with it."""

    path: Path
    kind: str
    lines: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()

    def __str__(self) -> str:
        width = max((len(label) for label, _ in self.lines), default=0)
        lines = [f"{self.path}: {self.kind}", *(f"  {label:<{width}}  {text}" for label, text in self.lines)]
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines + [f"  use:  {use}" for use in self.uses])


def inspect_file(path: Path) -> Report:
    """What a file or a folder is. Raises AdapterError only where there is nothing at that path."""
    if path.is_dir():
        return _inspect_folder(path)
    if not path.is_file():
        raise AdapterError("There is no such file.", got=str(path), fix="check the path")
    size = ("size", _build_size(path.stat().st_size))
    if path.suffix.lower() in _OTHER_ENDINGS:
        return Report(path, _OTHER_ENDINGS[path.suffix.lower()], (size,), ("weber reads *.safetensors only.",))
    try:
        weights, metadata = open_weights([path]), read_metadata(path)
    except ModelError as error:
        return Report(path, "file that weber cannot read", (size,), (f"{error.what} {error.got}",))
    lines = [size, *_list_tensors(weights)]
    kind = find_kind(weights)
    if path.name in _PARTS_OF_CHECKPOINTS:
        told, uses = _PARTS_OF_CHECKPOINTS[path.name]
        return Report(path, told, (*lines, *_list_facts(read_facts(metadata), metadata)), uses=uses)
    if kind is LORA:
        return _inspect_adapter(path, lines, metadata)
    if kind in LYCORIS:
        return _inspect_lycoris(path, lines, kind=kind, weights=weights, metadata=metadata)
    return _inspect_other(path, lines, kind=kind, weights=weights, metadata=metadata)


def _inspect_adapter(path: Path, lines: list[tuple[str, str]], metadata: Mapping[str, str]) -> Report:
    try:
        adapter = load_adapter(path)
    except AdapterError as error:
        return Report(path, "LoRA that weber cannot read", (*lines, *_list_story(metadata)), (f"{error.what} {error.expected}".strip(),))
    kind = "DoRA" if any(factors.magnitude is not None for factors in adapter.modules.values()) else LORA.name
    families = [row for row in FAMILIES if row.transformer_class in adapter.classes]
    changed, text = split_modules(adapter.modules)
    ranks = Counter(str(factors.rank) for factors in adapter.modules.values())
    alphas = Counter(f"{factors.alpha:g}" for factors in adapter.modules.values())
    lines = [
        ("layout", adapter.layout),
        ("fits", " or ".join(adapter.classes) or "no model that weber knows"),
        ("layers", str(len(adapter.modules)) + (f", of which {len(text)} of CLIP, the text encoder" if text else "")),
        ("targets", _find_targets(changed, families)),
        ("rank", _build_counts(ranks)),
        ("alpha", _build_counts(alphas)),
        *lines,
        *_list_facts(adapter.facts, metadata),
    ]
    lost = list_readers(changed, pairings=families[0].pairings) if families and adapter.layout == DIFFUSERS else []
    return Report(path, kind, tuple(lines), (*adapter.notes, *lost), _list_uses(adapter, families))


def _inspect_lycoris(path: Path, lines: list[tuple[str, str]], *, kind: Kind, weights: Weights, metadata: Mapping[str, str]) -> Report:
    try:
        adapter = load_lycoris(path)
    except AdapterError as error:
        facts = _list_facts(read_facts(metadata), metadata)
        return Report(path, f"{kind.name} that weber cannot read", (*lines, *facts), (f"{error.what} {error.got}",))
    layers = adapter.layers
    cut = f", of which {len(adapter.fused)} are several in the library's model, and cannot be divided" if adapter.fused else ""
    factors = count_factors(layers)
    alphas = Counter(f"{one.alpha:g}" for one in layers if one.is_scaled)
    told = [
        ("layout", adapter.layout),
        ("fits", " or ".join(adapter.classes)),
        ("form", _build_counts(Counter(one.algo for one in layers))),
        ("layers", f"{len(layers)}{cut}"),
        ("rank", _build_counts(Counter(one.size for one in layers))),
        *([("factor", _build_counts(factors))] if factors else []),
        *([("alpha", _build_counts(alphas))] if alphas else []),
        *lines,
        *_list_facts(adapter.facts, metadata),
    ]
    uses = ["merge it into its model (`weber merge --base`)"]
    uses += [] if adapter.fused or "none" in factors else ['start from it (adapter.start_from, with adapter.kind = "lycoris")']
    return Report(path, kind.name, tuple(told), adapter.notes, tuple(uses))


def _inspect_other(path: Path, lines: list[tuple[str, str]], *, kind: Kind, weights: Weights, metadata: Mapping[str, str]) -> Report:
    notes = ["weber recognizes this kind of adapter, and does not read it."] if kind.is_adapter else []
    uses: list[str] = []
    if kind is TRANSFORMER:
        family, originals = _find_model(weights)
        lines = [("layout", "the makers' names" if originals else "the library's names"), ("class", family), *lines]
        uses = ["train on it (model.transformer or model.path)", "merge adapters into it (`weber merge`)", "compare it (`weber extract`)"]
    return Report(path, kind.name, (*lines, *_list_facts(read_facts(metadata), metadata)), tuple(notes), tuple(uses))


def _inspect_folder(folder: Path) -> Report:
    names = sorted(file.name for file in folder.iterdir())
    files = sorted(folder.glob("*.safetensors"))
    uses: tuple[str, ...] = ()
    if "model_index.json" in names:
        kind, uses = "model in the library's layout", ("train on it (model.path)",)
    elif (folder / "config.toml").is_file() and ((folder / "adapter.safetensors").is_file() or any(folder.glob("checkpoint-*"))):
        kind, uses = "run folder of weber", ("go on with it (`weber train --resume`)", "paint with it (`weber sample`)")
    elif any((folder / name).is_file() for name in ("adapter.safetensors", "trained.safetensors")):
        kind, uses = "checkpoint of weber", ("paint with it (`weber sample`)",)
    elif files and "config.json" in names:
        kind, uses = "part of a model in the library's layout", ("train on it (model.transformer, vae, text_encoder)",)
    else:
        kind = "folder"
    lines = [("holds", ", ".join(names[:_NUM_WORDS]) + (", ..." if names[_NUM_WORDS:] else "") or "nothing")]
    try:
        lines += _list_tensors(open_weights(files)) if files else []
        if "config.json" in names:
            lines.append(("class", str(json.loads((folder / "config.json").read_text(encoding="utf-8")).get("_class_name", "not said"))))
    except (ModelError, ValueError, AttributeError, OSError) as error:
        return Report(folder, kind, tuple(lines), (f"Not all of it can be read: {error}".partition("\n")[0],))
    return Report(folder, kind, tuple(lines), uses=uses)


def _list_tensors(weights: Weights) -> list[tuple[str, str]]:
    dtypes = Counter(str(entry.dtype).removeprefix("torch.") for entry in weights.values())
    numbers = sum(torch.Size(entry.shape).numel() for entry in weights.values())
    return [("tensors", f"{len(weights)} with {numbers:,} numbers"), ("dtype", _build_counts(dtypes))]


def _find_model(weights: Weights) -> tuple[str, bool]:
    """The class of a transformer, and whether it has the makers' names, by the names that each family knows."""
    stems = [name.rpartition(".")[0].removeprefix("model.").removeprefix("diffusion_model.") for name in weights]
    best, known, originals = "not known", len(stems) // 2, False
    for row in FAMILIES:
        for is_original, find in ((False, find_module), (True, find_original)):
            count = sum(find(row.pairings, stem) is not None for stem in stems)
            if count > known:
                best, known, originals = row.transformer_class, count, is_original
    return best, originals


def _find_targets(modules: Mapping[str, Factors], families: list[FamilyRow]) -> str:
    """The set of targets that these layers are, in a model with as many blocks as the file has."""
    if not modules:
        return "none of the transformer"
    for family in families:
        found = find_set(list(modules), _list_linears(family, modules), sets=family.targets)
        if found is not None:
            return f"the set {found!r}"
    return "no set; layers such as " + ", ".join(list(modules)[:_NUM_LAYERS])


def _list_linears(family: FamilyRow, modules: Iterable[str]) -> list[str]:
    """All linear layers of a model of the family with the blocks that these modules are of, and with the first block of each kind."""
    numbers: dict[str, set[str]] = {}
    for module in modules:
        match = find_module(family.pairings, module)
        if match is not None and match.number:
            numbers.setdefault(match.pairing.modules[match.position].partition("{}")[0], set()).add(match.number)
    templates = [template for pairing in family.pairings if not pairing.is_norm for template in pairing.modules]
    return [
        template.replace("{}", number)
        for template in templates
        for number in (sorted(numbers.get(template.partition("{}")[0], {"0"})) if "{}" in template else [""])
    ]


def _list_uses(adapter: AdapterFile, families: list[FamilyRow]) -> tuple[str, ...]:
    has_text = any(map(is_text, adapter.modules))
    uses = ["add it to other adapters (`weber merge`)" if has_text else "merge it into its model (`weber merge`)"]
    if all(factors.magnitude is None for factors in adapter.modules.values()):
        uses.append("start from it (adapter.start_from" + (", with adapter.text_encoder = true)" if has_text else ")"))
        layouts = [name for name in LAYOUTS if families and _can_write(adapter, name, families[0])]
        uses.append(f"convert it (`weber export`) to {', '.join(layouts or ['diffusers'])}")
    return tuple(uses)


def _can_write(adapter: AdapterFile, layout: str, family: FamilyRow) -> bool:
    try:
        check_layout(adapter.modules, layout=layout, pairings=family.pairings)
    except AdapterError:
        return False
    return True


def _list_facts(facts: Mapping[str, object], metadata: Mapping[str, str]) -> list[tuple[str, str]]:
    """Our own facts, else what other trainers write."""
    return [(label.replace("_", " "), shorten(str(value), _NUM_LETTERS)) for label, value in facts.items()] or _list_story(metadata)


def _list_story(metadata: Mapping[str, str]) -> list[tuple[str, str]]:
    story: dict[str, str] = {}
    for key, label in _STORIES.items():
        if metadata.get(key, "None") not in ("None", ""):
            story.setdefault(label, shorten(metadata[key], _NUM_LETTERS))
    words = _list_words(metadata.get("ss_tag_frequency", ""))
    return [*story.items(), *([("most frequent words", words)] if words else [])]


def _list_words(text: str) -> str:
    """The most frequent words of the captions, from kohya's `ss_tag_frequency`."""
    try:
        counts: Counter[str] = Counter()
        for words in json.loads(text or "{}").values():
            counts.update({str(word): int(count) for word, count in words.items()})
    except (ValueError, TypeError, AttributeError):
        return ""
    return ", ".join(word for word, _ in counts.most_common(_NUM_WORDS))


def _build_counts(counts: Counter[str]) -> str:
    if len(counts) == 1:
        return next(iter(counts))
    listed = [f"{text} ({count} times)" for text, count in counts.most_common(_NUM_COUNTS)]
    return ", ".join(listed + (["..."] if len(counts) > _NUM_COUNTS else []))


def _build_size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.2f} MB"

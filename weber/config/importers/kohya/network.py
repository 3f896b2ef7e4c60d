"""What kohya's network modules train: LoRA of FLUX, LyCORIS, OFT, and their arguments, as adapters of weber."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from weber.config.importers.answers import Call, Table, ignored, refused, translated
from weber.config.importers.draft import NO_EFFECT, REFUSED, Draft, Keys
from weber.config.importers.kohya.facts import is_adapter, is_lycoris, trains_text
from weber.config.importers.kohya.layers import ALL_LINEAR, BLOCKS, DOUBLE, INPUTS, SINGLE, TYPE_DIMS, RegexPool
from weber.config.importers.kohya.lycoris import LYCORIS, name_algo, put_form
from weber.config.importers.outcome import Given
from weber.config.importers.values import read_float, read_int, read_texts
from weber.config.lycoris import ACTS
from weber.config.near import find_near
from weber.config.regexes import check_regex
from weber.config.toml import write_value
from weber.errors import ConfigError

LORA = "networks.lora_flux"
_WIDTH = 3072  # of FLUX.1
_MOST_RULES = 120


def _put_module(draft: Draft, keys: Keys, value: Any) -> str:
    """`network_module`: what is trained, and which layers."""
    module, origin = str(value).strip(), keys.find("network_module")
    if not is_adapter(keys):
        return NO_EFFECT + "flux_train.py trains the model itself"
    if is_lycoris(keys):
        return put_form(draft, keys)
    line = draft.set("adapter.targets", ALL_LINEAR, origin=origin)
    if module == LORA:
        return f"{line}: queries, keys and values have factors of their own here, where they share the first one there"
    if module == "networks.lora":
        return f"{line}; the module for FLUX is {LORA}: with networks.lora the run would have found no layers"
    return REFUSED + f"weber does not train {module}; a LoRA is trained, as {LORA} does"


def _put_dim(draft: Draft, keys: Keys, value: Any) -> str:
    """`network_dim`: the rank; of `networks.oft_flux` the number of blocks."""
    number, origin = read_int(value, name="network_dim"), keys.find("network_dim")
    if not is_adapter(keys):
        return NO_EFFECT + "flux_train.py trains the model itself"
    if keys.read_bool("dim_from_weights"):
        return NO_EFFECT + "dim_from_weights takes the ranks of the file"
    if str(keys["network_module"]) == "networks.oft_flux":
        line = draft.set("adapter.lycoris.linear_dim", max(1, _WIDTH // max(1, number)), origin=origin)
        return f"{line}: blocks of that size, where each layer had {number} blocks"
    if is_lycoris(keys):
        if name_algo(keys) == "full":
            return NO_EFFECT + "whole matrices have no rank"
        return draft.set("adapter.lycoris.linear_dim", number, origin=origin)
    return draft.set("adapter.rank", number, origin=origin)


def _put_alpha(draft: Draft, keys: Keys, value: Any) -> str:
    """`network_alpha`: 0 is the rank; of `networks.oft_flux` the largest turn."""
    number, origin = read_float(value, name="network_alpha"), keys.find("network_alpha")
    if not is_adapter(keys):
        return NO_EFFECT + "flux_train.py trains the model itself"
    if str(keys["network_module"]) == "networks.oft_flux":
        return draft.set("adapter.lycoris.constraint", number, origin=origin)
    if is_lycoris(keys):
        if "alpha" not in ACTS or name_algo(keys) not in ACTS["alpha"]:
            return NO_EFFECT + f"{name_algo(keys)} has no scale"
        if keys.read_bool("network_args.rs_lora"):
            number *= float(keys.read_int("network_dim") or 4) ** 0.5
        return draft.set("adapter.lycoris.linear_alpha", number, origin=origin)
    if number == 0:
        return NO_EFFECT + "0 is the rank, a scale of 1, as alpha that is left out here"
    return draft.set("adapter.alpha", number, origin=origin)


def _put_dropout(draft: Draft, keys: Keys, value: Any) -> str:
    """`network_dropout`."""
    share, origin = read_float(value, name="network_dropout"), keys.find("network_dropout")
    if share == 0 or not is_adapter(keys):
        return NO_EFFECT + "asks for nothing, here as there"
    if is_lycoris(keys):
        if "network_args.dropout" in keys:
            return NO_EFFECT + "the network argument dropout counts"
        if name_algo(keys) not in ACTS["dropout"]:
            return NO_EFFECT + f"{name_algo(keys)} has none"
        return draft.set("adapter.lycoris.dropout", share, origin=origin)
    return draft.set("adapter.dropout", share, origin=origin) + ": of a layer's inputs, where it was of what the first factor makes of them"


def _put_weights(draft: Draft, keys: Keys, value: Any) -> str:
    """`network_weights`: the file that is gone on with."""
    line = draft.set("adapter.start_from", str(value), origin=keys.find("network_weights"))
    if keys.read_bool("dim_from_weights"):
        line += "; set adapter.rank to the highest rank in it (`weber inspect` says it)"
    return line


def _put_base_weights(draft: Draft, keys: Keys, value: Any) -> str:
    """`base_weights`: LoRAs that are merged into the model before it is trained."""
    paths, lines = value if isinstance(value, list) else read_texts(value, separator=r"[\n]+"), []
    strengths = keys["base_weights_multiplier"]
    strengths = strengths if isinstance(strengths, list) else read_texts(strengths or "", separator=r"[,\s]+")
    for number, path in enumerate(paths):
        lines.append(draft.set(f"model.adapters.{number}.path", str(path), origin=keys.find("base_weights")))
        strength = read_float(strengths[number], name="base_weights_multiplier") if number < len(strengths) else 1.0
        if strength != 1:
            lines.append(draft.set(f"model.adapters.{number}.strength", strength, origin=keys.find("base_weights_multiplier")))
    return "; ".join(lines)


def _put_unet_only(draft: Draft, keys: Keys, value: Any) -> str:
    """`network_train_unet_only`: without it adapters on CLIP are trained too."""
    if not is_adapter(keys):
        return NO_EFFECT + "flux_train.py trains no text encoder"
    if not trains_text(keys):
        return "adapters on the transformer alone, as here if nothing is said"
    if is_lycoris(keys):
        return REFUSED + "LyCORIS on CLIP cannot be trained here; it is on the transformer alone"
    return draft.set("adapter.text_encoder", True, origin=keys.find("network_train_unet_only")) + ": there CLIP is trained too"


# ---- network_args of the LoRA


def _put_rank(draft: Draft, patterns: tuple[str, ...] | list[str], rank: int, origin: Given) -> str:
    """A rank of their own for layers; 0 leaves them out."""
    if rank == 0:
        excluded = [*(draft.get("adapter.exclude") or []), *patterns]
        return draft.set("adapter.exclude", excluded, origin=origin)
    return "; ".join(_add_rule(draft, {"match": pattern, "rank": rank}, origin) for pattern in patterns)


def _add_rule(draft: Draft, rule: Mapping[str, Any], origin: Given) -> str:
    number = len(draft.get("adapter.rules") or [])
    lines = [draft.set(f"adapter.rules.{number}.{key}", worth, origin=origin) for key, worth in rule.items()]
    return ", ".join(lines)


def is_trained(keys: Keys, blocks: str) -> bool:
    """Whether any of these blocks are."""
    chosen = str(keys["network_args.train_blocks"] or "all")
    word = {DOUBLE: "double", SINGLE: "single"}[blocks]
    numbers = keys[f"network_args.train_{word}_block_indices"]
    return chosen in ("all", word) and (numbers is None or str(numbers).strip() not in ("none", ""))


def put_type_dim(name: str) -> Call:
    """A rank of its own for one kind of layers."""

    def put(draft: Draft, keys: Keys, value: Any) -> str:
        blocks, patterns = TYPE_DIMS[name]
        if not is_trained(keys, blocks):
            return NO_EFFECT + "those blocks are not trained"
        return _put_rank(draft, patterns, read_int(value, name=name), keys.find(f"network_args.{name}"))

    return put


def _put_in_dims(draft: Draft, keys: Keys, value: Any) -> str:
    """`in_dims`: ranks of the layers in front of the blocks."""
    origin = keys.find("network_args.in_dims")
    ranks = [read_int(one, name="in_dims") for one in read_texts(str(value).strip("[] "), separator=r"[,\s]+")]
    if len(ranks) != len(INPUTS):
        raise ConfigError(
            f"{origin.spelled} is not five ranks.",
            got=origin.text,
            expected="ranks of img, time, vector, guidance, txt",
            fix=f"correct {origin.spelled}",
        )
    chosen = [(layers, rank) for layers, rank in zip(INPUTS, ranks, strict=True) if rank > 0]
    if not chosen:
        return NO_EFFECT + "no layers in front of the blocks, as here"
    blocks = [pattern for name, patterns in BLOCKS.items() if is_trained(keys, name) for pattern in patterns]
    draft.set("adapter.targets", [*blocks, *(layer for layers, _ in chosen for layer in layers)], origin=origin)
    return "adapter.targets with " + "; ".join(_put_rank(draft, layers, rank, origin) for layers, rank in chosen)


def _put_train_blocks(draft: Draft, keys: Keys, value: Any) -> str:
    """`train_blocks`, and the numbers of blocks beside it."""
    blocks = _list_blocks(keys)
    if not blocks and not (is_trained(keys, DOUBLE) or is_trained(keys, SINGLE)):
        return REFUSED + "no block would be trained; all are"
    if not blocks:
        return "all blocks, as here if nothing is said"
    if draft.get("adapter.blocks") == blocks:
        return f"adapter.blocks = {write_value(blocks)}, together with the others"
    given = next(keys.find(name) for name in _BLOCK_ARGS if name in keys)
    return draft.set("adapter.blocks", blocks, origin=given)


_BLOCK_ARGS = ("network_args.train_blocks", "network_args.train_double_block_indices", "network_args.train_single_block_indices")


def _list_blocks(keys: Keys) -> list[str]:
    """`adapter.blocks`; empty where all are trained."""
    names = []
    for blocks, word in ((DOUBLE, "double"), (SINGLE, "single")):
        numbers = str(keys[f"network_args.train_{word}_block_indices"] or "all").strip()
        if is_trained(keys, blocks):
            names.append(blocks if numbers == "all" else f"{blocks}.{re.sub(r'[^0-9,-]', '', numbers)}")
    return [] if names == [DOUBLE, SINGLE] else names


def _put_regex_dims(draft: Draft, keys: Keys, value: Any) -> str:
    """`network_reg_dims`."""
    return _put_regex(draft, keys, str(value), "network_reg_dims")


def _put_regex_rates(draft: Draft, keys: Keys, value: Any) -> str:
    """`network_reg_lrs`."""
    return _put_regex(draft, keys, str(value), "network_reg_lrs")


def _put_regex(draft: Draft, keys: Keys, text: str, name: str) -> str:
    origin, pool, lines = keys.find(f"network_args.{name}"), RegexPool(), list[str]()
    for pair in (one for one in text.split(",") if one.strip()):
        expression, _, number = pair.partition("=")
        problem = check_regex(expression.strip(), "") or ("" if number.strip() else "it has no number")
        if problem:
            raise ConfigError(
                f"{origin.spelled} cannot be read: {problem.partition(';')[0]}.",
                got=origin.text,
                expected="expression=number, with commas between them",
                fix=f"correct {pair.strip()}",
            )
        patterns = pool.take(expression.strip())
        if not patterns:
            lines.append(f"{expression.strip()} finds no layer")
        elif name == "network_reg_dims":
            lines.append(_put_rank(draft, patterns, read_int(number, name=name), origin))
        else:
            lines += [_add_rule(draft, {"match": pattern, "lr": read_float(number, name=name)}, origin) for pattern in patterns]
        if len(lines) > _MOST_RULES:
            return REFUSED + "it means too many single layers; write adapter.rules with patterns"
    return "; ".join(lines) or NO_EFFECT + "it names nothing"


def explain_unknown(name: str) -> str:
    """Why a network argument without a row does nothing: the modules take any, and read those that they know."""
    near = find_near(name.partition(".")[2], [one.partition(".")[2] for one in _KNOWN])
    return "no such argument there, and it was not read" + (f"; was {near} meant?" if near else "")


def say(line: str) -> Call:
    """The answer for a key that another one's answer has used already."""
    return lambda draft, keys, value: line


_CONVOLUTIONS = "FLUX has no convolutions"
_OFF = (None, False, "", "False", "false")

NETWORK: Table = {
    **{f"network_args.{name}": translated(put_type_dim(name), "adapter.rules with a rank, or adapter.exclude for 0") for name in TYPE_DIMS},
    "network_args.in_dims": translated(_put_in_dims, "adapter.targets and adapter.rules for the layers in front of the blocks"),
    " ".join(_BLOCK_ARGS): translated(_put_train_blocks, "adapter.blocks"),
    "network_args.network_reg_dims": translated(_put_regex_dims, "adapter.rules; as there, the first expression that finds a layer counts"),
    "network_args.network_reg_lrs": translated(_put_regex_rates, "adapter.rules; as there, the first expression that finds a layer counts"),
    "network_args.split_qkv": ignored("queries, keys and values have factors of their own here in any case, each of the full rank"),
    "network_args.train_t5xxl": refused("weber trains no T5; CLIP is adapter.text_encoder = true", off=_OFF),
    "network_args.conv_dim network_args.conv_alpha network_args.use_conv_cp network_args.disable_conv_cp": ignored(_CONVOLUTIONS),
    "network_args.loraplus_lr_ratio network_args.loraplus_unet_lr_ratio network_args.loraplus_text_encoder_lr_ratio": refused(
        "weber has one rate for both factors of a layer; raise optim.lr instead", off=(None, "", 0, 1)
    ),
    "network_args.ggpo_sigma network_args.ggpo_beta": refused("weber has no such perturbation", off=(None, "", 0)),
    "network_args.verbose": ignored("says what is printed"),
    **LYCORIS,
    "network_args.train_llm_adapter network_args.warn_on_unmatched": ignored("is for other models"),
    "network_args.*": ignored("no such argument there, and it was not read"),
}
"""Entries of `network_args`."""


_KNOWN = {name for names in NETWORK for name in names.split() if "*" not in name}

ADAPTER: Table = {
    "network_module": translated(_put_module, "adapter.kind and adapter.targets: all linear layers of the blocks, modulation included"),
    "network_dim": translated(_put_dim, "adapter.rank, or adapter.lycoris.linear_dim"),
    "network_alpha": translated(_put_alpha, "adapter.alpha, or adapter.lycoris.linear_alpha; 0 is the rank"),
    "network_dropout": translated(_put_dropout, "adapter.dropout"),
    "network_weights": translated(_put_weights, "adapter.start_from"),
    "dim_from_weights": refused("set adapter.rank to the highest rank in that file, which `weber inspect` says"),
    "network_args": ignored("its entries have answers of their own"),
    "network_train_unet_only": translated(_put_unet_only, "adapter.text_encoder = false; without it CLIP is trained too"),
    "network_train_text_encoder_only": refused("weber trains no text encoder alone; the transformer is trained"),
    "base_weights": translated(_put_base_weights, "model.adapters: frozen, below what is trained"),
    "base_weights_multiplier": translated(say("in model.adapters, as strength"), "model.adapters, as strength"),
    "scale_weight_norms": refused("weber does not scale the factors down; a lower optim.lr keeps them small"),
    "network_scale": refused("weber saves an adapter at its full strength", off=(None, "", 1, 1.0)),
    **NETWORK,
}
"""What is trained."""

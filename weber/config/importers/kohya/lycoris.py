"""What LyCORIS and its like train in kohya's scripts, and their arguments, as `[adapter.lycoris]`."""

from __future__ import annotations

from typing import Any

from weber.config.importers.answers import Call, Table, ignored, refused, translated
from weber.config.importers.draft import NO_EFFECT, REFUSED, Draft, Keys
from weber.config.importers.kohya.facts import is_lycoris
from weber.config.importers.kohya.layers import ALL_LINEAR, ATTENTION
from weber.config.importers.values import read_bool, read_float, simplify
from weber.config.lycoris import ACTS
from weber.errors import ConfigError

_NAMED_ALGOS = {"networks.loha": "loha", "networks.lokr": "lokr", "networks.oft_flux": "diag-oft"}
_ALGOS = ("lora", "locon", "loha", "lokr", "full", "diag-oft", "boft", "glora")
_DROPOUTS = ("rank_dropout", "module_dropout")
_OFF = (None, False, "", "False", "false")
_CONVOLUTIONS = "is for convolutions, which FLUX does not have"
_ONLY_LYCORIS = 'weber drops ranks and whole layers with LyCORIS alone: adapter.kind = "lycoris", with algo = "lora"'


def put_form(draft: Draft, keys: Keys) -> str:
    """The form, and the layers that it is for."""
    module, origin = str(keys["network_module"]), keys.find("network_module")
    algo = name_algo(keys)
    line = "; ".join((draft.set("adapter.kind", "lycoris", origin=origin), draft.set("adapter.lycoris.algo", algo, origin=origin)))
    targets: str | list[str] = ALL_LINEAR
    if module == "networks.oft_flux" and not keys.read_bool("network_args.enable_all_linear"):
        targets = list(ATTENTION)
    if str(keys["network_args.preset"] or "full") == "attn-only":
        targets = list(ATTENTION)
    return f"{line}; {draft.set('adapter.targets', targets, origin=origin)}"


def name_algo(keys: Keys) -> str:
    """The form of LyCORIS. ConfigError: one that weber does not train."""
    named = _NAMED_ALGOS.get(str(keys["network_module"]))
    algo = named or str(keys["network_args.algo"] or "lora").strip().lower()
    if algo not in _ALGOS:
        given = keys.find("network_args.algo")
        raise ConfigError(
            f"{given.spelled} is a form of LyCORIS that weber does not train.",
            got=given.text,
            expected=", ".join(_ALGOS),
            fix="write one of these, such as lokr",
        )
    return algo


def _put_setting(name: str, to: str) -> Call:
    """A setting that LyCORIS has by another name, in the forms in which it acts."""

    def put(draft: Draft, keys: Keys, value: Any) -> str:
        if not is_lycoris(keys):
            return NO_EFFECT + f"{keys['network_module']} does not read it"
        acting = {"dora_wd": "weight_decompose", "wd_on_output": "wd_on_out"}.get(to, to)
        algo, origin = name_algo(keys), keys.find(f"network_args.{name}")
        worth: Any = read_bool(value, name=name) if to in _SWITCHES else simplify(read_float(value, name=name))
        if worth in (False, 0) and to != "wd_on_output":
            return NO_EFFECT + "asks for nothing, here as there"
        if algo not in ACTS.get(acting, (algo,)):
            return NO_EFFECT + f"{algo} has no such setting"
        if to in _AGAINST_DORA and keys.read_bool("network_args.dora_wd"):
            return REFUSED + "it cannot act with dora_wd here"
        if to == "decompose_both" and keys.read_bool("network_args.full_matrix"):
            return NO_EFFECT + "has no part in full_matrix"
        if to == "wd_on_output" and (worth is True or not keys.read_bool("network_args.dora_wd")):
            return NO_EFFECT + "as it is if nothing is said"
        return draft.set(f"adapter.lycoris.{to}", worth, origin=origin)

    return put


_AGAINST_DORA = ("dropout", "rank_dropout", "bypass_mode")
_SWITCHES = ("decompose_both", "full_matrix", "dora_wd", "wd_on_output", "bypass_mode", "rescaled", "unbalanced_factorization")


def _put_algo(draft: Draft, keys: Keys, value: Any) -> str:
    """`algo`: set with the module."""
    if not is_lycoris(keys):
        return NO_EFFECT + f"{keys['network_module']} does not read it"
    return f'adapter.lycoris.algo = "{name_algo(keys)}"'


def _put_preset(draft: Draft, keys: Keys, value: Any) -> str:
    """`preset`: which layers LyCORIS finds in FLUX."""
    preset = str(value).strip()
    if not is_lycoris(keys):
        return NO_EFFECT + f"{keys['network_module']} does not read it"
    if preset in ("full", "full-lin", "attn-mlp", "unet-only", "unet-transformer-only"):
        return f'adapter.targets = "{ALL_LINEAR}": in FLUX it finds all linear layers of the blocks'
    if preset == "attn-only":
        return "adapter.targets: attention of the blocks with two streams, where LyCORIS finds it"
    return REFUSED + f'weber knows no such preset; all linear layers of the blocks are taken: adapter.targets = "{ALL_LINEAR}"'


def _put_dropout(name: str) -> Call:
    def put(draft: Draft, keys: Keys, value: Any) -> str:
        if read_float(value, name=name) == 0:
            return NO_EFFECT + "asks for nothing, here as there"
        return _put_setting(name, name)(draft, keys, value) if is_lycoris(keys) else REFUSED + _ONLY_LYCORIS

    return put


def _put_root(draft: Draft, keys: Keys, value: Any) -> str:
    """`rs_lora`: alpha over the root of the rank."""
    if not is_lycoris(keys) or not read_bool(value, name="rs_lora"):
        return NO_EFFECT + f"{keys['network_module']} does not read it" if not is_lycoris(keys) else NO_EFFECT + "asks for nothing"
    return "in adapter.lycoris.linear_alpha, which is multiplied by the root of the rank"


LYCORIS: Table = {
    "network_args.algo": translated(_put_algo, "adapter.lycoris.algo"),
    "network_args.preset": translated(_put_preset, "adapter.targets"),
    **{
        f"network_args.{name}": translated(_put_setting(name, to), f"adapter.lycoris.{to}")
        for name, to in {
            **{one: one for one in ("factor", "constraint", "dropout", *_SWITCHES)},
            "constrain": "constraint",
        }.items()
    },
    **{f"network_args.{name}": translated(_put_dropout(name), f"adapter.lycoris.{name}") for name in _DROPOUTS},
    "network_args.enable_all_linear": ignored("is read with networks.oft_flux, as adapter.targets"),
    "network_args.use_tucker network_args.use_cp": ignored(_CONVOLUTIONS),
    "network_args.use_scalar": refused("no run could go on from files with it", off=_OFF),
    "network_args.train_norm": refused("the norms of FLUX are of a kind that LyCORIS does not change", off=_OFF),
    "network_args.rank_dropout_scale": refused("weber does not scale what is left", off=_OFF),
    "network_args.block_size": ignored("is for dylora"),
    "network_args.rs_lora": translated(_put_root, "adapter.lycoris.linear_alpha, multiplied by the root of the rank"),
}
"""Entries of `network_args` that LyCORIS reads."""

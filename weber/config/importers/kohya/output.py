"""Memory, and what a run leaves behind: options of kohya's scripts as settings of weber."""

from __future__ import annotations

from typing import Any

from weber.config.importers.answers import Table, ignored, refused, stated, translated, used
from weber.config.importers.draft import NO_EFFECT, REFUSED, Draft, Keys
from weber.config.importers.kohya.facts import is_adapter, is_lycoris, moves_at_once
from weber.config.importers.processes import OFFLOADED, SHARDED, STATE, STRATEGY, set_offload, set_strategy
from weber.config.importers.published import BESIDE, IS_PRIVATE, TOKEN, Names, answer_private
from weber.config.importers.trackers import set_project, set_run_name, set_trackers
from weber.config.importers.values import read_bool, read_int

_SPLIT_MODE_BLOCKS = 18
"""What the scripts take in place of `--split_mode`."""

def _put_dtype(draft: Draft, keys: Keys, value: Any) -> str:
    """`mixed_precision`."""
    name = str(value).strip().lower()
    if name == "fp16":
        return REFUSED + "FLUX overflows in fp16; memory.dtype is bf16 where the device has it, else fp32"
    dtype = {"bf16": "bf16", "no": "fp32", "fp32": "fp32", "none": "fp32"}.get(name)
    if dtype is None:
        return REFUSED + "weber computes in bf16 or fp32"
    return draft.set("memory.dtype", dtype, origin=keys.find("mixed_precision"))


def _put_fp8(draft: Draft, keys: Keys, value: Any) -> str:
    """`fp8_base`: frozen weights in 8 bits."""
    if not read_bool(value, name="fp8_base"):
        return NO_EFFECT + "asks for nothing, here as there"
    if not is_adapter(keys):
        return NO_EFFECT + "flux_train.py does not read it, and trained weights have all their bits"
    if draft.get("memory.quantize") is not None:
        return 'memory.quantize = "fp8"'
    name = "fp8_base" if keys["fp8_base"] else "fp8_base_unet"
    return draft.set("memory.quantize", "fp8", origin=keys.find(name)) + ", with a scale for each row, which there was not"


def count_swapped(keys: Keys) -> int:
    """How many blocks lie outside: of N half are blocks with two streams, and two of the others take the place of each of the rest."""
    number = keys.read_int("blocks_to_swap")
    if number is None:
        number = (keys.read_int("double_blocks_to_swap") or 0) + (keys.read_int("single_blocks_to_swap") or 0) // 2
        if not number and is_adapter(keys) and keys.read_bool("split_mode"):
            number = _SPLIT_MODE_BLOCKS
    return number // 2 + (number - number // 2) * 2


def _put_swap(draft: Draft, keys: Keys, value: Any) -> str:
    """`blocks_to_swap`, and what it was called before."""
    number = count_swapped(keys)
    if not number or value in (0, "0", False):
        return NO_EFFECT + "asks for nothing, here as there"
    if not is_adapter(keys) and not moves_at_once(keys):
        return REFUSED + "blocks that are trained can be swapped here with optim.fused_backward alone"
    if draft.get("memory.swap_blocks") == number:
        return f"memory.swap_blocks = {number}"
    name = next(one for one in ("blocks_to_swap", "double_blocks_to_swap", "single_blocks_to_swap", "split_mode") if keys[one])
    return draft.set("memory.swap_blocks", number, origin=keys.find(name))


def _put_checkpointing(draft: Draft, keys: Keys, value: Any) -> str:
    """`gradient_checkpointing`."""
    if read_bool(value, name="gradient_checkpointing"):
        return draft.set("memory.gradient_checkpointing", "all", origin=keys.find("gradient_checkpointing"))
    return NO_EFFECT + "weber's own default saves memory and changes nothing: memory.gradient_checkpointing"


def _put_compile(draft: Draft, keys: Keys, value: Any) -> str:
    """`torch_compile`."""
    if not read_bool(value, name="torch_compile"):
        return NO_EFFECT + "asks for nothing, here as there"
    if count_swapped(keys) or keys.read_bool("cpu_offload_checkpointing") or moves_at_once(keys):
        return NO_EFFECT + "it does not go with swapped blocks or fused updates here, and changes nothing that is learned"
    return draft.set("memory.compile", True, origin=keys.find("torch_compile"))


_ATTENTION = "how attention is computed, not what is learned: weber takes what is fastest, memory.attention"
_CACHED = "latents and texts are encoded once and kept in output.cache in any case"
_WHERE = "where things lie while it trains; weber's settings of [memory] say that, and memory.fit chooses them"

MEMORY: Table = {
    "mixed_precision": translated(_put_dtype, "memory.dtype"),
    "fp8_base fp8_base_unet": translated(_put_fp8, "memory.quantize, of adapters alone"),
    "full_bf16": translated(
        lambda draft, keys, value: (
            REFUSED + "adapters are trained in fp32 here; in bf16 they hardly move"
            if is_adapter(keys)
            else NO_EFFECT + "the model is in bf16 with mixed_precision = bf16 already"
        ),
        "adapters are trained in fp32",
        off=(False, None, 0),
    ),
    "full_fp16": refused("weights that learn have too little range in fp16; they are fp32 or bf16"),
    "gradient_checkpointing": translated(_put_checkpointing, 'memory.gradient_checkpointing = "all"'),
    "cpu_offload_checkpointing": used("memory.offload_activations", off=(False, None, 0)),
    "blocks_to_swap double_blocks_to_swap single_blocks_to_swap split_mode": translated(
        _put_swap, "memory.swap_blocks: of N half are blocks with two streams, and each of the others counts for two blocks with one"
    ),
    "vae_batch_size": used("memory.encode_batch_size", off=(0,)),
    "text_encoder_batch_size": ignored("memory.encode_batch_size is of pictures and texts"),
    "torch_compile": translated(_put_compile, "memory.compile"),
    "dynamo_backend dynamo_mode dynamo_use_fullgraph dynamo_use_dynamic": ignored("memory.compile compiles blocks as they should be"),
    "sdpa xformers mem_eff_attn": ignored(_ATTENTION),
    "highvram lowram lowvram no_half_vae": ignored(_WHERE),
    "cache_latents cache_latents_to_disk": ignored(_CACHED),
    "cache_text_encoder_outputs cache_text_encoder_outputs_to_disk": ignored(_CACHED),
    "skip_cache_check skip_latents_validity_check": ignored("what is in the cache is found by its content, so that nothing stale is used"),
    "mem_eff_save": ignored("how the file is written"),
    "max_data_loader_n_workers persistent_data_loader_workers": ignored(
        "pictures and captions are encoded before the first step, so that nothing is loaded while it trains"
    ),
    "deepspeed zero_stage": stated(set_strategy, STRATEGY),
    "offload_param_device": stated(set_offload, OFFLOADED),
    "offload_optimizer_device": ignored(STATE),
    "offload_optimizer_nvme_path offload_param_nvme_path zero3_init_flag "
    "zero3_save_16bit_model fp16_master_weights_and_gradients": ignored(SHARDED),
    "ddp_timeout ddp_gradient_as_bucket_view ddp_static_graph": ignored("how processes talk to each other changes nothing that is learned"),
}
"""Precision and memory."""


# ---- what is kept


def _put_save(draft: Draft, keys: Keys, value: Any) -> str:
    """`save_every_n_epochs` and `save_every_n_steps`: every file is kept there, unless it says how many."""
    number, epochs = read_int(value, name="save_every_n_epochs"), keys.read_int("save_every_n_epochs")
    if number < 1:
        return NO_EFFECT + "asks for nothing, here as there"
    is_steps = epochs is None or epochs < 1
    if not is_steps and "save_every_n_steps" in keys and draft.get("output.save_every") is not None:
        return REFUSED + f"files are written at one distance here: output.save_every = {draft.get('output.save_every')!r}"
    name = "save_every_n_steps" if is_steps else "save_every_n_epochs"
    line = draft.set("output.save_every", number if is_steps else f"{epochs} epochs", origin=keys.find(name))
    if not any(keys.read_int(one) for one in ("save_last_n_epochs", "save_last_n_steps")):
        line += "; " + draft.set("output.keep_last", "all", origin="all of them are kept there")
    return line


def _put_last_epochs(draft: Draft, keys: Keys, value: Any) -> str:
    """`save_last_n_epochs`: so many files."""
    number = read_int(value, name="save_last_n_epochs")
    if not keys.read_int("save_every_n_epochs") or number < 1:
        return NO_EFFECT + "needs save_every_n_epochs"
    return draft.set("output.keep_last", number, origin=keys.find("save_last_n_epochs"))


def _put_last_steps(draft: Draft, keys: Keys, value: Any) -> str:
    """`save_last_n_steps`: the files of so many steps."""
    number, every = read_int(value, name="save_last_n_steps"), keys.read_int("save_every_n_steps")
    if not every or number < 1:
        return NO_EFFECT + "needs save_every_n_steps"
    return draft.set("output.keep_last", number // every + 1, origin=keys.find("save_last_n_steps"))


def _put_ratio(draft: Draft, keys: Keys, value: Any) -> str:
    """`save_n_epoch_ratio`: at least so many files in all."""
    number, epochs = read_int(value, name="save_n_epoch_ratio"), keys.read_int("max_train_epochs")
    if number < 1:
        return NO_EFFECT + "asks for nothing, here as there"
    if epochs is None:
        return REFUSED + "how many epochs there are, only the number of pictures says: set output.save_every"
    every = epochs // number or 1
    draft.set("output.keep_last", "all", origin="all of them are kept there")
    return draft.set("output.save_every", f"{every} epochs", origin=keys.find("save_n_epoch_ratio"))


def _put_precision(draft: Draft, keys: Keys, value: Any) -> str:
    """`save_precision`."""
    if not is_adapter(keys):
        return NO_EFFECT + "whole models are written in the precision of the base's files"
    name = {"float": "fp32", "fp16": "fp16", "bf16": "bf16"}.get(str(value).strip().lower(), str(value))
    return draft.set("output.precision", name, origin=keys.find("save_precision"))


def _put_format(draft: Draft, keys: Keys, value: Any) -> str:
    """`save_model_as`: files are always safetensors, in the layout of the scripts."""
    origin = keys.find("save_model_as")
    if not is_adapter(keys):
        return draft.set("output.formats", ["merged-bfl"], origin=origin)
    if is_lycoris(keys):
        return NO_EFFECT + "files of LyCORIS have one layout"
    line = draft.set("output.formats", ["diffusers", "kohya"], origin=origin)
    return line if str(value) == "safetensors" else f"{line}; files are always safetensors"


def _put_name(draft: Draft, keys: Keys, value: Any) -> str:
    """`output_name`."""
    name = str(value).strip().removesuffix(".safetensors")
    plain = "".join("-" if one in '<>:"/\\|?*' or ord(one) < 32 else one for one in name).strip(". ")
    if not plain:
        return REFUSED + "it is no name of files"
    return draft.set("output.name", plain, origin=keys.find("output_name"))


def _put_log(draft: Draft, keys: Keys, value: Any) -> str:
    """`log_with`."""
    return set_trackers(draft, [str(value)], origin=keys.find("log_with"))


def _put_log_folder(draft: Draft, keys: Keys, value: Any) -> str:
    """`logging_dir`: with it alone, TensorBoard's files are written."""
    if "log_with" in keys:
        return NO_EFFECT + "what is logged is in the run folder"
    return draft.set("output.trackers", ["tensorboard"], origin=keys.find("logging_dir")) + ": in the run folder"


def _put_project(draft: Draft, keys: Keys, value: Any) -> str:
    """`log_tracker_name`."""
    return set_project(draft, value, trackers=[str(keys["log_with"])], origin=keys.find("log_tracker_name"))


def _put_run_name(draft: Draft, keys: Keys, value: Any) -> str:
    """`wandb_run_name`."""
    return set_run_name(draft, value, trackers=[str(keys["log_with"])], origin=keys.find("wandb_run_name"))


_UPLOADED = Names("huggingface_repo_id", wish=None, checkpoints=None, is_whole=lambda keys: not is_adapter(keys))
_UPLOAD = "a repository of a model gets the files at its top; states of the optimizer stay in the run folder"
_TRACKER = "weber writes the same numbers for each tracker, and none of its settings"
_HEADER = "weber writes into the header of a file what it knows: settings, data and base model"

OUTPUT: Table = {
    "output_dir": used("output.folder"),
    "output_name": translated(_put_name, "output.name"),
    "save_every_n_epochs save_every_n_steps": translated(_put_save, "output.save_every; all files are kept, as there"),
    "save_last_n_epochs": translated(_put_last_epochs, "output.keep_last"),
    "save_last_n_steps": translated(_put_last_steps, "output.keep_last"),
    "save_n_epoch_ratio": translated(_put_ratio, "output.save_every"),
    "save_precision": translated(_put_precision, "output.precision"),
    "save_model_as": translated(_put_format, "output.formats: kohya's layout beside the library's, or one file of a whole model"),
    "use_safetensors": ignored("files are always safetensors"),
    "save_state save_state_on_train_end save_last_n_epochs_state save_last_n_steps_state": ignored(
        "every checkpoint holds all that a resume needs"
    ),
    "huggingface_repo_id": stated(_UPLOADED.set_place, "publish.to, with publish.when"),
    "huggingface_repo_visibility": stated(answer_private, f"{IS_PRIVATE}"),
    "async_upload": ignored(BESIDE),
    "huggingface_token": ignored(TOKEN),
    "save_state_to_huggingface huggingface_path_in_repo": refused(_UPLOAD),
    "huggingface_repo_type": refused(_UPLOAD, off=(None, "", "model")),
    "log_with": translated(_put_log, "output.trackers"),
    "logging_dir": translated(_put_log_folder, 'output.trackers = ["tensorboard"]'),
    "log_tracker_name": translated(_put_project, "output.project, with wandb"),
    "wandb_run_name": translated(_put_run_name, "output.run_name, with wandb"),
    "wandb_api_key": refused("what is secret belongs into WANDB_API_KEY, or say `wandb login` once", off=(None, "")),
    "log_prefix log_tracker_config log_config": ignored(_TRACKER),
    "console_log_level console_log_file console_log_simple": ignored("what is printed"),
    "metadata_title metadata_author metadata_description metadata_license metadata_tags metadata_usage_hint metadata_thumbnail "
    "metadata_merged_from metadata_trigger_phrase metadata_preprocessor metadata_is_negative_embedding ckpt training_comment no_metadata": (
        ignored(_HEADER)
    ),
    "output_config config_file": ignored("the settings of a run, defaults included, are written into its folder"),
}
"""What is kept."""

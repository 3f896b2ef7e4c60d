"""Keys of SimpleTuner's multidatabackend.json: what becomes of each, by the kind of its set."""

from __future__ import annotations

from typing import Any

from weber.config.importers.answers import Table, ignored, refused, stated, used
from weber.config.importers.draft import NO_EFFECT, REFUSED, Draft, Keys
from weber.config.importers.simpletuner import captions, sets
from weber.config.importers.values import read_float

IS_ALONE = "the only set, of sigmoid's law"
"""Among the defaults of a set of pictures: whether the run has no other, and its noise levels may be moved."""
USERS = "sets that use it"
"""Among the defaults of a set of references or masks: where it went."""

_CACHED = "pictures and captions are encoded once into output.cache and found by their content, so that nothing stale is used"
_WORKERS = "pictures and captions are encoded before the first step, so that nothing is loaded while it trains"
_KEYS = "keys of a storage stand in the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL), not in a file of settings"
_SHARDS = "weber reads tar archives in a folder, and datasets of the hub, not webshart's"
_VIDEO = "it is for video and sound"
_FILTER = "`weber plan` lists pictures that are set aside, and why; nothing is deleted"
_LINKED = "the sets of references and masks say what they belong to"


def _name_slider(draft: Draft, keys: Keys, value: Any) -> str:
    return f"{REFUSED}train a LoRA for each end; `weber merge a.safetensors b.safetensors:-1` makes a slider of them"


def _set_offset(draft: Draft, keys: Keys, value: Any) -> str:
    offset = read_float(value, name="timestep_sampling_offset")
    if offset == 0:
        return f"{NO_EFFECT}0 moves nothing"
    if not keys[IS_ALONE]:
        return f"{REFUSED}noise levels have one law for all sets: objective.sigmoid_offset"
    return draft.set("objective.sigmoid_offset", offset, origin=keys.find("timestep_sampling_offset"))


SET_TABLE: Table = {
    "id": used(".name"),
    "type": ignored("where the pictures are is said by the other keys"),
    "dataset_type": ignored("a set of pictures to learn; of the type eval data.N.evaluation = 1"),
    "disabled disable": ignored("the set takes part"),
    "instance_data_dir instance_data_root": stated(sets.set_folder, "`path`"),
    "aws_bucket_name": stated(sets.set_bucket, "`path`, as s3://bucket/folder"),
    "aws_data_prefix": stated(sets.name_bucket, "`path`, behind the bucket"),
    "aws_*": ignored(_KEYS),
    "csv_file parquet.path": stated(sets.set_table, "`metadata`"),
    "csv_url_column parquet.filename_column": stated(sets.set_image_column, "`image_column`"),
    "csv_caption_column parquet.caption_column": stated(sets.set_caption_column, "`caption_column`"),
    "parquet.fallback_caption_column huggingface.fallback_caption_column": stated(sets.name_fallback, "`caption_column`, a list"),
    "parquet.width_column parquet.height_column huggingface.width_column huggingface.height_column": ignored(
        "sizes are read from the pictures, or from columns named width and height"
    ),
    "parquet.identifier_includes_extension": ignored("a name in a table is found with its ending or by its stem"),
    "parquet.*": ignored(_VIDEO),
    "csv_*": ignored(_CACHED),
    "dataset_name huggingface.dataset_name": stated(sets.set_hub, "`hub`"),
    "split dataset_config huggingface.split huggingface.dataset_config": stated(sets.set_split, "`hub_split`"),
    "revision huggingface.revision": stated(sets.for_hub("revision", "hub_revision"), "`hub_revision`"),
    "image_column huggingface.image_column": stated(sets.for_hub("image_column", "image_column"), "`image_column`"),
    "huggingface.caption_column": stated(sets.set_hub_caption, "`caption_column`"),
    "caption_column": ignored("SimpleTuner reads it in the block huggingface alone"),
    "huggingface.composite_image_config huggingface.filter_func*": refused(
        "a row is a picture here; filter the dataset before, or download it and set path", off=(None, "", False)
    ),
    "huggingface.composite_image_config.* filter_func*": refused("a row is a picture here; filter the dataset before"),
    "huggingface.* streaming num_proc auto_load file_extension quality_column": ignored(_WORKERS),
    "video_column huggingface.video_column": ignored(_VIDEO),
    "source metadata subfolder hf_token shard_cache_gb parallel_downloads buffer_size max_file_size optimi?e_captions": ignored(_SHARDS),
    "webshart webshart.* webshart_*": ignored(_SHARDS),
    "metadata_backend": ignored("what belongs to a picture is read from files beside it, or from the table that is named"),
    "resolution": stated(sets.set_resolution, "`resolution`"),
    "resolution_type": stated(sets.set_unit, "`resolution_type`: pixel_area is `area`, area `megapixels`, pixel `shorter_edge`"),
    "crop": stated(sets.set_crop, "`aspect`; with false too a window is cut, near the picture's own shape"),
    "crop_aspect": stated(sets.set_shape, "`aspect`"),
    "crop_style": stated(sets.set_style, "`crop`"),
    "crop_aspect_buckets": stated(sets.set_aspects, "`aspects`, `aspect_weights`"),
    "minimum_image_size": stated(sets.set_smallest, "`minimum_megapixels` or `minimum_edge`"),
    "maximum_image_size": stated(sets.name_largest, "`downsample_to`: every picture is resized to it, whatever its size"),
    "target_downsample_size": stated(sets.set_downsample, "`downsample_to`"),
    "minimum_aspect_ratio maximum_aspect_ratio": stated(sets.set_range, "`aspect_range`; nothing where all become squares"),
    "max_upscale_threshold": ignored("SimpleTuner never reads it, so that small pictures are enlarged, as here in this set"),
    "repeats": stated(sets.set_repeats, "`repeats`, one more: it counts further passes there"),
    "probability": stated(sets.set_share, "`share`"),
    "start_epoch start_step": stated(sets.set_start, "`start_after`, one less"),
    "end_epoch end_step": stated(sets.set_stop, "`stop_after`"),
    "disable_after_epoch_step": refused("a set does not fade out; stop_after ends it", off=(None, "", 0)),
    "max_num_samples": used(".limit"),
    "train_batch_size": stated(sets.refuse_batch, "one batch size for all sets: `train.batch_size`"),
    "is_regularisation_data is_regularization_data is_regularisation is_regularization": stated(
        sets.set_regularization, "`regularization`"
    ),
    "slider_strength": stated(_name_slider, "two adapters, of which `weber merge` makes a slider"),
    "timestep_sampling_offset": stated(_set_offset, "one law for all sets: `objective.sigmoid_offset`"),
    "caption_strategy": stated(captions.set_captions, "`captions`"),
    "instance_prompt": stated(captions.set_instance, "`instance_prompt`, or a step of captions"),
    "prepend_instance_prompt caption_shuffle.enable": stated(captions.set_steps, "`[[data.caption_steps]]`: prefix, shuffle"),
    "only_instance_prompt": stated(captions.set_only_instance, '`captions = "instance"`'),
    "use_captions": ignored("SimpleTuner reads it in a few tools alone; only_instance_prompt leaves captions out"),
    "disable_multiline_split": stated(captions.name_split_lines, '`caption_per = "file"`'),
    "caption_shuffle.*": stated(captions.name_steps, "`[[data.caption_steps]]`: shuffle, and `caption_variants`"),
    "caption_filter_list": ignored("SimpleTuner reads it in the set of text embeds alone"),
    "conditioning_data": ignored(_LINKED),
    "conditioning conditioning.*": refused("weber makes no pictures of others; make them before, and name their folder"),
    "conditioning_config conditioning_config.*": refused("weber makes no pictures of others; make them before, and name their folder"),
    "conditioning_type source_dataset_id": ignored("it is for sets of references and masks"),
    "text_embeds image_embeds cache_dir cache_dir_vae default": ignored(_CACHED),
    "vae_cache_clear_each_epoch": ignored("windows that are drawn are kept, several of a picture where they are drawn anew"),
    "vae_cache_* text_cache_* disable_vae_cache skip_file_discovery preserve_data_backend_cache": ignored(_CACHED),
    "hash_filenames shorten_filenames cache_file_suffix ignore_epochs compress_cache compress_disk_cache": ignored(_CACHED),
    "write_batch_size read_batch_size text_encoder_batch_size image_processing_batch_size": ignored(_WORKERS),
    "aspect_bucket_worker_count dataloader_prefetch vae_batch_size metadata_update_interval": ignored(_WORKERS),
    "delete_unwanted_images delete_problematic_images scan_for_errors ignore_missing_files disable_validation": ignored(_FILTER),
    "video video.* audio audio.* num_frames frame_rate": ignored(_VIDEO),
    "owner_id description name": ignored("it is of SimpleTuner's own pages"),
}
"""Of a set of pictures."""


def _name_users(draft: Draft, keys: Keys, value: Any) -> str:
    users = keys[USERS] or []
    kind = "loss_masks" if is_mask(keys) else "conditioning"
    if not users:
        return f"{NO_EFFECT}no set of pictures uses it"
    return f"in {', '.join(f'data.{number}.{kind}' for number in users)}"


def _name_type(draft: Draft, keys: Keys, value: Any) -> str:
    word = str(value).strip().lower()
    if word in ("mask", "segmentation"):
        note = ": white is learned, where SimpleTuner takes all that is lighter than middle gray" if word == "segmentation" else ""
        return f'loss_masks of the set that it belongs to, with objective.mask_mean = "picture"{note}'
    if word in ("reference_strict", "reference_loose"):
        return f'conditioning_type = "{word}" of the set that it belongs to'
    return f"{REFUSED}weber trains no ControlNets; a reference picture is reference_strict"


def is_mask(keys: Keys) -> bool:
    """Whether a set says where the loss counts."""
    return (keys.read_text("conditioning_type") or "").lower() in ("mask", "segmentation")


def _name_captions(draft: Draft, keys: Keys, value: Any) -> str:
    if is_mask(keys) or not keys[USERS]:
        return f"{NO_EFFECT}masks have no captions"
    return f"{REFUSED}captions are those of the set of pictures, where SimpleTuner takes these instead"


CONDITIONING_TABLE: Table = {
    "id source_dataset_id": ignored(_LINKED),
    "type dataset_type": ignored("a set of references or masks"),
    "instance_data_dir instance_data_root aws_bucket_name aws_data_prefix image_column huggingface.image_column": stated(
        _name_users, "`conditioning` or `loss_masks` of the set that it belongs to"
    ),
    "dataset_name huggingface.dataset_name": ignored("the column is one of the set of pictures"),
    "conditioning_type": stated(_name_type, "`conditioning_type`, or `loss_masks`"),
    "caption_strategy instance_prompt only_instance_prompt prepend_instance_prompt": stated(
        _name_captions, "captions are those of the set of pictures"
    ),
    "resolution resolution_type crop crop_aspect crop_style minimum_image_size maximum_image_size target_downsample_size": ignored(
        "references and masks have the shape of their picture, loose references their own"
    ),
    "repeats probability": ignored("references and masks come with their pictures"),
    **{name: answer for name, answer in SET_TABLE.items() if answer.kind == "no effect" and "source_dataset_id" not in name},
    "*": ignored("it is for sets of pictures"),
}
"""Of a set of references or masks."""


def _name_filter(draft: Draft, keys: Keys, value: Any) -> str:
    return f"{NO_EFFECT}it is empty" if not value else "in data.N.caption_steps of the sets that use these text embeds"


TEXT_TABLE: Table = {
    "caption_filter_list": stated(_name_filter, "`[[data.caption_steps]]`: replace and regex"),
    "*": ignored(_CACHED),
}
"""Of a set that keeps encoded texts or pictures."""

OTHER_TABLES: dict[str, Table] = {
    "caption": {
        "dataset_type": refused("weber trains on pictures, not on captions alone", off=()),
        "*": ignored("of a set that cannot be had"),
    },
    "grounding": {
        "dataset_type": refused("weber has no boxes in pictures", off=()),
        "*": ignored("of a set that cannot be had"),
    },
    "distillation_cache": {
        "dataset_type": refused("weber distills no models", off=()),
        "*": ignored("of a set that cannot be had"),
    },
}
"""Of sets that weber has nothing for."""
DISABLED_TABLE: Table = {"*": ignored("the set is turned off")}

SET_DEFAULTS: dict[str, Any] = {
    "resolution": 1024,
    "resolution_type": "pixel_area",
    "crop": False,
    "crop_aspect": "square",
    "crop_style": "random",
    "caption_strategy": "filename",
}
"""What SimpleTuner takes for keys that are left out of a set and of the options."""

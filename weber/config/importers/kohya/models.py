"""Which of kohya's scripts train FLUX.1, and what says that a file is for another model."""

from __future__ import annotations

from collections.abc import Mapping

from weber.errors import ConfigError

TRAINERS = ("flux_train.py", "flux_train_network.py")

_IMAGES = "which trains another model than FLUX."
_TOOL = ""  # no training

OTHER_PROGRAMS: Mapping[str, str] = {
    "flux_train_control_net.py": "which trains a ControlNet: weber does not. Pictures as references are data.0.conditioning.",
    **dict.fromkeys(
        (
            "train_network.py", "train_db.py", "fine_tune.py", "train_textual_inversion.py", "train_textual_inversion_XTI.py",
            "train_control_net.py", "train_leco.py",
            "sdxl_train.py", "sdxl_train_network.py", "sdxl_train_textual_inversion.py", "sdxl_train_control_net.py",
            "sdxl_train_control_net_lllite.py", "sdxl_train_leco.py",
            "sd3_train.py", "sd3_train_network.py", "lumina_train.py", "lumina_train_network.py",
            "anima_train.py", "anima_train_network.py", "hunyuan_image_train_network.py", "cogview4_train_network.py",
        ),
        _IMAGES,
    ),
    **dict.fromkeys(("flux_kontext_train_network.py", "flux_2_train_network.py"), "which is musubi-tuner's: weber reads no files of it."),
    **dict.fromkeys(
        (
            "make_captions.py", "make_captions_by_git.py", "tag_images_by_wd14_tagger.py", "merge_captions_to_metadata.py",
            "merge_dd_tags_to_metadata.py", "merge_all_to_metadata.py", "clean_captions_and_tags.py", "prepare_buckets_latents.py",
            "gen_img.py", "gen_img_diffusers.py", "flux_minimal_inference.py", "flux_merge_lora.py", "flux_extract_lora.py",
            "convert_flux_lora.py", "cache_latents.py", "cache_text_encoder_outputs.py", "convert_diffusers_to_flux.py",
        ),
        _TOOL,
    ),
}
"""Other programs of kohya's: what is said where a file starts one of them; nothing of those that train nothing."""

UI_TYPES: Mapping[str, bool] = {"flux-lora": True, "flux-finetune": False}
"""`model_train_type` of lora-scripts: whether it is an adapter."""

FLUX_KEYS = frozenset(
    (
        "clip_l", "t5xxl", "ae", "timestep_sampling", "guidance_scale", "model_prediction_type", "discrete_flow_shift",
        "t5xxl_max_token_length", "apply_t5_attn_mask", "flux1_checkbox", "split_mode", "blocks_to_swap",
    )
)
"""Options that say that a file is for FLUX."""

OTHER_MODELS: Mapping[str, str] = {
    "v2": "of Stable Diffusion 2",
    "v_parameterization": "of Stable Diffusion",
    "sdxl": "of Stable Diffusion XL",
    "clip_g": "of Stable Diffusion 3",
    "gemma2": "of Lumina",
    "qwen3": "of Anima",
    "controlnet_model_name_or_path": "of a ControlNet",
}
"""Options that say that it is for another one -> of which."""


def build_other_model(got: str, *, where: str, what: str = "of another model") -> ConfigError:
    """The error for a file that trains something else than FLUX.1."""
    return ConfigError(
        f"{where[:1].upper()}{where[1:]} is {what}, and weber trains FLUX.",
        got=got,
        expected="a file for flux_train.py or flux_train_network.py, with clip_l, t5xxl and ae",
        fix="name a file that trains FLUX.1",
    )

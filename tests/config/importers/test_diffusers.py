"""diffusers' scripts: what each flag becomes, by hand; what they do in silence; and files that are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from weber.config.importers.answers import find_answer
from weber.config.importers.diffusers.keys import ACCELERATE, BITSANDBYTES, KEYS
from weber.config.importers.load import import_run
from weber.config.importers.outcome import Imported
from weber.errors import ConfigError

FLAGS_IN_FILES = (
    "gradient_accumulation_steps learning_rate max_train_steps pretrained_model_name_or_path train_batch_size output_dir resolution"
    " lr_scheduler mixed_precision seed lr_warmup_steps rank instance_prompt validation_prompt optimizer report_to guidance_scale"
    " instance_data_dir gradient_checkpointing push_to_hub dataset_name use_8bit_adam validation_epochs checkpointing_steps image_column"
    " validation_steps cache_latents cond_image_column do_fp8_training validation_image caption_column class_data_dir class_prompt"
    " lora_layers num_class_images prior_generation_precision prior_loss_weight structural_noise_radius with_prior_preservation offload"
    " repeats weighting_scheme adam_weight_decay dataloader_num_workers train_text_encoder aspect_ratio_buckets blur_radius"
    " center_crop degradation_types hr_root instance_data_root jpeg_quality noise_level num_validation_inference_steps perceptual_loss"
    " prior_reflow_data_root text_encoder_lr train_text_encoder_ti train_text_encoder_ti_frac use_bucket_sampler"
    " conditioning_image_column data_df_path enable_t5_ti num_double_layers num_single_layers"
)
"""peers-2026-11-29.md B.4, but config_file, which is accelerate's."""

FLAGS_OF_SCRIPTS = (
    "adam_beta1 adam_beta2 adam_epsilon adam_weight_decay_text_encoder allow_tf32 bnb_quantization_config_path cache_dir caption_dropout"
    " checkpoints_total_limit dataset_config_name enable_npu_flash_attention final_validation_prompt fsdp_text_encoder hub_model_id"
    " hub_token image_interpolation_mode initializer_concept local_rank logging_dir logit_mean logit_std lora_alpha lora_dropout"
    " lr_num_cycles lr_power max_grad_norm max_sequence_length mode_scale num_new_tokens_per_abstraction num_train_epochs"
    " num_validation_images prodigy_beta3 prodigy_decouple prodigy_safeguard_warmup prodigy_use_bias_correction random_flip"
    " remote_text_encoder resume_from_checkpoint revision sample_batch_size scale_lr skip_final_inference text_encoder_out_layers"
    " token_abstraction train_text_encoder_frac train_transformer_frac upcast_before_saving use_aspect_ratio_buckets vae_encode_mode"
    " variant quantized_model_path use_8bit_ademamix proportion_empty_prompts max_train_samples jsonl_for_train gaussian_init_lora"
    " use_lora_bias train_norm_layers only_target_transformer_blocks log_dataset_samples tracker_project_name set_grads_to_none"
)
"""Every other flag of the library's scripts for FLUX (examples/dreambooth, advanced_diffusion_training, flux-control)."""

KEYS_OF_ACCELERATE = (
    "config_file compute_environment debug distributed_type downcast_bf16 enable_cpu_affinity gpu_ids machine_rank main_process_ip"
    " main_process_port main_training_function mixed_precision num_machines num_processes rdzv_backend same_network tpu_env"
    " tpu_use_cluster tpu_use_sudo use_cpu dynamo_config.dynamo_backend dynamo_backend multi_gpu num_cpu_threads_per_process"
    " deepspeed_config.zero_stage deepspeed_config.gradient_clipping deepspeed_config.offload_optimizer_device deepspeed_config_file"
    " fsdp_config.fsdp_version fsdp_config.fsdp_offload_params fsdp_config.fsdp_sharding_strategy fsdp_config.fsdp_auto_wrap_policy"
    " fsdp_config.fsdp_transformer_layer_cls_to_wrap fsdp_config.fsdp_forward_prefetch fsdp_config.fsdp_sync_module_states"
    " fsdp_config.fsdp_state_dict_type fsdp_config.fsdp_use_orig_params fsdp_config.fsdp_activation_checkpointing"
    " fsdp_config.fsdp_reshard_after_forward fsdp_config.fsdp_cpu_ram_efficient_loading"
)

KEYS_OF_BITSANDBYTES = (
    "load_in_4bit load_in_8bit bnb_4bit_quant_type bnb_4bit_compute_dtype bnb_4bit_use_double_quant bnb_4bit_quant_storage"
    " llm_int8_threshold llm_int8_skip_modules llm_int8_enable_fp32_cpu_offload llm_int8_has_fp16_weight quant_method"
)

MODEL = "--pretrained_model_name_or_path=black-forest-labs/FLUX.1-dev"
PICTURES = '--instance_data_dir=dogs --instance_prompt="a dog"'


def import_flags(folder: Path, flags: str, *, script: str = "train_dreambooth_lora_flux.py", launch: str = "accelerate launch") -> Imported:
    """A command with a model and pictures, and some flags more."""
    path = folder / "train.sh"
    path.write_text(f"{launch} {script} {MODEL} {PICTURES} {flags}\n", encoding="utf-8")
    return import_run(path)


def find_line(imported: Imported, name: str) -> tuple[str, str]:
    """What became of a key."""
    [one] = [one for one in imported.outcomes if one.given.name == name]
    return one.kind, one.line


def has_fault(imported: Imported, words: str) -> bool:
    """Whether that is said of the old run."""
    return any(words in fault for fault in imported.faults)


def test_every_flag_has_an_answer() -> None:
    assert [name for name in f"{FLAGS_IN_FILES} {FLAGS_OF_SCRIPTS}".split() if find_answer(KEYS, name) is None] == []
    assert [name for name in KEYS_OF_ACCELERATE.split() if find_answer(ACCELERATE, name) is None] == []
    assert [name for name in KEYS_OF_BITSANDBYTES.split() if find_answer(BITSANDBYTES, name) is None] == []


# ---- numbers, by hand


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("--lr_scheduler=constant --lr_warmup_steps=100", {"schedule": "constant"}),
        ("--lr_scheduler=constant_with_warmup --lr_warmup_steps=100", {"schedule": "constant", "warmup_steps": 100}),
        ("--lr_scheduler=linear", {"schedule": "linear", "warmup_steps": 500}),
        ("--lr_scheduler=cosine_with_restarts --lr_warmup_steps=0", {"schedule": "cosine"}),
        ("--lr_scheduler=cosine_with_restarts --lr_num_cycles=4 --lr_warmup_steps=0", {"schedule": "cosine_with_restarts", "cycles": 4}),
        ("--lr_scheduler=polynomial --lr_warmup_steps=0", {"schedule": "polynomial", "power": 1.0, "end_lr": 1e-7}),
    ],
)
def test_schedules(tmp_path: Path, flags: str, expected: dict[str, object]) -> None:
    optim = import_flags(tmp_path, flags).tree["optim"]
    assert {name: optim[name] for name in optim if name in ("schedule", "warmup_steps", "cycles", "power", "end_lr")} == expected


def test_warmup_of_a_constant_rate_did_nothing(tmp_path: Path) -> None:
    imported = import_flags(tmp_path, "--lr_warmup_steps=100")
    assert find_line(imported, "lr_warmup_steps") == (
        "no effect",
        "--lr_scheduler constant has no warm-up; constant_with_warmup has",
    )
    assert has_fault(imported, "--lr_warmup_steps 100 did nothing")
    assert not has_fault(import_flags(tmp_path, ""), "warm-up")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("", {"timesteps": "uniform"}),
        ("--weighting_scheme=logit_normal", {"timesteps": "logit_normal"}),
        ("--weighting_scheme=logit_normal --logit_mean=0.5", {"timesteps": "logit_normal", "logit_mean": -0.5}),
        ("--weighting_scheme=mode", {"timesteps": "mode"}),
        ("--weighting_scheme=sigma_sqrt --logit_mean=0.5", {"timesteps": "uniform", "weighting": "sigma_sqrt"}),
    ],
)
def test_noise_levels(tmp_path: Path, flags: str, expected: dict[str, object]) -> None:
    objective = dict(import_flags(tmp_path, flags).tree["objective"])
    assert objective.pop("guidance") == 3.5
    assert objective == expected


def test_sign_of_the_mean(tmp_path: Path) -> None:
    # u = logistic(N(0.5, 1)) is an index that counts from the noisy end: t = 1 - u = logistic(N(-0.5, 1)).
    imported = import_flags(tmp_path, "--weighting_scheme=logit_normal --logit_mean=0.5")
    assert imported.config.objective.logit_mean == -0.5
    assert has_fault(imported, "--logit_mean 0.5 draws more low noise there")


def test_alpha_does_not_follow_rank(tmp_path: Path) -> None:
    imported = import_flags(tmp_path, "--rank=16")
    assert imported.tree["adapter"]["rank"] == 16
    assert imported.tree["adapter"]["alpha"] == 4.0
    assert has_fault(imported, "multiplied by 0.25")
    assert not has_fault(import_flags(tmp_path, "--rank=16 --lora_alpha=16"), "multiplied by")


def test_pictures_per_step_are_those_of_all_processes(tmp_path: Path) -> None:
    imported = import_flags(
        tmp_path, "--train_batch_size=2 --gradient_accumulation_steps=3", launch="accelerate launch --num_processes=4 --multi_gpu"
    )
    assert imported.tree["train"] == {"batch_size": 2, "accumulation": 12, "epochs": 1}
    assert 'parallel.devices = "auto" takes the GPUs that are here' in find_line(imported, "num_processes")[1]


def test_scaled_learning_rate(tmp_path: Path) -> None:
    imported = import_flags(tmp_path, "--scale_lr --learning_rate=1e-5 --train_batch_size=2 --gradient_accumulation_steps=3")
    assert imported.config.optim.lr == pytest.approx(6e-5)


def test_defaults_of_prodigy(tmp_path: Path) -> None:
    optim = import_flags(tmp_path, "--optimizer=Prodigy --learning_rate=1. --prodigy_beta3=0.9").tree["optim"]
    options = {"decouple": True, "use_bias_correction": True, "safeguard_warmup": True, "beta3": 0.9}
    assert optim == {
        "name": "prodigy", "lr": 1.0, "options": options, "weight_decay": 1e-4, "clip_norm": 1.0, "schedule": "constant"
    }  # fmt: skip


def test_rate_of_adamw_in_prodigy(tmp_path: Path) -> None:
    imported = import_flags(tmp_path, "--optimizer=prodigy --learning_rate=1e-4")
    assert "lr" not in imported.tree["optim"]
    assert find_line(imported, "learning_rate")[0] == "refused"
    assert has_fault(imported, "next to nothing was learned")


def test_whole_model(tmp_path: Path) -> None:
    imported = import_flags(tmp_path, "--mixed_precision=bf16", script="train_dreambooth_flux.py")
    assert imported.tree["adapter"] == {"kind": "full", "precision": "fp32"}
    assert imported.tree["model"]["text_tokens"] == 77
    assert imported.tree["output"]["folder"] == "flux-dreambooth"


def test_fp4_is_said_to_be_nf4(tmp_path: Path) -> None:
    (tmp_path / "bits.json").write_text('{"load_in_4bit": true}', encoding="utf-8")
    imported = import_flags(tmp_path, "--bnb_quantization_config_path=bits.json", script="train_dreambooth_lora_flux2.py")
    assert imported.tree["memory"]["quantize"] == "nf4"
    assert "weber has no fp4" in find_line(imported, "load_in_4bit")[1]
    assert len(imported.files) == 2


def test_guidance_is_told_to_models_that_have_it(tmp_path: Path) -> None:
    assert import_flags(tmp_path, "--guidance_scale=1").tree["objective"]["guidance"] == 1.0
    klein = import_flags(tmp_path, "--guidance_scale=1", script="train_dreambooth_lora_flux2_klein.py")
    assert "guidance" not in klein.tree["objective"]
    assert find_line(klein, "guidance_scale") == ("no effect", "that model has no guidance input")


def test_layers_of_klein_text_encoder(tmp_path: Path) -> None:
    script = "train_dreambooth_lora_flux2_klein.py"
    assert has_fault(import_flags(tmp_path, "", script=script), "9, 18 and 27")
    given = import_flags(tmp_path, "--text_encoder_out_layers 9 18 27", script=script)
    assert find_line(given, "text_encoder_out_layers")[0] == "no effect"
    assert not has_fault(given, "9, 18 and 27")
    assert not has_fault(import_flags(tmp_path, "", script="train_dreambooth_lora_flux2_klein_img2img.py"), "9, 18 and 27")


def test_layers_that_flux2_lacks_are_left_out(tmp_path: Path) -> None:
    names = "attn.to_k,attn.to_q,ff.net.0.proj,norm.linear,proj_mlp,single_transformer_blocks.3.attn.to_k"
    imported = import_flags(tmp_path, f'--lora_layers="{names}"', script="train_dreambooth_lora_flux2.py")
    assert imported.tree["adapter"]["targets"] == ["attn.to_k", "attn.to_q"]
    assert "the model has no ff.net.0.proj, norm.linear, proj_mlp" in find_line(imported, "lora_layers")[1]
    with pytest.raises(ConfigError, match="names no layer of that model"):
        import_flags(tmp_path, "--lora_layers=proj_mlp", script="train_dreambooth_lora_flux2.py")


def test_class_images_are_a_second_set(tmp_path: Path) -> None:
    imported = import_flags(
        tmp_path, '--with_prior_preservation --class_data_dir=all --class_prompt="a pet" --train_batch_size=2 --center_crop'
    )
    assert imported.tree["train"]["batch_size"] == 4
    assert imported.tree["train"]["balance"] == "sets"
    assert imported.config.data[1].loss_weight == 1.0
    assert imported.config.data[1].limit == 100
    unused = import_flags(tmp_path, "--class_data_dir=all --class_prompt=pet --num_class_images=5")
    assert len(unused.config.data) == 1
    assert find_line(unused, "class_prompt") == ("no effect", "read only with --with_prior_preservation")


def test_weber_defaults(tmp_path: Path) -> None:
    import_flags(tmp_path, "--rank=16")
    imported = import_run(tmp_path / "train.sh", weber_defaults=True)
    assert imported.tree == {
        "model": {"path": "black-forest-labs/FLUX.1-dev"},
        "data": [{"path": "dogs", "captions": "instance", "instance_prompt": "a dog"}],
        "adapter": {"rank": 16},
    }


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    imported = import_flags(tmp_path, "--hub_token=hf_SECRET --push_to_hub")
    assert all("SECRET" not in one.given.text for one in imported.outcomes)


def test_start_of_a_flag_is_enough(tmp_path: Path) -> None:
    assert import_flags(tmp_path, "--max_train_st=77").config.train.steps == 77


def test_file_of_fsdp(tmp_path: Path) -> None:
    seed = Path(__file__).parent / "files" / "diffusers" / "seed-fsdp.yaml"
    (tmp_path / "fsdp.yaml").write_text(seed.read_text(encoding="utf-8"), encoding="utf-8")
    imported = import_flags(
        tmp_path, "", script="train_dreambooth_lora_flux2.py", launch="accelerate launch --config_file=/elsewhere/fsdp.yaml"
    )
    assert imported.tree["memory"] == {"gradient_checkpointing": "all"}
    kind, line = find_line(imported, "distributed_type")
    assert kind == "translated" and line.startswith('parallel.strategy = "fsdp"')
    assert imported.tree["parallel"] == {"strategy": "fsdp"}
    assert sum(one.given.where == "fsdp.yaml" for one in imported.outcomes) == 13


SANE = (
    "--random_flip --repeats=4",
    "--resolution=1000 --center_crop",
    "--max_sequence_length=128 --vae_encode_mode=mode --token_abstraction=TOK",
    "--train_text_encoder --optimizer=prodigy --learning_rate=1 --text_encoder_lr=1",
    "--train_text_encoder_ti --train_text_encoder_ti_frac=0.5 --num_new_tokens_per_abstraction=2 --train_transformer_frac=0.5",
    "--use_8bit_adam --adam_beta1=0.8 --adam_beta2=0.95 --adam_epsilon=1e-7 --adam_weight_decay_text_encoder=1e-3",
    "--optimizer=lion --lr_scheduler=piecewise_constant --max_grad_norm=0",
    "--mixed_precision=fp16 --allow_tf32 --upcast_before_saving --dataloader_num_workers=4 --local_rank=-1",
    "--num_validation_images=0 --validation_prompt=dog --validation_epochs=1",
    '--final_validation_prompt="a dog" --skip_final_inference --report_to=none',
    "--checkpoints_total_limit=0 --resume_from_checkpoint=out/checkpoint-500 --cache_dir=/x --logging_dir=logs",
    '--with_prior_preservation --class_data_dir=pets --class_prompt="a pet" --num_class_images=7 --prior_generation_precision=bf16',
)


@pytest.mark.parametrize("flags", SANE)
def test_what_may_stand_in_a_command(tmp_path: Path, flags: str) -> None:
    imported = import_flags(tmp_path, flags)
    given = [one.given.name for one in imported.outcomes if not one.given.is_default]
    assert len(given) == len(set(given))


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ("attn.to_k,attn.to_q,attn.to_v,attn.to_out.0", ["attn.to_k", "attn.to_q", "attn.to_v", "attn.to_out.0"]),
        (
            "attn.to_k,attn.to_out.0,attn.add_k_proj,attn.to_add_out,ff.net.0.proj,ff.net.2,ff_context.net.0.proj,ff_context.net.2",
            ["attn.to_k", "attn.to_out.0", "attn.add_k_proj", "attn.to_add_out"],
        ),
        ("single_transformer_blocks.3.attn.to_qkv_mlp_proj", ["single_transformer_blocks.3.attn.to_qkv_mlp_proj"]),
    ],
)
def test_layers_of_the_document(tmp_path: Path, layers: str, expected: list[str]) -> None:
    imported = import_flags(tmp_path, f'--lora_layers="{layers}"', script="train_dreambooth_lora_flux2.py")
    assert imported.tree["adapter"]["targets"] == expected


def test_dataset_that_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "pets").mkdir()
    (tmp_path / "pets" / "metadata.csv").write_text("file_name,text\na.png,a dog\n", encoding="utf-8")
    text = f"accelerate launch train_dreambooth_lora_flux.py {MODEL} --dataset_name=pets --caption_column=text"
    data = import_run(write(tmp_path, text)).config.data[0]
    assert (data.path, data.metadata, data.caption_column) == (Path("pets"), Path("pets/metadata.csv"), "text")
    hub = import_run(write(tmp_path, text.replace("=pets", "=pets2"))).config.data[0]
    assert (hub.hub, hub.path) == ("pets2", None)


def test_captions_of_other_pictures(tmp_path: Path) -> None:
    flags = "--dataset_name=a/b --caption_column=text"
    plain, kontext, flux2 = "train_dreambooth_lora_flux.py", "train_dreambooth_lora_flux_kontext.py", "train_dreambooth_lora_flux2.py"

    def find(script: str, more: str = "") -> list[str]:
        path = write(tmp_path, f"accelerate launch {script} {MODEL} {flags} {more}")
        return [fault for fault in import_run(path).faults if "the caption of" in fault]

    assert find(plain) == []
    assert len(find(plain, "--cache_latents")) == 1
    assert len(find(kontext)) == 1
    assert find(flux2)[0].startswith("Until March 2026")


def test_flag_that_only_the_readme_has(tmp_path: Path) -> None:
    imported = import_flags(tmp_path, '--lora_blocks="attn.to_k,norm1_context.linear, norm1.linear,proj_out"')
    assert imported.tree["adapter"]["targets"] == ["attn.to_k", "norm1_context.linear", "norm1.linear", "proj_out"]
    assert has_fault(imported, "have no --lora_blocks")


# ---- wrong files


def write(folder: Path, text: str, name: str = "train.sh") -> Path:
    """A script."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--learning_rat=1e-4 --rank_size=4", "rank_size"),
        ("--rank=$RANK", "--rank in train.sh, line 1 has no value"),
        ("--lerning_rate=1e-4", "did you mean learning_rate"),
        ("--data_df_path=embeddings.parquet", "encoded texts"),
        ("--train_batch_size=two", "train_batch_size is no number"),
        ("--lr_scheduler=cosin", "none of the library's"),
        ("--weighting_scheme=sigmoid", "none of the script's"),
        ("--dataset_name=a/b", "two places"),
        ("--with_prior_preservation", "needs --class_data_dir"),
        ("--aspect_ratio_buckets=1024x1024", "no size"),
        ("--seed=$(date +%s)", "another program"),
        ("--do_fp8_training --bnb_quantization_config_path=x.json", "two precisions"),
        ("--bnb_quantization_config_path=nowhere.json", "not here"),
    ],
)
def test_wrong_flags(tmp_path: Path, flags: str, words: str) -> None:
    with pytest.raises(ConfigError) as found:
        import_flags(tmp_path, flags)
    assert words in str(found.value)
    assert found.value.fix


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("accelerate launch train_dreambooth_lora_sdxl.py --pretrained_model_name_or_path=x", "another model than FLUX"),
        ("accelerate launch train_dreambooth_lora_sd3.py --rank=4", "another model than FLUX"),
        ("accelerate launch train_controlnet_flux.py --rank=4", "no ControlNet"),
        ("accelerate launch train_control_lora_flux.py --rank=4", "no ControlNet"),
        (f"accelerate launch train_dreambooth_lora_flux.py {PICTURES}", "does not say the model"),
        (f"accelerate launch train_dreambooth_lora_flux.py {MODEL}", "does not say the pictures"),
        (f"accelerate launch train_dreambooth_lora_flux.py {MODEL} --instance_data_dir=x", "does not say the captions"),
        (f"python train_dreambooth_lora_flux.py {PICTURES} --pretrained_model_name_or_path=$MODEL", "has no value"),
        (f"accelerate launch train_dreambooth_lora_flux.py {MODEL} {PICTURES}\n" * 2, "starts 2 runs"),
        (f"accelerate launch --config_file gone.yaml train_dreambooth_lora_flux.py {MODEL} {PICTURES}", "not here"),
        (f"accelerate launch --nonsense 3 train_dreambooth_lora_flux.py {MODEL} {PICTURES}", "nonsense"),
    ],
)
def test_wrong_scripts(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as found:
        import_run(write(tmp_path, text))
    assert words in str(found.value)
    assert found.value.fix


def test_half_a_notebook(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not valid JSON"):
        import_run(write(tmp_path, '{"cells": [{"cell_type": "code", "source": ["!acc', "train.ipynb"))


def test_half_a_json(tmp_path: Path) -> None:
    write(tmp_path, '{"load_in_4bit": tr', "bits.json")
    with pytest.raises(ConfigError, match="not valid JSON"):
        import_flags(tmp_path, "--bnb_quantization_config_path=bits.json", script="train_dreambooth_lora_flux2.py")

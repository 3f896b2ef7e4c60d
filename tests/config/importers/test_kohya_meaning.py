"""What options of kohya's scripts mean here, one at a time, against values worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from weber.config.importers.load import import_run
from weber.config.importers.outcome import Imported

MODEL = "--pretrained_model_name_or_path m/flux1-dev.safetensors --train_data_dir pictures --resolution 512"
LORA = f"flux_train_network.py {MODEL} --network_module networks.lora_flux"
FULL = f"flux_train.py {MODEL}"


def run(tmp_path: Path, flags: str, program: str = LORA, dataset: str = "") -> Imported:
    """The import of a command line."""
    (tmp_path / "set.toml").write_text(dataset, encoding="utf-8")
    (tmp_path / "go.sh").write_text(f"python {program} {flags} {'--dataset_config set.toml' if dataset else ''}", encoding="utf-8")
    return import_run(tmp_path / "go.sh")


def find(imported: Imported, key: str) -> Any:
    """A setting that was made; None where it was left out."""
    place: Any = imported.tree
    for part in key.split("."):
        place = place[int(part)] if isinstance(place, list) else place.get(part) if isinstance(place, dict) else None
    return str(place) if isinstance(place, Path) else place


def tell(imported: Imported, spelled: str) -> tuple[str, str]:
    """What became of a key."""
    [found] = [one for one in imported.outcomes if one.given.spelled == spelled]
    return found.kind, found.line


SETTINGS = [
    # what is asked of the network
    ("--timestep_sampling uniform", "objective.timesteps", "uniform"),
    ("--timestep_sampling sigmoid --sigmoid_scale 0.7", "objective.sigmoid_scale", 0.7),
    ("--timestep_sampling shift --discrete_flow_shift 3.1582", "objective.shift", 3.1582),
    ("--timestep_sampling shift", "objective.shift", 3.0),
    ("--timestep_sampling flux_shift --discrete_flow_shift 3", "objective.shift", None),
    ("--timestep_sampling flux_shift", "objective.timesteps", "token_shift"),
    ("", "objective.timesteps", "uniform"),  # sigma: even draws from a table that is shifted by 3
    ("", "objective.shift", 3.0),
    ("", "objective.guidance", 3.5),
    ("--weighting_scheme logit_normal --logit_mean 0.4 --logit_std 0.8", "objective.logit_mean", -0.4),
    ("--weighting_scheme logit_normal --logit_mean 0.4 --logit_std 0.8", "objective.logit_std", 0.8),
    ("--weighting_scheme mode --mode_scale 0.9", "objective.mode_scale", 0.9),
    ("--weighting_scheme sigma_sqrt", "objective.weighting", "sigma_sqrt"),
    ("--weighting_scheme cosmap --model_prediction_type raw", "objective.weighting", None),
    ("--loss_type smooth_l1 --huber_schedule constant --huber_c 0.2 --huber_scale 0.5", "objective.huber_c", 0.1),
    ("--loss_type huber --huber_schedule exponential --huber_c 0.2", "objective.huber_schedule", "exponential"),
    ("--huber_c 0.2", "objective.huber_c", None),
    ("--apply_t5_attn_mask", "objective.text_mask", True),
    ("--t5xxl_max_token_length 256", "model.text_tokens", 256),
    ("--t5xxl_max_token_length 512", "model.text_tokens", None),
    # the adapter
    ("", "adapter.rank", 4),
    ("", "adapter.alpha", 1.0),
    ("--network_dim 32 --network_alpha 0", "adapter.alpha", None),
    ("--network_dim 32", "adapter.alpha", 1.0),
    ("", "adapter.targets", "ai-toolkit"),
    ("", "adapter.text_encoder", True),
    ("--network_train_unet_only", "adapter.text_encoder", None),
    ("--text_encoder_lr 0", "adapter.text_encoder", None),
    ("--learning_rate 1e-4 --text_encoder_lr 5e-5", "optim.text_encoder_lr", 5e-5),
    ("--learning_rate 1e-4 --text_encoder_lr 1e-4", "optim.text_encoder_lr", None),
    ("--network_args train_blocks=double", "adapter.blocks", ["transformer_blocks"]),
    ('--network_args "train_single_block_indices=7,20-22"', "adapter.blocks", ["transformer_blocks", "single_transformer_blocks.7,20-22"]),
    ("--network_weights first.safetensors --network_dim 8", "adapter.start_from", "first.safetensors"),
    ("--network_dropout 0.1", "adapter.dropout", 0.1),
    # rates, schedule, clipping
    ("", "optim.lr", 2e-6),
    ("--learning_rate 1e-4 --unet_lr 3e-4", "optim.lr", 3e-4),
    ("", "optim.clip_norm", 1.0),
    ("--max_grad_norm 0", "optim.clip_norm", "off"),
    ("--lr_scheduler cosine_with_restarts --lr_scheduler_num_cycles 3", "optim.cycles", 3),
    ("--lr_scheduler cosine_with_restarts", "optim.schedule", "cosine"),
    ("--learning_rate 1e-4 --lr_scheduler polynomial --lr_scheduler_power 0.5", "optim.power", 0.5),
    ("--learning_rate 1e-4 --lr_scheduler polynomial", "optim.end_lr", 1e-7),
    ("--learning_rate 2e-4 --lr_scheduler cosine_with_min_lr --lr_scheduler_min_lr_ratio 0.05", "optim.end_lr", 1e-5),
    ("--lr_scheduler constant_with_warmup --lr_warmup_steps 100", "optim.warmup_steps", 100),
    ("--lr_scheduler cosine --lr_warmup_steps 0.05 --max_train_steps 1010", "optim.warmup_steps", 50),
    ("--lr_scheduler cosine --lr_warmup_steps 5% --max_train_epochs 10", "optim.warmup_steps", None),
    # optimizers and their arguments
    ("--optimizer_type AdamW8bit", "optim.name", "adamw_8bit"),
    ("--use_8bit_adam", "optim.name", "adamw_8bit"),
    ("--optimizer_type Lion", "optim.weight_decay", 0.0),
    ("--optimizer_type AdamW --optimizer_args weight_decay=0.1", "optim.weight_decay", 0.1),
    ("--optimizer_type AdamW", "optim.weight_decay", None),  # 0.01 in both
    ("--optimizer_type SGDNesterov --learning_rate 0.01", "optim.options", {"momentum": 0.9, "nesterov": True}),
    ("--optimizer_type Prodigy --learning_rate 1", "optim.weight_decay", 0.0),
    ("--optimizer_type Prodigy --learning_rate 1e-4", "optim.lr", None),
    ('--optimizer_type Prodigy --learning_rate 1 --optimizer_args "betas=0.9,0.99"', "optim.betas", [0.9, 0.99]),
    ("--optimizer_type prodigyplus.ProdigyPlusScheduleFree --learning_rate 1", "optim.name", "prodigy"),
    ("--optimizer_type AdamWScheduleFree --lr_scheduler cosine --lr_warmup_steps 10", "optim.schedule", None),
    ("--optimizer_type DAdaptAdam --learning_rate 1", "optim.name", "pytorch_optimizer.DAdaptAdam"),
    # length
    ("", "train.steps", 1600),
    ("--max_train_steps 300 --max_train_epochs 5", "train.epochs", 5),
    ("--max_train_steps 300 --max_train_epochs 5", "train.steps", None),
    ("--gradient_accumulation_steps 4", "train.accumulation", 4),
    ("--train_batch_size 3", "train.batch_size", 3),
    # memory
    ("", "memory.dtype", "fp32"),
    ("--mixed_precision bf16", "memory.dtype", "bf16"),
    ("--fp8_base_unet --mixed_precision bf16", "memory.quantize", "fp8"),
    ("--blocks_to_swap 20", "memory.swap_blocks", 30),
    ("--blocks_to_swap 35", "memory.swap_blocks", 53),
    ("--double_blocks_to_swap 4 --single_blocks_to_swap 6", "memory.swap_blocks", 11),  # 7: 3 and 8
    ("--gradient_checkpointing --cpu_offload_checkpointing", "memory.offload_activations", True),
    # what is kept
    ("--save_every_n_steps 100 --save_last_n_steps 250", "output.keep_last", 3),
    ("--save_every_n_epochs 2 --save_last_n_epochs 4", "output.keep_last", 4),
    ("--save_n_epoch_ratio 5 --max_train_epochs 22", "output.save_every", "4 epochs"),
    ("--save_precision float", "output.precision", "fp32"),
    ("", "output.formats", ["diffusers", "kohya"]),
    ("--output_name a/b.safetensors", "output.name", "a-b"),
    ("--logging_dir logs", "output.trackers", ["tensorboard"]),
    # pictures of the command line
    ("--enable_bucket", "data.0.geometry", "kohya"),
    ("", "data.0.aspect", "square"),
    ("--resolution 832,1216", "data.0.buckets", [[832, 1216]]),
    ("--enable_bucket --resolution 832,1216", "data.0.resolution", "832x1216"),
    ("--enable_bucket --min_bucket_reso 300 --bucket_reso_steps 64", "data.0.shortest_side", 256),
    ("--enable_bucket --max_bucket_reso 1500 --bucket_reso_steps 32", "data.0.longest_side", 1504),
    ("--enable_bucket --bucket_no_upscale --max_bucket_reso 1500", "data.0.longest_side", None),
    ("--enable_bucket --bucket_no_upscale", "data.0.upscale", False),
    ("--dataset_repeats 4", "data.0.repeats", 4),
    ("--color_aug", "data.0.color_jitter", 0.05),
    ("--random_crop", "data.0.crop", "random"),
    ("--alpha_mask", "objective.mask_mean", "picture"),
    ("--caption_extention .cap", "data.0.caption_endings", [".cap"]),
    ("--caption_dropout_rate 0.1 --caption_dropout_every_n_epochs 4", "data.0.caption_dropout", 0.325),
]


@pytest.mark.parametrize(("flags", "key", "value"), SETTINGS, ids=[f"{flags or 'nothing'} {key}" for flags, key, _ in SETTINGS])
def test_an_option(tmp_path: Path, flags: str, key: str, value: object) -> None:
    assert find(run(tmp_path, flags), key) == value


def test_nothing_of_the_scripts_with_our_own_defaults(tmp_path: Path) -> None:
    (tmp_path / "go.sh").write_text(f"python {LORA}")
    imported = import_run(tmp_path / "go.sh", weber_defaults=True)
    assert imported.tree == {
        "model": {"path": "m/flux1-dev.safetensors"},
        "data": [{"path": "pictures", "resolution": 512.0}],
        "adapter": {"targets": "ai-toolkit"},
    }


def test_a_set_asks_the_subset_then_its_dataset_then_general_then_the_command(tmp_path: Path) -> None:
    dataset = """
    [general]
    caption_extension = ".a"
    num_repeats = 2
    [[datasets]]
    num_repeats = 3
    resolution = 768
    [[datasets.subsets]]
    image_dir = "one"
    num_repeats = 4
    [[datasets.subsets]]
    image_dir = "two"
    [[datasets]]
    [[datasets.subsets]]
    image_dir = "three"
    """
    imported = run(tmp_path, "--flip_aug --dataset_repeats 9", f"flux_train.py {MODEL} --enable_bucket", dataset)
    sets = imported.tree["data"]
    assert [one["repeats"] for one in sets] == [4, 3, 2]
    assert [one["resolution"] for one in sets] == [768.0, 768.0, 512.0]
    assert [one["caption_endings"] for one in sets] == [[".a"]] * 3
    assert [one["mirror"] for one in sets] == [True] * 3
    assert tell(imported, "--dataset_repeats") == ("no effect", "each set says it itself")
    assert tell(imported, "--train_data_dir") == ("no effect", "dataset_config counts")


def test_a_folder_twice_and_a_set_without_repeats_are_left_out_as_there(tmp_path: Path) -> None:
    dataset = """
    [[datasets]]
    resolution = 512
    subsets = [{image_dir = "one"}, {image_dir = "one"}, {image_dir = "two", num_repeats = 0}]
    """
    imported = run(tmp_path, "", dataset=dataset)
    assert [str(one["path"]) for one in imported.tree["data"]] == ["one"]
    assert "twice" in tell(imported, "datasets.0.subsets.1.image_dir")[1]
    assert "below 1" in tell(imported, "datasets.0.subsets.2.image_dir")[1]


def test_folders_named_for_their_repeats(tmp_path: Path) -> None:
    for name in ("10_red_cat", "3_", "notes", "0_no"):
        (tmp_path / "img" / name).mkdir(parents=True)
    (tmp_path / "reg" / "1_cat").mkdir(parents=True)
    program = f"flux_train_network.py --pretrained_model_name_or_path m --train_data_dir {tmp_path}/img --reg_data_dir {tmp_path}/reg"
    imported = run(tmp_path, "--resolution 512 --prior_loss_weight 0.5", program)
    first, second, third = imported.tree["data"]
    assert (str(first["path"]), first["repeats"], first["caption_fallback"]) == (f"{tmp_path}/img/10_red_cat", 10, "red_cat")
    assert (str(second["path"]), second["repeats"], second["captions"]) == (f"{tmp_path}/img/3_", 3, ["textfile", "none"])
    assert (str(third["path"]), third["repeats"], third["loss_weight"]) == (f"{tmp_path}/reg/1_cat", 1, 0.5)


def test_a_folder_of_folders_beside_the_script(tmp_path: Path) -> None:
    (tmp_path / "pictures" / "2_cat").mkdir(parents=True)
    [one] = run(tmp_path, "").tree["data"]
    assert (str(one["path"]), one["repeats"]) == (f"{tmp_path}/pictures/2_cat", 2)


def test_metadata_with_tags_alone(tmp_path: Path) -> None:
    (tmp_path / "meta.json").write_text('{"/pictures/1.png": {"tags": "cat, red"}, "/pictures/2.png": {"tags": "dog"}}')
    imported = run(tmp_path, "--resolution 512 --enable_bucket", f"flux_train.py {MODEL} --in_json {tmp_path}/meta.json")
    [one] = imported.tree["data"]
    assert (str(one["metadata"]), one["caption_column"], str(one["path"])) == (f"{tmp_path}/meta.json", "tags", "pictures")
    assert "captions" not in one and "caption_endings" not in one


CAPTION_OPTIONS = 'caption_prefix = "photo"\nenable_wildcard = true\nsecondary_separator = ";;;"\nkeep_tokens = 2\n'


def test_captions_are_read_as_they_stand_where_their_encodings_are_kept(tmp_path: Path) -> None:
    dataset = f'[[datasets]]\nresolution = 512\n{CAPTION_OPTIONS}\n[[datasets.subsets]]\nimage_dir = "one"\n'
    imported = run(tmp_path, "--cache_text_encoder_outputs", dataset=dataset)
    assert "caption_steps" not in imported.tree["data"][0]
    assert imported.tree["data"][0]["caption_per"] == "file"
    for key in ("caption_prefix", "enable_wildcard", "secondary_separator"):
        kind, line = tell(imported, f"datasets.0.{key}")
        assert kind == "no effect" and "as it stands" in line
    assert any("caption_prefix, enable_wildcard, secondary_separator did nothing for T5" in one for one in imported.faults)


def test_captions_go_through_the_steps_in_the_order_of_the_scripts(tmp_path: Path) -> None:
    dataset = f"""
    [[datasets]]
    resolution = 512
    {CAPTION_OPTIONS}
    shuffle_caption = true
    caption_tag_dropout_rate = 0.2
    caption_suffix = "end"
    caption_separator = "."
    [[datasets.subsets]]
    image_dir = "one"
    """.replace("\n    ", "\n")
    one = run(tmp_path, "", dataset=dataset).tree["data"][0]
    assert one["caption_steps"] == [
        {"kind": "prefix", "text": "photo"},
        {"kind": "suffix", "text": "end"},
        {"kind": "wildcards"},
        {"kind": "shuffle", "keep": 2, "separator": "."},
        {"kind": "drop", "rate": 0.2, "keep": 2, "separator": "."},
        {"kind": "replace", "find": ";;;", "replace_with": "."},
    ]
    assert "caption_per" not in one  # one of the lines is drawn, as wildcards have it there


LYCORIS = f"flux_train_network.py {MODEL} --network_module lycoris.kohya --network_dim 16 --network_alpha 8"


def test_lycoris_with_the_rank_under_a_root(tmp_path: Path) -> None:
    imported = run(tmp_path, "--network_args algo=locon rs_lora=True dora_wd=True module_dropout=0.1", LYCORIS)
    assert imported.tree["adapter"] == {
        "kind": "lycoris",
        "targets": "ai-toolkit",
        "lycoris": {"algo": "locon", "linear_dim": 16, "linear_alpha": 32.0, "dora_wd": True, "module_dropout": 0.1},
    }
    assert tell(imported, "network_train_unet_only")[0] == "refused"  # CLIP, which is trained there if nothing is said


def test_whole_matrices_of_lycoris(tmp_path: Path) -> None:
    imported = run(tmp_path, "--network_args algo=full factor=4 --network_train_unet_only", LYCORIS)
    assert imported.tree["adapter"]["lycoris"] == {"algo": "full"}
    assert tell(imported, "--network_args factor") == ("no effect", "full has no such setting")


def test_what_cannot_act_together_is_left_out_in_words(tmp_path: Path) -> None:
    imported = run(tmp_path, "--network_args algo=lokr dora_wd=True dropout=0.1 full_matrix=True decompose_both=True", LYCORIS)
    assert imported.tree["adapter"]["lycoris"] == {
        "algo": "lokr", "linear_dim": 16, "linear_alpha": 8.0, "dora_wd": True, "full_matrix": True
    }
    assert tell(imported, "--network_args dropout")[0] == "refused"
    imported = run(tmp_path, "--lr_scheduler cosine_with_restarts --lr_scheduler_num_cycles 4 --lr_scheduler_type CosineAnnealingLR")
    assert (find(imported, "optim.schedule"), find(imported, "optim.cycles")) == ("cosine", None)
    imported = run(tmp_path, "--max_grad_norm 1 --fused_backward_pass --optimizer_type adafactor", FULL)
    assert (find(imported, "optim.fused_backward"), find(imported, "optim.clip_norm")) == (True, None)
    imported = run(tmp_path, "--fused_backward_pass --optimizer_type adafactor --gradient_accumulation_steps 2", FULL)
    assert (find(imported, "optim.fused_backward"), find(imported, "train.accumulation")) == (None, 2)


def test_turns_of_blocks(tmp_path: Path) -> None:
    program = f"flux_train_network.py {MODEL} --network_module networks.oft_flux --network_dim 64 --network_alpha 1e-3"
    imported = run(tmp_path, "--network_train_unet_only", program)
    assert imported.tree["adapter"]["lycoris"] == {"algo": "diag-oft", "linear_dim": 48, "constraint": 1e-3}
    assert imported.tree["adapter"]["targets"][0] == "transformer_blocks.*.attn.to_q"


def test_whole_models_and_optimizers_that_do_not_round(tmp_path: Path) -> None:
    imported = run(tmp_path, "--mixed_precision bf16 --optimizer_type AdamW", FULL)
    assert imported.tree["adapter"] == {"kind": "full", "precision": "fp32"}
    assert any("does not round stochastically" in one for one in imported.faults)
    imported = run(tmp_path, "--mixed_precision bf16 --optimizer_type AdamW8bit --blockwise_fused_optimizers --blocks_to_swap 8", FULL)
    assert imported.tree["adapter"] == {"kind": "full"}
    assert imported.tree["optim"]["fused_backward"] is True
    assert tell(imported, "max_grad_norm")[0] == "refused"
    assert imported.tree["memory"]["swap_blocks"] == 12


def test_adafactor_with_its_own_rate(tmp_path: Path) -> None:
    imported = run(tmp_path, "--optimizer_type adafactor --learning_rate 1e-3")
    assert imported.tree["optim"]["lr"] == 1e-3
    assert any("relative_step = true" in one for one in imported.faults)
    imported = run(tmp_path, "--optimizer_type adafactor --learning_rate 1e-3 --optimizer_args relative_step=False")
    assert any("scale_parameter = true" in one for one in imported.faults)


def test_schnell_has_no_guidance_and_no_assistant(tmp_path: Path) -> None:
    imported = run(tmp_path, "--guidance_scale 1", LORA.replace("flux1-dev", "flux1-schnell"))
    assert find(imported, "objective.guidance") is None
    assert find(imported, "model.assistant") == "off"


def test_a_doubled_flag_counts_the_last_time_and_the_beginning_of_a_name_is_enough(tmp_path: Path) -> None:
    imported = run(tmp_path, "--learning_rate 1e-3 --learning_rate 2e-4 --max_train_epoch 3")
    assert find(imported, "optim.lr") == 2e-4
    assert find(imported, "train.epochs") == 3


PROMPTS = """[prompt]
width = 640
scale = 4.0
[[prompt.subset]]
prompt = "a cat"
negative_prompt = "blurry"
[[prompt.subset]]
prompt = "a dog"
seed = 3
"""


def test_prompts_of_toml_and_json(tmp_path: Path) -> None:
    (tmp_path / "prompts.toml").write_text(PROMPTS)
    imported = run(tmp_path, "--sample_prompts prompts.toml --sample_every_n_epochs 2 --sample_every_n_steps 50")
    assert imported.tree["sampling"] == {
        "prompts": ["a cat", "a dog"], "width": 640, "height": 512, "steps": 20, "cfg": 4.0, "negative_prompt": "blurry", "seed": 3,
        "every": "2 epochs",
    }
    (tmp_path / "prompts.json").write_text('["a cat --w 512 --g 2.5 --n dull", {"prompt": "a dog", "width": 512}]')
    imported = run(tmp_path, "--sample_prompts prompts.json --sample_at_first")
    assert imported.tree["sampling"] == {"prompts": ["a cat", "a dog"], "width": 512, "height": 512, "steps": 20, "guidance": 2.5}
    assert tell(imported, "--n")[0] == "no effect"
    (tmp_path / "none.toml").write_text('sample_prompts = "prompts.json"\nsample_every_n_steps = 5\nsample_at_first = false\n')
    assert find(run(tmp_path, "--config_file none.toml"), "sampling.at_start") is False


def test_prompts_without_a_distance_are_never_painted(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a cat")
    imported = run(tmp_path, "--sample_prompts prompts.txt")
    assert "sampling" not in imported.tree
    assert tell(imported, "--sample_prompts")[0] == "no effect"


def test_faults_are_told_only_where_they_are(tmp_path: Path) -> None:
    flags = (
        "--network_dim 16 --network_alpha 16 --network_train_unet_only --learning_rate 1e-4 --timestep_sampling flux_shift"
        " --model_prediction_type raw --guidance_scale 1 --enable_bucket --max_bucket_reso 1024 --caption_extension .txt"
        " --mixed_precision bf16"
    )
    faults = run(tmp_path, flags).faults
    assert [one for one in faults if "not on this machine" not in one] == []
    faults = run(tmp_path, "--full_bf16 --mixed_precision bf16 --network_dim 16").faults
    for words in ("1 / 16 = 0.0625", "full_bf16", "wrong quantity", "guidance 3.5", "CLIP was trained too", ".caption files"):
        assert any(words in one for one in faults), words

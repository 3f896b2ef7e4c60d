"""What diffusers' scripts really do at some settings, without saying so."""

from __future__ import annotations

from collections.abc import Callable

from weber.config.importers.diffusers.optim import find_lr, name_optimizer
from weber.config.importers.diffusers.run import has_guidance, is_flux2, is_schnell
from weber.config.importers.draft import Keys

Fault = tuple[Callable[[Keys], bool], Callable[[Keys], str]]


def _say(text: str) -> Callable[[Keys], str]:
    return lambda keys: text


def _describe_scale(keys: Keys) -> str:
    rank, alpha = keys.read_float("rank") or 4, keys.read_float("lora_alpha") or 4
    return (
        f"--lora_alpha {alpha:g} with --rank {rank:g}: what the adapter says is multiplied by {alpha / rank:g}"
        + ("; alpha does not follow rank there" if "lora_alpha" not in keys else "")
        + f". With AdamW that is as if the learning rate were about {alpha / rank:g} times as high"
    )


def _is_bf16(keys: Keys) -> bool:
    return str(keys["mixed_precision"] or keys["launch_precision"]).lower() == "bf16"


def _is_batch(keys: Keys) -> bool:
    return (keys.read_int("train_batch_size") or 1) > 1


def _has_buckets(keys: Keys) -> bool:
    return bool(keys["family"] != "flux") and ("aspect_ratio_buckets" in keys or keys.read_bool("use_aspect_ratio_buckets"))


def _mixes_captions(keys: Keys) -> bool:
    """The scripts for FLUX.1 walk through a shuffled loader once to fill their caches, and once more to train."""
    if "caption_column" not in keys or is_flux2(keys) or keys["kind"] == "full":
        return False
    if keys["family"] == "kontext":
        return not keys.read_bool("train_text_encoder") or keys.read_bool("cache_latents")
    return keys.read_bool("cache_latents")


def _is_lora(keys: Keys) -> bool:
    return bool(keys["kind"] != "full")


def _describe_lr(keys: Keys) -> str:
    return f"--learning_rate {find_lr(keys):g} is a factor of prodigy's own rate there, so that next to nothing was learned"


FAULTS: tuple[Fault, ...] = (
    (lambda keys: _is_lora(keys) and keys.read_float("rank") != keys.read_float("lora_alpha"), _describe_scale),
    (
        lambda keys: _is_lora(keys) and _is_bf16(keys) and name_optimizer(keys) == "adamw",
        _say(
            "With bf16 the adapters themselves are in bf16: steps that are small beside a weight are rounded away. Here they are fp32"
        ),
    ),
    (
        lambda keys: keys["lr_scheduler"] == "constant" and "lr_warmup_steps" in keys and keys.read_int("lr_warmup_steps") != 0,
        lambda keys: f"--lr_scheduler constant has no warm-up, so that --lr_warmup_steps {keys['lr_warmup_steps']} did nothing",
    ),
    (
        lambda keys: not keys.read_bool("center_crop"),
        _say("Without --center_crop a window is drawn once for each picture and repeat at the start, and is the same in all epochs"),
    ),
    (
        lambda keys: keys.read_bool("random_flip"),
        _say("--random_flip is drawn once for each picture and repeat at the start: half of them are only ever seen mirrored"),
    ),
    (
        lambda keys: "instance_data_dir" in keys,
        _say("Of a folder every picture has the one --instance_prompt; caption files beside the pictures are not read"),
    ),
    (
        _has_buckets,
        _say("Until July 2026 (diffusers pull request 14158) pictures were stretched to their bucket, and class images were made squares"),
    ),
    (
        lambda keys: "aspect_ratio_buckets" in keys and not keys.read_bool("use_aspect_ratio_buckets"),
        _say("Since July 2026 --aspect_ratio_buckets is an error there without --use_aspect_ratio_buckets"),
    ),
    (
        lambda keys: keys["family"] != "flux" and _is_batch(keys),
        lambda keys: (
            f"Pictures that fill no batch of {keys['train_batch_size']} are left out of the epoch; a bucket with fewer is never learned"
        ),
    ),
    (
        lambda keys: keys["family"] == "klein" and not keys["is_edit"] and "text_encoder_out_layers" not in keys,
        _say(
            "The script reads layers 10, 20 and 30 of the text encoder, but the model was made with 9, 18 and 27 (diffusers issue 13445):"
            " it was told other things in training than in its pictures. weber reads 9, 18 and 27"
        ),
    ),
    (
        lambda keys: keys["weighting_scheme"] == "logit_normal" and bool(keys.read_float("logit_mean")),
        lambda keys: (
            f"--logit_mean {keys['logit_mean']} draws more {'low' if (keys.read_float('logit_mean') or 0) > 0 else 'high'} noise there:"
            " the scripts count noise levels from the noisy end"
        ),
    ),
    (
        lambda keys: keys["weighting_scheme"] in ("none", "sigma_sqrt", "cosmap") and not is_schnell(keys),
        _say("Noise levels are drawn evenly and without the shift with which the model paints, whatever the size of the pictures"),
    ),
    (
        lambda keys: has_guidance(keys) and keys.read_float("guidance_scale") not in (None, 1.0),
        lambda keys: f"The model is told guidance {keys['guidance_scale']} in each step but learns the plain pictures; 1 is what fits them",
    ),
    (lambda keys: keys.read_float("max_grad_norm") == 0, _say("--max_grad_norm 0 makes each gradient 0 there: nothing was learned")),
    (lambda keys: name_optimizer(keys) == "prodigy" and find_lr(keys) < 0.01, _describe_lr),
    (
        lambda keys: str(keys["optimizer"]).lower() not in ("adamw", "prodigy"),
        lambda keys: f"The script knows no optimizer {keys['optimizer']}: it says so in a line of its log, and takes AdamW",
    ),
    (
        lambda keys: keys.read_bool("do_fp8_training"),
        _say("--do_fp8_training computes in fp8 there but keeps all weights in 16 bits; here they lie in 8 bits too"),
    ),
    (
        lambda keys: keys.read_bool("remote_text_encoder"),
        _say("--remote_text_encoder sends every caption to a server of Hugging Face, and unpickles what comes back"),
    ),
    (
        _mixes_captions,
        _say(
            "What is cached is found by the number of the step, but the order is drawn anew: most pictures were learned with the caption of"
            " another (diffusers issue 14430 says the same of another script)"
        ),
    ),
    (
        lambda keys: is_flux2(keys) and "caption_column" in keys,
        _say("Until March 2026 (diffusers pull request 13353) most pictures were learned with the caption of another"),
    ),
    (
        lambda keys: bool(keys["is_edit"]) and keys["family"] == "flux2" and "validation_prompt" in keys,
        _say("--validation_prompt stops that script with an AttributeError (it reads args.validation_image_path, which there is not)"),
    ),
    (
        lambda keys: keys["family"] == "kontext" and "cond_image_column" in keys and "validation_prompt" in keys,
        _say("--validation_prompt with --cond_image_column stops that script at an assertion, with or without --validation_image"),
    ),
    (
        lambda keys: bool(keys["is_edit"]) and (keys.read_bool("cache_latents") or "caption_column" in keys),
        _say("Batches are put together once and stay the same in all epochs, since what is cached is found by the number of the step"),
    ),
    (
        lambda keys: bool(keys["is_edit"]) and (keys.read_int("num_processes") or 1) > 1,
        lambda keys: f"With {keys['num_processes']} processes each sees only the first part of the cached batches, never the others",
    ),
    (lambda keys: "lora_blocks" in keys, _say("The scripts have no --lora_blocks, only their README has: they stop at it")),
    (
        lambda keys: "resume_from_checkpoint" in keys,
        _say("A resume there begins its epoch anew: the order of the pictures is not restored"),
    ),
    (
        lambda keys: keys["family"] == "flux" and "caption_column" in keys,
        _say("Captions are encoded anew in every step there; here once"),
    ),
)  # fmt: skip


def list_faults(keys: Keys) -> list[str]:
    """Those that a command triggers."""
    return [say(keys) for is_there, say in FAULTS if is_there(keys)]

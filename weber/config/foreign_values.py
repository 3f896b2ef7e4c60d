"""Values of other trainers, as weber writes them; and those that weber does not have, with the reason.

A value is in lower case with `_` for `-` and blanks, `true` or `false`, or a number; `*` stands for any text. What is meant is TOML; behind
it, after `; `, stands what else is to be set. The tables are those of a setting, or of a name in `foreign_names.py` that has values of its
own: those say the whole line.
"""

from __future__ import annotations

_LOAD = 'pictures and captions of a table: set data.0.metadata or data.0.hub too'
_DTYPES = {
    "bf16_*|bfloat*|bfloat_16|torch.bfloat16": '"bf16"',
    "fp32_*|float|float32|float_32|full|no|none|tf32|tfloat_32|torch.float32": '"fp32"',
}
_BITS = {
    "no|no_change|false|bf16|fp16|fp32|float_16|float_32|bfloat_16|off|default|16": '"none"',
    "int8_*|uint8*|qint8*|8bit|8_bit|8|int_8|int8dq*|int8wo*|bnb_int8|q8_0|bitsandbytes": '"int8"',
    "int_w8a8*|w8a8|convrot8": '"int8"; int8_matmul = true computes in 8 bits too',
    "fp8_*|float8*|qfloat8*|float_8*|fp8wo*|fp8uz*|e4m3*|float_w8a8*|true|scaled_fp8": '"fp8"',
    "nf4_*|nfloat_4|nfloat4|4bit|4_bit|4|bnb_4bit|qlora|load_in_4bit": '"nf4"',
    "int4_*|uint4*|qint4*|int_4": '"int4"',
    "int2_*|uint2*|qint2*|2bit|2_bit|2": '"int2"',
}
_NO_BITS = {
    "gguf*|q4_*|q5_*|q6_*|q3_*": "weights are packed by weber itself, from a model in 16 bits; the nearest are int8 and int4",
    "fp4*|mxfp*|nvfp4|convrot*|orbit*|*uint3*|*int3*|*int5*|*uint5*|*int6*|*uint6*|*uint7*|*int16*|*uint16*|int1*": (
        "weber has no such format; the nearest are fp8, nf4 and int4"
    ),
}
_PLACES = {"accelerator|gpu|cuda|cuda:*|pipeline|gpu_*": '"device"'}
_EVERY = {"epoch|epochs|each_epoch|every_epoch|1_epoch|1epoch": '"1 epochs"'}
_HOST = {"accelerator|gpu|cuda|cuda:*|none|false": '"device"', "cpu|ram|true|host_memory": '"host"'}

_FLASH = "flash_attention*|flash_attn|flash_attn_2|flash2|flash_2|fa2|flashattn*|_native_flash|native_flash|flash_varlen*|flash_hub"
_ATTENTION = {
    "flash_attention_3*|flash_attn_3*|flash_3*|fa3|_flash_3*|_flash_varlen_3*": '"flash3"',
    _FLASH: '"flash"',
    "_native_cudnn|native_cudnn|cudnn_*": '"cudnn"',
    "xformers|mem_eff*|memory_efficient*|_native_efficient|native_efficient|efficient_*": '"efficient"',
}
_SAGE = 'sampling.attention = "sage", for pictures alone: it has no backward pass'
_PLAIN = "sdpa|sdp|torch|pytorch|native|default|diffusers|true|none|false"

FOREIGN_VALUES: dict[str, dict[str, str]] = {
    "data.0.resolution_type": {
        "pixel|pixels|px|edge|short_edge|shortest_edge|shortest_side|smaller_edge": '"shorter_edge"',
        "pixel_area|square": '"area"',
        "megapixel|mp|mpx": '"megapixels"',
    },
    "data.0.crop": {
        "true|center_crop|centre|centre_crop|middle|cover|fill": '"center"',
        "random_crop|enable_crop_jitter|jitter": '"random"',
        "corner_crop|top_left|topleft": '"corner"',
        "face_*|faces": '"face"',
        "false|none|no|no_crop|squeeze|stretch|resize": '"off"; it squeezes pictures into their bucket, so that nothing is cut',
    },
    "data.0.aspect": {
        "preserve|true|buckets|bucketing|auto|original|keep|enable_bucket": '"bucket"',
        "false|1|1.0|1:1|crop|square_crop": '"square"',
    },
    "data.0.captions": {
        "caption|.caption|txt|.txt|text|file|files|text_file|textfiles|sample|sidecar|caption_file|true": '"textfile"',
        "instanceprompt|instance_prompt|trigger|trigger_word|class|prompt": '"instance"; instance_prompt is the caption',
        "concept": '"instance"; instance_prompt is the text of that file',
        ".json|json_file|json_files": '"json"',
        "parquet|csv|jsonl|.jsonl|huggingface|hub|dataset|table|webshart|column|.csv": f'"metadata"; {_LOAD}',
        "file_name|filenames|stem": '"filename"',
        "folder|folder_name|directory|dir": '"foldername"',
        "false|empty|unconditional|no_caption|no_captions": '"none"',
    },
    "data.0.caption_steps.0.kind": {
        "trigger_word|trigger_words|triggers|activation": '"trigger"',
        "shuffle_*|tag_shuffle|tag_shuffling|permute": '"shuffle"',
        "tag_dropout|dropout|caption_tag_dropout*|token_dropout*|drop_tags": '"drop"',
        "wildcard|dynamic_prompts|dynamic_prompt|enable_wildcard": '"wildcards"',
        "regexp|re|regular_expression": '"regex"',
        "dedup|dedupe|unique|duplicates|remove_duplicates": '"deduplicate"',
        "remove|remove_tags|blacklist|exclude|filter_tags": '"filter"',
        "prepend|caption_prefix|before": '"prefix"',
        "append|caption_suffix|after": '"suffix"',
        "truncate|max_tags|cut": '"limit"',
        "substitute|sub|replacement|replacements": '"replace"',
    },
    "data.0.caption_steps.0.place": {"front|first|before|prefix|beginning|left": '"start"', "back|last|behind|suffix|after|right": '"end"'},
    "data.0.caption_steps.0.unit": {"tag": '"tags"', "word": '"words"', "token": '"tokens"'},
    "data.0.conditioning_type": {
        "reference|strict|edit|control_image|image|img|source": '"reference_strict"',
        "loose": '"reference_loose"',
    },
    "data.0.repeats": {"0": "1; other trainers count further passes there"},
    "adapter.kind": {
        "standard|peft|networks.lora*|adapter|dreambooth_lora|low_rank": '"lora"',
        "lycoris.*|lycoris_*": '"lycoris"; with a table [adapter.lycoris]',
        "networks.oft*|oft*": '"lycoris"; with algo = "diag-oft" under [adapter.lycoris]',
        "networks.loha*": '"lycoris"; with algo = "loha" under [adapter.lycoris]',
        "networks.lokr*": '"lycoris"; with algo = "lokr" under [adapter.lycoris]',
        "loraplus|lora_plus|lora+": '"lora"; with a rule under [[adapter.rules]] that has lr',
        "rslora": '"lora"; with adapter.rslora = true',
        "qlora": '"lora"; with memory.quantize = "nf4"',
        "finetune|fine_tune|fine_tuning|finetuning|full_*|sft|native|transformer|model|none": '"full"',
    },
    "adapter.init": {
        "true|kaiming|kaiming_uniform|kaiming_normal|zeros|lora|normal_b_zero|zero|none": '"default"',
        "pissa_*": '"pissa"',
        "normal": '"gaussian"',
        "ortho|orthonormal": '"orthogonal"',
    },
    "adapter.lycoris.algo": {
        "oft|oft_2|oft_v2|diag": '"diag-oft"',
        "lierla|c3lier|lora_c3lier|lora_lierla": '"locon"',
        "kronecker": '"lokr"',
        "hadamard": '"loha"',
        "native": '"full"',
    },
    "adapter.targets": {
        "attention|attn|attn_only|attention_only|attn_layers": "all",
        "attn_mlp|attention_mlp|all_linear|linear|full|all_layers|all_linears|transformer": "all+ffs",
        "default": "blocks",
    },
    "adapter.precision": _DTYPES,
    "memory.dtype": {**_DTYPES, "mixed|amp|mixed_precision|auto_detect|default|detect": '"auto"'},
    "memory.fit": {"true|max|all|gpu|on": '"auto"'},
    "memory.quantize": _BITS,
    "memory.quantize_text_encoder": _BITS,
    "memory.quantize_text_encoder_2": _BITS,
    "memory.quantize_on": {**_PLACES, "host|ram": '"cpu"'},
    "memory.attention": {**_ATTENTION, _PLAIN: '"auto"'},
    "memory.gradient_checkpointing": {
        "true|on|1|full|yes|block|blocks|every|torch|torch_ffn|enable|enabled": '"all"',
        "cpu_offloaded|offload|offloaded|unsloth|unsloth_ffn|cpu": '"all"; with memory.offload_activations = true',
        "selective|sac|smart|partial": '"lean"',
        "false|off|0|no|never|disable|disabled": '"none"',
    },
    "memory.swap_blocks": {"max|maximum|full|true": '"all"', "none|off|false": "0"},
    "memory.swap_to": {"cpu|ram|memory": '"host"', "nvme|ssd|file": '"disk"'},
    "memory.modulation": {"cpu|ram|offload": '"host"', "gpu|cuda|device|none|false": '"model"'},
    "objective.timesteps": {
        "sigma": '"uniform"; with objective.shift = 3.0, or what discrete_flow_shift says',
        "linear|random|none|default|flat": '"uniform"',
        "*_shift|dynamic_shift|resolution_shift": '"token_shift"; ai-toolkit\'s is "uniform" with objective.shift = "tokens"',
        "shift_scale|discrete_flow_shift|flow_shift|shifted": '"shift"; with objective.shift',
        "flowmatch|flow_match|flow_matching|normal|logistic": '"sigmoid"',
        "lognorm|logitnormal|logit_norm|lognormal": '"logit_normal"',
        "heavy_tail": '"mode"; with objective.mode_scale = what noising_weight says',
        "cos_map": '"cosmap"',
        "cubic_spline|custom": '"cubic"; with objective.cubic_weights',
        "fixed_list|custom_timesteps": '"list"; with objective.timestep_list',
    },
    "objective.timestep_order": {"fixed_list|shuffle": '"random"', "round_robin|roundrobin|sequential|in_order": '"cycle"'},
    "objective.shift": {"true|auto|dynamic|token|*_shift|resolution": '"tokens"'},
    "objective.loss": {
        "mse|mse_loss|mseloss|l2_norm|l2_loss|mean_squared_error|squared": '"l2"',
        "mae|mae_loss|maeloss|l1_norm|l1_loss|absolute|mean_absolute_error": '"l1"',
        "smooth_l1_loss|smoothl1": '"smooth_l1"',
        "huber_scheduled": '"huber"; with objective.huber_schedule = "exponential"',
        "pseudo_huber|pseudohuber|charbonnier|huber_loss": '"huber"',
    },
    "objective.huber_schedule": {"exp": '"exponential"', "none|fixed": '"constant"'},
    "objective.weighting": {
        "uniform|constant|false|no|off|unweighted|flow|flow_matching|default": '"none"',
        "cos_map": '"cosmap"',
        "sigma_squared|sigma_sqr": '"sigma_sqrt"',
        "logit_normal|mode": '"none"; it says how noise levels are drawn: objective.timesteps',
    },
    "objective.mask_mean": {"true|area|masked|normalize|normalized": '"mask"', "false|all|whole|image|full": '"picture"'},
    "objective.rollout.strategy": {"biased_early": '"early"', "biased_late": '"late"'},
    "objective.reference_timestep": {"same|picture": '"shared"', "0|clean|0.0": '"zero"'},
    "optim.clip_norm": {"0|0.0|none|false|no|never|inf": '"off"'},
    "optim.schedule": {
        "constant_with_warmup": '"constant"; with optim.warmup_steps',
        "cosine_with_min_lr|cosine_warmup_with_min_lr|cosine_annealing_lr|cosineannealinglr": '"cosine"; with optim.end_lr',
        "cosine_annealing|cosine_with_warmup": '"cosine"',
        "cosine_with_hard_restarts|cosine_restarts|cosineannealingwarmrestarts|cosine_annealing_*": '"cosine_with_restarts"',
        "warmup|warm_up|warmup_constant": '"constant"; with optim.warmup_steps',
        "linear_with_warmup|linearlr|linear_decay": '"linear"',
        "polynomial_*|poly": '"polynomial"',
        "constantlr|none|off|false|fixed|flat|const": '"constant"',
        "adafactor*": '"constant"; optim.name = "adafactor" takes its rate from optim.lr',
    },
    "optim.state_on": _HOST,
    "optim.ema_on": {**_PLACES, "host|ram": '"cpu"'},
    "output.save_every": _EVERY,
    "output.keep_every": _EVERY,
    "sampling.every": _EVERY,
    "output.keep_last": {"0|-1|none|false|inf|unlimited|never": '"all"'},
    "output.precision": {
        "bfloat*|bf16_*|torch.bfloat16": '"bf16"',
        "float|float32|float_32|fp32_*|full|no|none|torch.float32": '"fp32"',
        "half|float16|float_16|fp16_*|torch.float16": '"fp16"',
    },
    "sampling.attention": {
        **_ATTENTION,
        "sage_*|sageattn*|sageattention*|inference": '"sage"',
        f"{_PLAIN}|auto": '"same"',
    },
    "sampling.weights": {"ema_only|mean|averaged": '"ema"', "model|raw|lora|adapter_only|none|non_ema|no_ema|last|latest": '"trained"'},
    "output.formats": {
        "safetensors|diffusers_format|peft|diffusers_lora|diffusers_safetensors|lora|pytorch_lora_weights|hf": '"diffusers"',
        "comfy|comfy_lora|comfyui_lora": '"comfyui"',
        "kohya_lora|kohya_ss|sd_scripts|sdscripts|musubi|musubi_tuner|legacy_safetensors|legacy_lora": '"kohya"',
        "a1111|webui|automatic1111|forge|civitai": '"kohya"',
        "merged|merge|fused|full|diffusers_merged|model": '"merged-diffusers"',
        "original*|bfl|merged_original|single_file|comfy_transformer|checkpoint": '"merged-bfl"',
    },
    # names with values of their own
    "aspect_ratio_bucketing": {"true": 'data.0.aspect = "bucket"', "false": 'data.0.aspect = "square"'},
    "bucket_no_upscale": {"true": "data.0.upscale = false, the default", "false": "data.0.upscale = true"},
    "caption_extension|caption_ext|caption_extention": {
        ".txt|txt|.caption|caption": 'data.0.captions = "textfile", which reads NAME.txt and NAME.caption beside NAME.png',
        ".json|json": 'data.0.captions = "json", which reads NAME.json beside NAME.png',
        ".jsonl|.csv": 'data.0.captions = "metadata", with data.0.metadata',
    },
    "center_crop": {"true": 'data.0.crop = "center"', "false": 'data.0.crop = "random"'},
    "disable_assistant_lora": {"true": 'model.assistant = "off"'},
    "disable_multiline_split": {"true": 'data.0.caption_per = "file"', "false": 'data.0.caption_per = "line"'},
    "fp8|fp8_base|fp8_base_unet|fp8_scaled": {"true": 'memory.quantize = "fp8"'},
    "do_fp8_training": {"true": 'memory.quantize = "fp8" and memory.fp8_matmul = true'},
    "dynamic_timestep_shifting|flow_schedule_auto_shift|schedule_auto_shift": {"true": 'objective.shift = "tokens"'},
    "ema_cpu_only": {"true": 'optim.ema_on = "cpu"'},
    "enable_bucket|enable_ar_bucket|use_bucket_sampler|use_aspect_ratio_buckets": {
        "true": 'data.0.aspect = "bucket"', "false": 'data.0.aspect = "square"',
    },
    "dynamo_backend": {"inductor": "memory.compile = true", "no|none|eager|false": "memory.compile = false, the default"},
    "fast_schedule": {"true": 'objective.timesteps = "fast"'},
    "flow_use_beta_schedule|use_beta_schedule": {"true": 'objective.timesteps = "beta"'},
    "flow_use_uniform_schedule|use_uniform_schedule": {"true": 'objective.timesteps = "uniform"'},
    "fp8_t5": {"true": 'memory.quantize_text_encoder_2 = "fp8"'},
    "full_bf16": {"true": 'memory.dtype = "bf16"; the weights that kind = "full" trains are then bf16 too'},
    "full_size_control_images": {
        "true": 'data.0.conditioning_type = "reference_loose"', "false": 'data.0.conditioning_type = "reference_strict"',
    },
    "gaussian_init_lora": {"true": 'adapter.init = "gaussian"'},
    "linear_timesteps|linear_timesteps2": {"true": 'objective.timesteps = "uniform"'},
    "load_in_4bit": {"true": 'memory.quantize = "nf4"'},
    "load_in_8bit": {"true": 'memory.quantize = "int8"'},
    "lora_target": {"ai_toolkit": 'adapter.targets = "all+ffs+modulation"'},
    "low_vram|lowram|auto_memory": {"true": 'memory.fit = "auto"'},
    "normalize_masked_area_loss": {"true": 'objective.mask_mean = "mask"', "false": 'objective.mask_mean = "picture"'},
    "only_instance_prompt": {"true": 'data.0.captions = "instance"'},
    "quantize_te": {"true": 'memory.quantize_text_encoder = "fp8"'},
    "quantize_activations|sdnq_use_quantized_matmul": {"true": 'memory.quantize = "int8" and memory.int8_matmul = true'},
    "flip_aug|hflip|flip_x|horizontal_flip|random_flip|enable_random_flip": {
        "true": "data.0.mirror = true", "false": "data.0.mirror = false, the default",
    },
    "color_aug": {"true": "data.0.color_jitter = 0.05", "false|none": "nothing: pictures keep their colors by default"},
    "random_crop|enable_crop_jitter": {"true": 'data.0.crop = "random"', "false": 'data.0.crop = "center"'},
    "report_to|log_with|tensorboard": {
        "tensorboard|all|true": 'output.trackers = ["tensorboard"]',
        "wandb": 'output.trackers = ["wandb"]',
        "trackio": 'output.trackers = ["trackio"]',
        "none|false|simpletuner": "output.trackers = [], the default: metrics.jsonl is always written",
    },
    "split_mode": {"true": "memory.swap_blocks = 18"},
    "square_crop": {"true": 'data.0.aspect = "square"', "false": 'data.0.aspect = "bucket"'},
    "use_8bit_adam": {"true": 'optim.name = "adamw_8bit"'},
    "use_8bit_ademamix": {"true": 'optim.name = "bnb_ademamix_8bit"'},
    "enable_xformers_memory_efficient_attention|mem_eff_attn|xformers": {"true": 'memory.attention = "efficient"'},
    "flash_attention|flash_attn|use_flash_attention": {"true": 'memory.attention = "flash"'},
    "sdp|sdpa": {"true": 'memory.attention = "auto"'},
    "sage_attn|sageattn|use_sage_attention": {"true": _SAGE},
    "attention_backend|attention_implementation|attention_mechanism|attn_implementation|attn_mode": {"sage*|_sage*": _SAGE},
    "sageattention_usage": {"training*": _SAGE},
    "use_adafactor": {"true": 'optim.name = "adafactor"'},
    "use_ema": {"true": "optim.ema_decay = 0.999"},
    "use_lion_optimizer": {"true": 'optim.name = "lion"'},
    "weighting_scheme": {
        "logit_normal": 'objective.timesteps = "logit_normal"',
        "mode": 'objective.timesteps = "mode"',
        "cosmap": 'objective.timesteps = "uniform" and objective.weighting = "cosmap"',
        "sigma_sqrt": 'objective.timesteps = "uniform" and objective.weighting = "sigma_sqrt"',
        "none|uniform": 'objective.timesteps = "uniform"',
    },
}
"""Setting or name -> {values, with | between them: what is meant}."""

_FALL = "weber has no such course: its rates go down once, from optim.lr to optim.end_lr"
_TABLE = "it needs a table of signal and noise, which these models do not have"

REFUSED_VALUES: dict[str, dict[str, str]] = {
    "data.0.crop": {
        "smart|subject|saliency|entropy": "weber does not look at what is in pictures; crop them before, or write \"center\"",
        "contain|fit|pad|letterbox": "weber adds no borders to pictures; aspect = \"bucket\" with \"center\" cuts the least",
        "top|bottom|left|right|upper": "a window is at the \"center\", at the upper left \"corner\" or \"random\"",
    },
    "data.0.aspect": {
        "interpolate*": "each picture has one shape; the nearest is \"bucket\"",
        "landscape|portrait|*:*": "each picture keeps a shape near its own with \"bucket\"; one shape for all is \"square\"",
    },
    "data.0.resolution_type": {
        "long*|width|height|max*": "weber measures area or the shorter edge; the nearest is \"area\", where shapes differ little",
    },
    "data.0.captions": {
        "blip*|wd14*|florence*|joycaption*|qwen*|auto": "weber writes no captions; write them with a captioner first",
    },
    "data.0.caption_steps.0.kind": {
        "dropout_rate|caption_dropout*|uncond*": "the whole caption is left out by data.0.caption_dropout; tags by \"drop\"",
        "case|lower|lowercase|upper|caps*": "weber changes no case of letters",
    },
    "data.0.conditioning_type": {
        "mask|segmentation": "it is a mask for the loss: set data.0.loss_masks to its folder",
        "ip_adapter|latent*": "weber trains no such inputs; a reference picture is \"reference_strict\"",
        "inpaint*|fill": "a model that repaints takes data.0.masks, and no conditioning",
        "control*|canny*|depth*|pose|line": "weber trains no ControlNets; a reference picture is \"reference_strict\"",
    },
    "data.0.resolution": {
        "*,*|*x*": "write one number, the edge of a square with as many pixels, or \"832x1216\"; a list is the set at several sizes",
    },
    "adapter.kind": {
        "dreambooth*": 'that is a way to write captions: keep kind = "lora", and set data.0.captions = "instance"',
        "embedding|textual_inversion|ti|embeddings": "weber trains no embeddings of new words",
        "lora_fa|lorafa|vera|adalora|lorm|singlora|tlora|fine_tune_vae|controlnet|slider|concept_slider|ip_adapter": (
            'weber has no such adapter; the nearest is "lora"'
        ),
        "ia3|t_lora|norms|norm|sliders|hypernetwork": 'weber has no such adapter; the nearest is "lora"',
    },
    "adapter.init": {
        "false": "an adapter that starts with noise would spoil the model; remove the line",
        "ones|uniform|corda|lora_ga|random|milora|mica|lora_xs": 'weber has no such start; the nearest are "pissa" and "eva"',
    },
    "adapter.precision": {"fp16*|float16|float_16|half": "fp16 has too little range for weights that learn; write \"bf16\" or \"fp32\""},
    "memory.dtype": {
        "fp16*|float16|float_16|half": "these models overflow in fp16; write \"bf16\", or \"fp32\" for a device without it",
        "fp8*|float8*|float_8": 'frozen weights in 8 bits are memory.quantize = "fp8"',
    },
    "memory.quantize": _NO_BITS,
    "memory.quantize_text_encoder": _NO_BITS,
    "memory.quantize_text_encoder_2": _NO_BITS,
    "memory.attention": {
        "sage*": 'SageAttention has no backward pass; sampling.attention = "sage" paints with it, and "auto" trains',
        "math|eager|_native_math|split*|sub_quad*|flex*|aiter*|_native_npu|_native_xla|xla|npu": (
            'weber has no such way; remove the line for "auto"'
        ),
    },
    "sampling.attention": {
        "training*": 'SageAttention has no backward pass, so nothing is trained with it; "sage" paints with it',
        "math|eager|_native_math|split*|sub_quad*|flex*": 'weber has no such way; remove the line for "same"',
    },
    "memory.gradient_checkpointing": {
        "ffn|interval|attention|mlp": "whole blocks are computed again: \"all\", or a number n for every n-th block",
    },
    "memory.swap_blocks": {
        "*%|half|some": "write a number of blocks, or set memory.fit = \"auto\" in its place, which chooses it",
        "auto": 'remove it and set memory.fit = "auto", which chooses it',
        "-1": 'every block is "all"',
    },
    "objective.timesteps": {
        "content|style|balanced|gaussian|discrete|weighted|next_sample|one_step|lognorm_blend": (
            'weber has no such law; the nearest are "uniform" and "logit_normal"'
        ),
        "inverted_parabola": 'weber has no such law; the nearest is "beta", whose density is a parabola with beta_shape = [2.0, 2.0]',
        "qinglong*|logsnr": 'weber has no such law; the nearest is "logit_normal"',
    },
    "objective.loss": {
        "log_cosh|logcosh": 'weber has no such loss; the nearest is "huber"',
        "x0|velocity|epsilon|v_prediction": "these models answer with the velocity in any case; remove the line for \"l2\"",
        "wavelet|pixelspace|mean_flow|stepped|fft|lpips|perceptual": 'weber has no such loss; remove the line for "l2"',
    },
    "objective.huber_schedule": {
        "linear|cosine": 'the nearest is "exponential"',
        "snr": f'{_TABLE}; the nearest is "exponential"',
    },
    "objective.weighting": {
        "min_snr*|p2|debiased*|snr*": f"{_TABLE}; remove the line",
        "sigma|weighted|bell*": "weber has no such weighting; remove the line",
    },
    "optim.schedule": {
        "rex": f'{_FALL}; the nearest is "polynomial" with optim.power = 0.6',
        "sine": f'{_FALL}; the nearest is "cosine", or "cosine_with_restarts"',
        "inverse_sqrt": f'{_FALL}; the nearest is "cosine"',
        "warmup_stable_decay|wsd": f'{_FALL}; the nearest is "constant" with optim.warmup_steps',
        "piecewise*|step|steplr|multistep*": f'{_FALL}; the nearest is "linear"',
        "custom|reduce_lr_on_plateau|exponential|exponentiallr|onecycle*": f'{_FALL}; the nearest is "cosine"',
    },
    "optim.cycles": {"1": 'one fall is schedule = "cosine"'},
    "optim.lr": {
        "auto": "remove the line: what is usual for the adapter and the optimizer is taken",
        "0|0.0": "write a rate above 0, for with 0 nothing is learned; or remove the line for the usual one",
    },
    "optim.ema_decay": {
        "0|0.0|false": "remove the line: then there is no running mean",
        "1|1.0|true": "write optim.ema_decay = 0.999, for with 1 the mean never moves",
    },
    "train.steps": {
        "*epoch*": "set train.epochs, and remove train.steps",
        "auto": "remove the line for 2000, or set train.epochs",
        "0|-1": "remove the line, and set train.epochs",
    },
    "train.epochs": {
        "auto|*step*": "set train.steps, and remove train.epochs",
        "*.*": "write a whole number, or set train.steps instead",
        "0|-1": "remove the line, and set train.steps",
    },
    "sampling.every": {
        "*minute*|*hour*|*second*|always": "pictures are painted after so many steps, or epochs: 250, \"2 epochs\"",
        "0|-1|none|false|never": (
            "to paint nothing, leave sampling.prompts out; a number above train.steps paints at the start and the end only"
        ),
    },
    "sampling.prompts": {
        "*.json|*.toml": 'no file is read there: set sampling.library to it, or write the texts, prompts = ["a cat", "a dog"]',
        "*.txt|*.jsonl|*.csv|*.yaml|*.yml": 'no file is read there: write the texts, prompts = ["a cat", "a dog"]',
        "true|false": 'write the texts, prompts = ["a cat", "a dog"]',
    },
    "output.save_every": {
        "*minute*|*hour*|*second*|always": "checkpoints are written after so many steps, or epochs: 250, \"2 epochs\"",
        "0|-1|none|false|never": "one checkpoint is written at the end in any case; set it to train.steps for no other",
    },
    "output.precision": {
        "fp8*|float8*|float_8|int8|nf4|4bit|8bit": "an adapter in so few bits would be another one; the smallest is \"bf16\"",
        "auto|default|same": "remove the line: the adapter is written as it learns, in fp32",
    },
    "output.formats": {
        "xlabs|fal|all": "weber does not write it; \"diffusers\", \"kohya\" and \"comfyui\" are read by all programs that are known",
        "ckpt|pt|pth|bin|pickle|gguf|onnx|internal": "files are safetensors, which every program reads",
    },
    "sampling.weights": {"both|all|best": "one of them is painted: \"trained\", or \"ema\" where optim.ema_decay is set"},
    "optim.state_on": {
        "disk|nvme|paged": "the nearest is \"host\", the memory of this machine; paged optimizers have names of their own",
    },
    "shuffle_caption|shuffle_tags|shuffle_tokens|enable_tag_shuffling|enable_wildcard|prepend_instance_prompt|use_short_captions": {
        "false|0": "it is what weber does in any case",
    },
    "keep_tokens|keep_tags_count|caption_tag_dropout_rate|token_dropout_rate|tag_dropout_enable|tag_dropout_probability": {
        "false|0|0.0": "it is what weber does in any case",
    },
    "report_to|log_with": {"*": "weber writes metrics.jsonl, and to output.trackers: tensorboard, trackio, wandb"},
}
"""Setting or name -> {values, with | between them: why not, and what instead}."""

"""Every optimizer by its name: which settings it takes, what is usual, and what others call it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from weber.config.near import find_near

TAIL = "pytorch_optimizer."
"""What the names of the long tail begin with: the classes of that library, by their own names."""


@dataclass(frozen=True)
class OptimizerFacts:
    """Settings that an optimizer takes, with what is usual for it; None: it has no such setting.

    `lr`: the usual rate of an adapter is multiplied by it; `fixed_lr`: a rate that is usual whatever is trained. `is_own`: it can move
    one parameter at a time, and from the memory of the host. `has_rates`: parameters may have learning rates of their own. `is_mean`: it
    trains with other numbers than those that it ends with, which are already a mean. `is_clipped`: its updates are bounded without
    `clip_norm`. `needs_gpu`: its library has it for GPUs only. `is_tail`: the settings are those of the library's class, and are
    checked against it before a run; what is left out is the library's own default.
    """

    betas: tuple[float, ...] | None = (0.9, 0.999)
    eps: float | None = 1e-8
    weight_decay: float | None = 0.01
    lr: float = 1.0
    fixed_lr: float | None = None
    is_own: bool = False
    has_rates: bool = True
    is_mean: bool = False
    is_clipped: bool = False
    needs_gpu: bool = False
    is_tail: bool = False


_OWN = OptimizerFacts(is_own=True)
_SIGN_LR = 0.1
"""Lion moves every number by the whole rate, so that a tenth is usual (Chen et al. 2023, arXiv:2302.06675)."""

_OWN_LION = replace(_OWN, betas=(0.9, 0.99), eps=None, lr=_SIGN_LR)
_OPTIMI = OptimizerFacts(betas=(0.9, 0.99), eps=1e-6)
_PLAIN = OptimizerFacts(betas=None, weight_decay=0.0)
_ADAM = OptimizerFacts(weight_decay=0.0)
_LION = OptimizerFacts(betas=(0.9, 0.99), eps=None, weight_decay=0.01, lr=_SIGN_LR)
_SGD = OptimizerFacts(betas=None, eps=None, weight_decay=0.0, fixed_lr=1e-2)
_TORCHAO = OptimizerFacts()
_MEAN = OptimizerFacts(is_mean=True)

FACTS: dict[str, OptimizerFacts] = {
    "adamw": _OWN,
    "adamw_bf16": _OWN,
    "adamw_8bit": _OWN,
    "adafactor": replace(_OWN, betas=None),
    "lion": _OWN_LION,
    "lion_8bit": _OWN_LION,
    "muon": OptimizerFacts(),
    "prodigy": OptimizerFacts(fixed_lr=1.0, has_rates=False, is_clipped=True),
    "adamw_schedulefree": _MEAN,
    "radam_schedulefree": replace(_MEAN, weight_decay=0.0),
    "sgd_schedulefree": replace(_SGD, is_mean=True),
    "optimi_adam": replace(_OPTIMI, weight_decay=0.0),
    "optimi_adamw": _OPTIMI,
    "optimi_adan": replace(_OPTIMI, betas=(0.98, 0.92, 0.99), weight_decay=0.02),
    "optimi_lion": _LION,
    "optimi_radam": replace(_OPTIMI, weight_decay=0.0),
    "optimi_ranger": replace(_OPTIMI, weight_decay=0.0),
    "optimi_sgd": _SGD,
    "optimi_stableadamw": replace(_OPTIMI, is_clipped=True),
    "bnb_adagrad": replace(_PLAIN, eps=1e-10, fixed_lr=1e-2),
    "bnb_adagrad_8bit": replace(_PLAIN, eps=1e-10, fixed_lr=1e-2),
    "bnb_adam": _ADAM,
    "bnb_adam_8bit": _ADAM,
    "bnb_adamw": OptimizerFacts(),
    "bnb_adamw_8bit": OptimizerFacts(),
    "bnb_ademamix": OptimizerFacts(betas=(0.9, 0.999, 0.9999), needs_gpu=True),
    "bnb_ademamix_8bit": OptimizerFacts(betas=(0.9, 0.999, 0.9999)),
    "bnb_lion": _LION,
    "bnb_lion_8bit": _LION,
    "bnb_rmsprop": _PLAIN,
    "bnb_rmsprop_8bit": _PLAIN,
    "bnb_sgd": _SGD,
    "bnb_sgd_8bit": _SGD,
    "bnb_paged_adam": replace(_ADAM, needs_gpu=True),
    "bnb_paged_adam_8bit": replace(_ADAM, needs_gpu=True),
    "bnb_paged_adamw": OptimizerFacts(needs_gpu=True),
    "bnb_paged_adamw_8bit": OptimizerFacts(needs_gpu=True),
    "bnb_paged_ademamix": OptimizerFacts(betas=(0.9, 0.999, 0.9999), needs_gpu=True),
    "bnb_paged_ademamix_8bit": OptimizerFacts(betas=(0.9, 0.999, 0.9999), needs_gpu=True),
    "bnb_paged_lion": replace(_LION, needs_gpu=True),
    "bnb_paged_lion_8bit": replace(_LION, needs_gpu=True),
    "torchao_adam_4bit": replace(_TORCHAO, weight_decay=0.0),
    "torchao_adam_8bit": replace(_TORCHAO, weight_decay=0.0),
    "torchao_adam_fp8": replace(_TORCHAO, weight_decay=0.0),
    "torchao_adamw_4bit": _TORCHAO,
    "torchao_adamw_8bit": _TORCHAO,
    "torchao_adamw_fp8": _TORCHAO,
    "torch_adadelta": replace(_PLAIN, eps=1e-6, fixed_lr=1.0),
    "torch_adagrad": replace(_PLAIN, eps=1e-10, fixed_lr=1e-2),
    "torch_adam": _ADAM,
    "torch_adamax": _ADAM,
    "torch_asgd": _SGD,
    "torch_nadam": _ADAM,
    "torch_radam": _ADAM,
    "torch_rmsprop": _PLAIN,
    "torch_sgd": _SGD,
}
"""What is usual is what the libraries have as defaults, but for lion's weight decay."""

# fmt: off
_TAIL_NAMES = (
    "A2Grad", "ADOPT", "AccSGD", "AdEMAMix", "AdaBelief", "AdaBound", "AdaDelta", "AdaFactor", "AdaGC", "AdaMax", "AdaMod",
    "AdaNorm", "AdaPNM", "AdaSmooth", "AdaTAM", "Adai", "Adalite", "AdamC", "AdamG", "AdamP", "AdamS", "AdamWSN", "Adan", "Aida",
    "Alice", "Amos", "Ano", "ApolloDQN", "AvaGrad", "BCOS", "CAME", "DAdaptAdaGrad", "DAdaptAdam", "DAdaptAdan", "DAdaptLion",
    "DAdaptSGD", "DASH", "DiffGrad", "DualAdam", "EXAdam", "EmoFact", "EmoLynx", "EmoNavi", "FAdam", "FOCUS", "FTRL", "Fromage",
    "Grams", "Gravity", "GrokFastAdamW", "Kate", "LARS", "LaProp", "Lamb", "Lion", "MADGRAD", "MARS", "MSVAG", "NovoGrad",
    "PAdam", "PID", "PNM", "Prodigy", "QHAdam", "QHM", "RACS", "ROSE", "Ranger", "SCION", "SCIONLight", "SGDP", "SGDSaI", "SGDW", "SM3",
    "SOAP", "SPAM", "SRMM", "SWATS", "SaRA", "Shampoo", "SignSGD", "SimplifiedAdEMAMix", "StableAdamW", "TAM", "Tiger", "VSGD", "Yogi",
)
# fmt: on
_TAIL = OptimizerFacts(betas=None, eps=None, weight_decay=None, is_tail=True)
_TAIL_FOUND = replace(_TAIL, fixed_lr=1.0, has_rates=False)
_TAIL_SIGN = replace(_TAIL, lr=_SIGN_LR)
_TAIL_OTHERS = {
    **dict.fromkeys(("DAdaptAdaGrad", "DAdaptAdam", "DAdaptAdan", "DAdaptLion", "DAdaptSGD", "Prodigy"), _TAIL_FOUND),
    **dict.fromkeys(("EmoLynx", "Lion", "SignSGD", "Tiger"), _TAIL_SIGN),
    **dict.fromkeys(("AccSGD", "Gravity", "LARS", "PID", "QHM", "SGDP", "SGDSaI", "SGDW"), replace(_TAIL, fixed_lr=1e-2)),
    "AdaDelta": replace(_TAIL, fixed_lr=1.0),
    "AdamG": replace(_TAIL, fixed_lr=1.0),
}
FACTS |= {TAIL + name: _TAIL_OTHERS.get(name, _TAIL) for name in _TAIL_NAMES}

_CLOSURE = "needs the loss again within a step"
_MODEL = "wants the whole model instead of its parameters"
_MUON = "tells matrices from other parameters by groups that it wants to be given"
_PICKLE = "keeps objects that cannot be saved without a pickle"
_INEXACT = "does not go on with the same numbers after a resume"
_HESSIAN = "needs second derivatives"
_LOW_RANK = "is plain Adam unless groups of parameters name a rank for their gradients, which those of adapters have already"
_TRUST = "moves weights in proportion to their size, which is zero where adapters start"
_ADV = "is of another trainer's library"
_SDNQ = "computes in the kernels of another trainer's library"

REFUSED: dict[str, tuple[str, str]] = {
    "SGDNesterov": ("is SGD with two settings", 'name = "torch_sgd" with options = {momentum = 0.9, nesterov = true}'),
    "SGDNesterov8bit": ("is SGD with two settings", 'name = "bnb_sgd_8bit", with momentum 0.9, or "torch_sgd"'),
    "torch-sparseadam": ("is for gradients that are mostly absent, and here none is", 'name = "torch_adam"'),
    "LBFGS": (_CLOSURE, 'name = "adamw"'),
    "AliG": (_CLOSURE, 'name = "prodigy"'),
    "BSAM": (_CLOSURE, 'name = "adamw"'),
    "SAM": (_CLOSURE, 'name = "adamw"'),
    "AdaHessian": (_HESSIAN, 'name = "pytorch_optimizer.SOAP"'),
    "SophiaH": (_HESSIAN, 'name = "pytorch_optimizer.SOAP"'),
    "LOMO": (_MODEL, 'name = "adafactor" with fused_backward = true'),
    "AdaLOMO": (_MODEL, 'name = "adafactor" with fused_backward = true'),
    "AdamMini": (_MODEL, 'name = "adamw_8bit"'),
    "AdaGO": (_MUON, 'name = "muon"'),
    "AdaMuon": (_MUON, 'name = "muon"'),
    "DistributedMuon": (_MUON, 'name = "muon"'),
    "MuonClip": (_MUON, 'name = "muon"'),
    "NorMuon": (_MUON, 'name = "muon"'),
    "SpectralSphere": ("takes matrices only", 'name = "muon"'),
    "LoRARite": ("wants the two factors of each adapter as pairs", 'name = "adamw"'),
    "Nero": ("keeps the lengths of the rows of weights, which are zero where adapters start", 'name = "adamw"'),
    "bnb_lamb": (_TRUST, 'name = "pytorch_optimizer.Lamb"'),
    "bnb_lars": (_TRUST, 'name = "pytorch_optimizer.LARS"'),
    "bnb_lamb_8bit": (_TRUST, 'name = "pytorch_optimizer.Lamb"'),
    "bnb_lars_8bit": (_TRUST, 'name = "pytorch_optimizer.LARS"'),
    "lamb_8bit": (_TRUST, 'name = "pytorch_optimizer.Lamb"'),
    "lars_8bit": (_TRUST, 'name = "pytorch_optimizer.LARS"'),
    "APOLLO": (_LOW_RANK, 'name = "adamw_8bit"'),
    "Fira": (_LOW_RANK, 'name = "adamw_8bit"'),
    "GaLore": (_LOW_RANK, 'name = "adamw_8bit"'),
    "DeMo": ("is for several machines", 'name = "adamw"'),
    "Ranger21": ("has a schedule of its own that must know the length of the run", 'name = "optimi_ranger"'),
    "AdaShift": (_PICKLE, 'name = "adamw"'),
    "AggMo": (_PICKLE, 'name = "torch_sgd" with options = {momentum = 0.9}'),
    "Conda": (_PICKLE, 'name = "pytorch_optimizer.SOAP"'),
    "FlashAdamW": (_PICKLE, 'name = "adamw_8bit"'),
    "ScalableShampoo": (_PICKLE, 'name = "pytorch_optimizer.Shampoo"'),
    "pytorch_optimizer.ASGD": (_INEXACT, 'name = "torch_asgd"'),
    "Kron": (_INEXACT, 'name = "pytorch_optimizer.SOAP"'),
    "Magma": (_INEXACT, 'name = "adamw"'),
    "StableSPAM": (_INEXACT, 'name = "pytorch_optimizer.SPAM"'),
    "SPlus": ("paints and saves with other numbers than it trains with", 'name = "pytorch_optimizer.SOAP"'),
    "pytorch_optimizer.ScheduleFreeAdamW": ("is a copy of another library", 'name = "adamw_schedulefree"'),
    "pytorch_optimizer.ScheduleFreeRAdam": ("is a copy of another library", 'name = "radam_schedulefree"'),
    "pytorch_optimizer.ScheduleFreeSGD": ("is a copy of another library", 'name = "sgd_schedulefree"'),
    "adamw_schedulefree+aggressive": ("is another trainer's variant", 'name = "adamw_schedulefree" with a higher lr'),
    "adamw_schedulefree+no_kahan": ("is another trainer's variant", 'name = "adamw_schedulefree"'),
    "automagic": (_ADV, 'name = "prodigy"'),
    "prodigy8bit": (_ADV, 'name = "prodigy"'),
    "prodigy_plus_schedule_free": (_ADV, 'name = "prodigy" or "adamw_schedulefree"'),
    "prodigy_adv": (_ADV, 'name = "prodigy"'),
    "lion_prodigy_adv": (_ADV, 'name = "prodigy"'),
    "adamw_adv": (_ADV, 'name = "adamw_bf16"'),
    "adopt_adv": (_ADV, 'name = "pytorch_optimizer.ADOPT"'),
    "lion_adv": (_ADV, 'name = "lion"'),
    "signsgd_adv": (_ADV, 'name = "pytorch_optimizer.SignSGD"'),
    "simplified_ademamix_adv": (_ADV, 'name = "pytorch_optimizer.SimplifiedAdEMAMix"'),
    "muon_adv": (_ADV, 'name = "muon"'),
    "adamuon_adv": (_ADV, 'name = "muon"'),
    "came_8bit": (_ADV, 'name = "pytorch_optimizer.CAME"'),
    "sdnq-adamw": (_SDNQ, 'name = "adamw_8bit"'),
    "sdnq-adamw+no_quant": (_SDNQ, 'name = "adamw_bf16"'),
    "sdnq-adafactor": (_SDNQ, 'name = "adafactor"'),
    "sdnq-came": (_SDNQ, 'name = "pytorch_optimizer.CAME"'),
    "sdnq-lion": (_SDNQ, 'name = "lion_8bit"'),
    "sdnq-muon": (_SDNQ, 'name = "muon"'),
    "sdnq-muon+quantized_matmul": (_SDNQ, 'name = "muon"'),
}
"""Names that others have: why they are refused, and what to write instead."""

ALIASES: dict[str, str] = {
    "adam": "torch_adam",
    "adamax": "torch_adamax",
    "adagrad": "torch_adagrad",
    "adadelta": "torch_adadelta",
    "adam8bit": "bnb_adam_8bit",
    "adagrad8bit": "bnb_adagrad_8bit",
    "adan": "optimi_adan",
    "asgd": "torch_asgd",
    "ademamix": "pytorch_optimizer.AdEMAMix",
    "ademamix8bit": "bnb_ademamix_8bit",
    "adamw32bit": "adamw",
    "came": "pytorch_optimizer.CAME",
    "dadaptation": "pytorch_optimizer.DAdaptAdam",
    "dadapt": "pytorch_optimizer.DAdaptAdam",
    "DAdaptAdamPreprint": "pytorch_optimizer.DAdaptAdam",
    "DAdaptAdanIP": "pytorch_optimizer.DAdaptAdan",
    "dadaptadam": "pytorch_optimizer.DAdaptAdam",
    "nadam": "torch_nadam",
    "PagedAdam": "bnb_paged_adam",
    "PagedAdam8bit": "bnb_paged_adam_8bit",
    "PagedAdam32bit": "bnb_paged_adam",
    "PagedAdamW": "bnb_paged_adamw",
    "PagedAdamW8bit": "bnb_paged_adamw_8bit",
    "PagedAdamW32bit": "bnb_paged_adamw",
    "PagedAdEMAMix": "bnb_paged_ademamix",
    "PagedAdEMAMix8bit": "bnb_paged_ademamix_8bit",
    "PagedAdEMAMix32bit": "bnb_paged_ademamix",
    "PagedLion": "bnb_paged_lion",
    "PagedLion8bit": "bnb_paged_lion_8bit",
    "PagedLion32bit": "bnb_paged_lion",
    "radam": "torch_radam",
    "ranger": "optimi_ranger",
    "rmsprop": "torch_rmsprop",
    "rmsprop8bit": "bnb_rmsprop_8bit",
    "schedule_free_adamw": "adamw_schedulefree",
    "schedule_free_radam": "radam_schedulefree",
    "schedule_free_sgd": "sgd_schedulefree",
    "schedulefree": "adamw_schedulefree",
    "sgd": "torch_sgd",
    "sgd8bit": "bnb_sgd_8bit",
    "stableadamw": "optimi_stableadamw",
    "stable-adamw": "optimi_stableadamw",
    "torch-adafactor": "adafactor",
    "torch-adamw": "adamw",
    "torch-muon": "muon",
    "use_8bit_adam": "adamw_8bit",
    "bnb-adam-paged": "bnb_paged_adam",
    "bnb-adam8bit-paged": "bnb_paged_adam_8bit",
    "bnb-adamw-paged": "bnb_paged_adamw",
    "bnb-adamw8bit-paged": "bnb_paged_adamw_8bit",
    "bnb-ademamix-paged": "bnb_paged_ademamix",
    "bnb-ademamix8bit-paged": "bnb_paged_ademamix_8bit",
    "bnb-lion-paged": "bnb_paged_lion",
    "bnb-lion8bit-paged": "bnb_paged_lion_8bit",
    "ao-adam4bit": "torchao_adam_4bit",
    "ao-adam8bit": "torchao_adam_8bit",
    "ao-adamfp8": "torchao_adam_fp8",
    "ao-adamw4bit": "torchao_adamw_4bit",
    "ao-adamw8bit": "torchao_adamw_8bit",
    "ao-adamwfp8": "torchao_adamw_fp8",
}
"""What SimpleTuner, kohya's scripts, ai-toolkit, OneTrainer and diffusers call them, where that is not our name spelled otherwise."""

_PACKAGES = {
    "torch": "torch-",
    "torchao": "torchao-",
    "optimi": "optimi-",
    "pytorch_optimizer": TAIL,
    **dict.fromkeys(("bitsandbytes", "transformers", "prodigyopt", "prodigyplus", "schedulefree"), ""),
    **dict.fromkeys(("came_pytorch", "dadaptation", "lion_pytorch"), ""),
}
"""Some trainers take the path of a class: what its name begins with here, by package."""


def read_optimizer_name(text: str) -> str:
    """The one name of an optimizer that somebody wrote in any way. Raises ValueError, in words, for one that is not here."""
    plain = text.strip()
    package, _, rest = plain.partition(".")
    if rest and package.lower() in _PACKAGES:
        plain = _PACKAGES[package.lower()] + rest.rpartition(".")[2]
    found = _NAMES.get(_normalize(plain))
    if found is not None:
        return found
    refused = _REFUSED.get(_normalize(plain)) or _REFUSED.get(_normalize(plain.removeprefix(TAIL)))
    if refused is not None:
        raise ValueError(f'"{text}" {refused[0]}; write {refused[1]}')
    near = find_near(_normalize(plain), _NAMES)
    fix = f'write name = "{_NAMES[near]}"' if near is not None else 'write name = "adamw"'
    raise ValueError(f'"{text}" is no optimizer; {fix} (docs/optimizers.md lists them all)')


def list_aliases(name: str) -> list[str]:
    """What others call an optimizer."""
    return [alias for alias, meant in ALIASES.items() if meant == name]


def _normalize(name: str) -> str:
    return "".join(character for character in name.lower() if character not in "-_. ")


_REFUSED = {_normalize(name): why for name, why in REFUSED.items()}
_SHORT = {_normalize(name.removeprefix(TAIL)): name for name in FACTS if name.startswith(TAIL)}
_NAMES = (
    {short: name for short, name in _SHORT.items() if short not in _REFUSED}
    | {_normalize(alias): name for alias, name in ALIASES.items()}
    | {_normalize(name): name for name in FACTS}
)

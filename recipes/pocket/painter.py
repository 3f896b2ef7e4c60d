"""Train the pocket model's text encoders and transformer together, with the trainer's own objective and optimizer.

Legend: B pictures, C latent channels, h w latent size.

Two phases. *learn*: flow matching at a constant learning rate, with captions padded to 12 tokens: enough for nearly all, and faster.
*settle*: 24 tokens, the rate falls to 0, and a quarter of the batch learns what guidance does: its target is moved by (g - 1)(conditional -
unconditional velocity), both from the network itself (Tang et al. 2025, arXiv:2502.12154), so that afterwards one pass with g as an input
does what two passes do, as in FLUX.1 dev.
"""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from diffusers import FluxTransformer2DModel
from torch import Tensor, distributed, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from recipes.pocket.captions import CaptionRecipe, Concept, Speller, draw_caption
from recipes.pocket.progress import Checkpoint, report
from weber.config.objective import ObjectiveConfig
from weber.config.optim import OptimConfig
from weber.families.flux1.predict import Flux1Predictor
from weber.objective.flow import build_noisy, build_target, draw_noise
from weber.objective.losses import build_losses
from weber.objective.timesteps import build_timesteps
from weber.optim.schedules import build_schedule, write_learning_rate
from weber.optim.table import build_optimizer
from weber.pocket.networks import TRAINED, build_clip, build_t5, build_transformer
from weber.pocket.words import build_clip_tokenizer, build_t5_tokenizer

TEXT_TOKENS = 24
SEED_STEP = 1_000_003
REPORT_EVERY, SAVE_EVERY = 200, 1000
GUIDED_EVERY = 4


@dataclass(frozen=True)
class PainterRecipe:
    """How the painter is trained. A step is `lanes` batches, which up to as many processes share; `token_shift` is FLUX.1's shift k at
    16 image tokens (64 x 64 pixels); familiar concepts are drawn `familiar_weight` times as often as others."""

    learn_steps: int = 10_000
    learn_tokens: int = 12
    settle_steps: int = 2_400
    lanes: int = 2
    batch: int = 24
    lr: float = 1.5e-3
    warmup_steps: int = 300
    max_guidance: float = 4.0
    familiar_weight: int = 4
    ema: float = 0.999
    token_shift: float = 1.58
    captions: CaptionRecipe = CaptionRecipe()
    seed: int = 2


@dataclass(frozen=True)
class EncodedArtwork:
    """Latents (N, C, h, w) per background, and the concept and style of each of the N pictures."""

    latents: Mapping[str, Tensor]
    concepts: Sequence[Concept]
    styles: Sequence[str]


class Painter(nn.Module):
    """What is trained: CLIP (pooled), T5 (a vector per token) and the transformer, all in fp32."""

    def __init__(self, words: Sequence[str]) -> None:
        super().__init__()
        self.clip_tokenizer, self.t5_tokenizer = build_clip_tokenizer(words), build_t5_tokenizer(words)
        self.clip_speller = Speller(self.clip_tokenizer, build_clip_tokenizer([]), words=words)
        self.t5_speller = Speller(self.t5_tokenizer, build_t5_tokenizer([]), words=words)
        self.clip = build_clip(TRAINED, self.clip_tokenizer)
        self.t5 = build_t5(TRAINED, num_words=len(self.t5_tokenizer))
        self.transformer = build_transformer(TRAINED, has_guidance=True)
        _write_zeros(self.transformer)

    def encode(self, captions: Sequence[str], num_tokens: int, *, spelled: float, rng: random.Random) -> dict[str, Tensor]:
        """Condition of a batch. CLIP sees as few of its 77 tokens as T5: it is causal, so padding after the end changes nothing."""
        clip_ids = [self.clip_speller.encode(caption, num_tokens, share=spelled, rng=rng) for caption in captions]
        t5_ids = [self.t5_speller.encode(caption, num_tokens, share=spelled, rng=rng) for caption in captions]
        pooled = self.clip(torch.tensor(clip_ids)).pooler_output
        return {"pooled": pooled, "text": self.t5(torch.tensor(t5_ids)).last_hidden_state}


def _write_zeros(transformer: FluxTransformer2DModel) -> None:
    """Modulation and output start at zero, as in DiT (Peebles and Xie 2023, arXiv:2212.09748)."""
    modulations = [module.linear for module in transformer.modules() if type(module).__name__.startswith("AdaLayerNorm")]
    for layer in [*modulations, transformer.proj_out]:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)


class Trainee:
    """The painter in fp32, a bf16 copy of its transformer that computes (twice as fast here), and the running mean that is kept."""

    def __init__(self, words: Sequence[str], recipe: PainterRecipe) -> None:
        torch.manual_seed(recipe.seed)
        self.painter = Painter(words)
        self.mean = copy.deepcopy(self.painter).requires_grad_(False)
        self.working = Flux1Predictor(copy.deepcopy(self.painter.transformer).bfloat16())
        self.parameters = list(self.painter.parameters())
        config = OptimConfig(lr=recipe.lr, betas=(0.9, 0.99), weight_decay=0.01)
        self.optimizer = build_optimizer(self.parameters, config, seed=recipe.seed)
        self._pairs = list(zip(self.painter.transformer.parameters(), self.working.transformer.parameters(), strict=True))
        self._momentum = recipe.ema

    @torch.no_grad()
    def copy_weights(self) -> None:
        """The working copy follows the fp32 weights."""
        for master, working in self._pairs:
            working.copy_(master)

    @torch.no_grad()
    def start_guidance(self) -> None:
        """Until now guidance was always 1: keep what the network made of it, and forget what it would make of other values."""
        embedder = self.painter.transformer.time_text_embed
        embedder.guidance_embedder.linear_2.bias.copy_(embedder.guidance_embedder(embedder.time_proj(torch.tensor([1000.0])))[0])
        embedder.guidance_embedder.linear_2.weight.zero_()
        for parameter in embedder.guidance_embedder.parameters():
            self.optimizer.state.pop(parameter, None)
        self.copy_weights()

    @torch.no_grad()
    def update(self, learning_rate: float, step: int) -> float:
        """One step of the optimizer, by the gradients of all processes; returns their norm before clipping."""
        for master, working in self._pairs:
            assert working.grad is not None
            master.grad = working.grad.float()
            working.grad = None
        if distributed.is_initialized():
            _sum_gradients(self.parameters)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        write_learning_rate(self.optimizer, learning_rate)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.copy_weights()
        momentum = min(self._momentum, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.mean.parameters()), self.parameters, 1 - momentum)
        return float(norm)


def _sum_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Every process gets the sum."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(flat)
    for gradient, total in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(total.view_as(gradient))


def build_learning_rate(recipe: PainterRecipe) -> Callable[[int], float]:
    """Up over the warm-up, constant while learning, then down to 0."""
    learn = build_schedule(OptimConfig(lr=recipe.lr, warmup_steps=recipe.warmup_steps), num_steps=recipe.learn_steps)
    settle = build_schedule(OptimConfig(lr=recipe.lr, schedule="linear"), num_steps=recipe.settle_steps)
    return lambda step: learn(step) if step < recipe.learn_steps else settle(step - recipe.learn_steps)


def predict_loss(trainee: Trainee, artwork: EncodedArtwork, *, recipe: PainterRecipe, step: int, lane: int = 0) -> Tensor:
    """Mean squared error of the velocity on a batch that seed, step and lane choose."""
    rng = random.Random((recipe.seed * SEED_STEP + step) * recipe.lanes + lane)
    backgrounds = list(artwork.latents)
    weights = [recipe.familiar_weight if concept.is_familiar else 1 for concept in artwork.concepts]
    latents, captions = [], []
    for place in rng.choices(range(len(weights)), weights, k=recipe.batch):
        background = rng.choice(backgrounds[1:]) if rng.random() < recipe.captions.background else backgrounds[0]
        latents.append(artwork.latents[background][place])
        captions.append(
            draw_caption(artwork.concepts[place], artwork.styles[place], background=background, recipe=recipe.captions, rng=rng)
        )
    x0 = torch.stack(latents)
    noise = draw_noise(x0, [rng.getrandbits(63) for _ in captions]).to(x0.device)
    uniforms = [(index + rng.random()) / recipe.batch for index in range(recipe.batch)]
    t = build_timesteps(ObjectiveConfig(timesteps="token_shift"), uniforms, token_shift=recipe.token_shift)
    is_settling = step >= recipe.learn_steps
    condition = trainee.painter.encode(
        captions, TEXT_TOKENS if is_settling else recipe.learn_tokens, spelled=recipe.captions.spelled, rng=rng
    )
    condition["guidance"] = torch.ones(recipe.batch)
    if is_settling:
        guided = slice(None, None, GUIDED_EVERY)
        highest = (recipe.max_guidance - 1) * min(1.0, (step - recipe.learn_steps + 1) / recipe.warmup_steps)
        condition["guidance"][guided] += highest * torch.tensor([rng.random() for _ in captions[guided]])
        noisy = build_noisy(x0, noise, t)
        moved = _predict_guidance(trainee, noisy[guided], t[guided], {name: value[guided] for name, value in condition.items()})
        # (1 - t) x0 + t noise stays what it is, and noise - x0 becomes the guided target
        x0[guided] -= t[guided].view(-1, 1, 1, 1) * moved
        noise[guided] += (1 - t[guided]).view(-1, 1, 1, 1) * moved
    velocity = trainee.working(build_noisy(x0, noise, t), t, condition)
    losses = build_losses(velocity, build_target(x0, noise), t, config=ObjectiveConfig())
    return (losses / condition["guidance"]).mean()  # targets grow with guidance


@torch.no_grad()
def _predict_guidance(trainee: Trainee, noisy: Tensor, t: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
    """(g - 1)(conditional - unconditional velocity), fp32: by how much guidance g moves the target."""
    empty = trainee.painter.encode([""], TEXT_TOKENS, spelled=0.0, rng=random.Random(0))
    both = {name: torch.cat([condition[name], value.expand_as(condition[name])]) for name, value in empty.items()}
    both["guidance"] = torch.ones(2 * len(t))
    conditional, unconditional = trainee.working(torch.cat([noisy, noisy]), torch.cat([t, t]), both).float().chunk(2)
    return (condition["guidance"].view(-1, 1, 1, 1) - 1) * (conditional - unconditional)


def _list_facts(artwork: EncodedArtwork, words: Sequence[str], recipe: PainterRecipe) -> dict[str, object]:
    """What a checkpoint depends on; how long it is trained is not among it."""
    settings = {name: value for name, value in asdict(recipe).items() if not name.endswith("_steps")}
    latents = sum(value.double().abs().sum().item() for value in artwork.latents.values())
    return settings | {"words": len(words), "latents": round(latents, 2)}


def train_painter(artwork: EncodedArtwork, words: Sequence[str], *, folder: Path, recipe: PainterRecipe) -> Painter:
    """Train, or go on from the last checkpoint in `folder`; returns the running mean of the weights.

    Under `torchrun --nproc-per-node 2` the lanes are shared; on 2 cores that is 1.4 times as fast as one process with two threads.
    """
    rank, world = (distributed.get_rank(), distributed.get_world_size()) if distributed.is_initialized() else (0, 1)
    assert recipe.lanes % world == 0, f"{world} processes cannot share {recipe.lanes} lanes equally"
    trainee = Trainee(words, recipe)
    modules = {"painter": trainee.painter, "mean": trainee.mean}
    checkpoint = Checkpoint(folder / "painter.pt", modules, optimizer=trainee.optimizer, made_of=_list_facts(artwork, words, recipe))
    done = checkpoint.load()
    trainee.copy_weights()
    learning_rate = build_learning_rate(recipe)
    losses: list[float] = []
    started, total = time.monotonic(), recipe.learn_steps + recipe.settle_steps
    for step in range(done, total):
        if step == recipe.learn_steps:
            trainee.start_guidance()
        with sdpa_kernel(SDPBackend.MATH):  # the fused attention's backward is slow in bf16 on CPUs
            for lane in range(rank, recipe.lanes, world):
                loss = predict_loss(trainee, artwork, recipe=recipe, step=step, lane=lane)
                (loss / recipe.lanes).backward()
        norm = trainee.update(learning_rate(step), step)
        losses.append(loss.item())
        if rank > 0:
            continue
        if (step + 1) % REPORT_EVERY == 0:
            speed = (step + 1 - done) * recipe.lanes * recipe.batch / (time.monotonic() - started)
            report("painter", step + 1, steps=total, loss=sum(losses[-REPORT_EVERY:]) / REPORT_EVERY, norm=norm, pictures_per_second=speed)
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == total:
            checkpoint.save(step + 1, loss=sum(losses[-SAVE_EVERY:]) / len(losses[-SAVE_EVERY:]))
    return trainee.mean.eval()

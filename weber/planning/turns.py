"""Which sets take part when, and how often beside each other: shares and steps as the settings say them."""

from __future__ import annotations

from weber.config.every import count_steps
from weber.config.expand import list_keys
from weber.config.run import RunConfig
from weber.data.batches import BatchPlan
from weber.data.pictures import Pictures
from weber.data.uses import ALWAYS, NO_USES, Use, Uses, list_starts
from weber.data.words import describe_count
from weber.errors import ConfigError


def build_batches(config: RunConfig, pictures: Pictures) -> BatchPlan:
    """The plan of all steps. An epoch, where sets start or stop after some, is one of all sets together."""
    train = config.train
    shares = _build_shares(config, pictures)

    def build(uses: Uses) -> BatchPlan:
        return BatchPlan(pictures, batch_size=train.batch_size, accumulation=train.accumulation, seed=train.seed, uses=uses)

    whole = build({name: Use(share) for name, share in shares.items()} if any(share != 1 for share in shares.values()) else NO_USES)
    if all(one.start_after is None and one.stop_after is None for one in config.learned_sets):
        return whole
    per_epoch = whole.steps_per_epoch
    uses = {}
    for one in config.learned_sets:
        start = 0 if one.start_after is None else count_steps(one.start_after, steps_per_epoch=per_epoch)
        stop = None if one.stop_after is None else count_steps(one.stop_after, steps_per_epoch=per_epoch)
        uses[one.set_name] = Use(shares[one.set_name], start, stop)
    return build(uses)


def check_uses(config: RunConfig, batches: BatchPlan, *, num_steps: int) -> None:
    """Refuse sets that never take part, and steps in which none does."""
    for key, one in zip(list_keys(config.data), config.data, strict=True):
        use = batches.uses.get(one.set_name, ALWAYS)
        if use.start_step >= num_steps:
            raise ConfigError(
                f'The set "{one.set_name}" would never take part.',
                got=f"start_after = {one.start_after}, which is step {use.start_step}, and {num_steps} steps in all",
                fix=f"lower {key}.start_after, train longer, or remove the set",
            )
        if use.stop_step is not None and use.stop_step <= use.start_step:
            raise ConfigError(
                f'The set "{one.set_name}" would never take part.',
                got=f"it starts after step {use.start_step} and stops after step {use.stop_step}",
                fix=f"raise {key}.stop_after above start_after",
            )
    for start in list_starts(batches.uses):
        if start < num_steps and not any(batches.uses.get(one.set_name, ALWAYS).is_on(start) for one in config.learned_sets):
            raise ConfigError(
                "There would be steps without any pictures.",
                got=f"after step {start} no set takes part, of {num_steps} steps in all",
                fix="raise stop_after or lower start_after of a set, or train shorter",
            )


def describe_uses(config: RunConfig, batches: BatchPlan) -> list[str]:
    """A line for each set that does not simply take part in every epoch."""
    lines = []
    for one in config.learned_sets:
        use, said = batches.uses.get(one.set_name, ALWAYS), []
        if use.share != 1:
            said.append(f"drawn {use.share:.3g} times as often as its pictures and repeats say")
        if use.start_step:
            said.append(f"from step {use.start_step} on")
        if use.stop_step is not None:
            said.append(f"until step {use.stop_step}")
        lines += [f"{one.set_name}: {', '.join(said)}"] if said else []
    if lines:
        lines.append(f"an epoch is {describe_count(batches.steps_per_epoch, 'step')}, as of all sets together")
    return lines


def _build_shares(config: RunConfig, pictures: Pictures) -> dict[str, float]:
    """By set: how often its pictures are drawn, beside their repeats."""
    shares = {one.set_name: one.share for one in config.learned_sets}
    if config.train.balance == "pictures":
        return shares
    uses = {part.shared.set_name: len(part) * part.shared.repeats for part in pictures.parts}
    total, weights = sum(uses.values()), sum(shares.values())
    return {name: total * share / weights / uses[name] for name, share in shares.items()}

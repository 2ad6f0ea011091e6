"""The denoising loop of all diffusion models: steps, cancel, previews, checkpoints, and the check that it is still a picture.

It is ours because the stock pipelines have no checkpoints, I2VGen-XL's not even a step callback, and because they keep every
part where it is. It asks of a scheduler only `timesteps` and `step`: those of flow matching have neither a scale of their
input nor an initial sigma.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final

import torch

from farm.errors import StaleCheckpointError
from farm.model import MemoryPlan
from node_agent.pipelines.base import Report
from node_agent.pipelines.diffusion import resume
from node_agent.pipelines.diffusion.pictures import check_latents

PREVIEW_EVERY: Final = 5
"""Steps between two previews; the first step gives one too."""

CHECKPOINT_EVERY: Final = 5
"""Steps between two checkpoints; the last step gives one too, so that a failure to decode costs no step.

At an old card's two seconds a step a cut costs ten seconds of work, and a checkpoint half a megabyte.
"""

CHECKPOINT_S: Final = 5.0
"""Seconds after which a step gives a checkpoint whatever its number, so that a slow card too loses hardly more than the step it was at.

A checkpoint of 512x512x16 takes 2.6 ms and half a megabyte, one of 1280x704x16 6 ms and 1.8 MB: at one in five seconds a thousandth of a
card's time, and 0.1 to 0.4 MB/s of network. A fast card makes its five steps sooner and never waits for this one.
"""


@dataclass(frozen=True, slots=True)
class Denoising:
    """What a model hands to the loop.

    `noise` is what the clip comes out of, of variance 1, in whatever shape the model has for latents. `predict` gives the
    guided prediction for scaled latents at a timestep. `preview` makes a JPEG of latents.
    """

    noise: torch.Tensor
    predict: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    preview: Callable[[torch.Tensor], bytes]


def denoise(
    work: Denoising,
    scheduler: Any,
    generator: torch.Generator,
    report: Report,
    *,
    stamp: resume.Stamp,
    state: resume.State | None,
) -> torch.Tensor:
    """Takes the noise away step by step and returns the clip's latents. The scheduler is new, its timesteps set.

    `generator` is the job's own, for schedulers that draw. `stamp` marks the checkpoints; with a `state` the loop goes on from
    there, and gives the latents that it would have given without a break.

    Raises:
        BrokenPictureError: the latents became no number.
        StaleCheckpointError: the state does not fit the model's latents or scheduler.
    """
    untouched = resume.attributes(scheduler)
    timesteps, done = scheduler.timesteps, 0
    latents = work.noise * getattr(scheduler, "init_noise_sigma", 1.0)
    if state is not None:
        if state.latents.shape != latents.shape or not 1 <= state.step <= len(timesteps):
            raise StaleCheckpointError("The checkpoint does not fit this model.", resume.REMEDY)
        done, latents = state.step, state.latents.to(latents)
        generator.set_state(state.generator)
        resume.restore(scheduler, state, untouched, latents)
        report.step(done, len(timesteps))
    kept_at = monotonic()
    scale = getattr(scheduler, "scale_model_input", lambda sample, _timestep: sample)
    draws = {"generator": generator} if "generator" in inspect.signature(scheduler.step).parameters else {}
    for number, timestep in enumerate(timesteps[done:], start=done + 1):
        predicted = work.predict(scale(latents, timestep), timestep)
        result = scheduler.step(predicted, timestep, latents, **draws)
        latents = result.prev_sample
        check_latents(latents, number)
        leaving = report.leaving()
        if not leaving:
            report.step(number, len(timesteps))
        due = leaving or number % CHECKPOINT_EVERY == 0 or number == len(timesteps)
        if due or monotonic() - kept_at >= CHECKPOINT_S:
            kept_at = monotonic()
            kept = resume.changes(scheduler, untouched)
            kind = type(scheduler).__name__
            reached = resume.State(number, latents, generator.get_state(), kind, kept)
            report.checkpoint(number, resume.pack(reached, stamp))
        if leaving:
            report.step(number, len(timesteps))  # ends the render, whose checkpoint is kept now
        if number % PREVIEW_EVERY == 1:
            clean = getattr(result, "pred_original_sample", None)
            report.preview(work.preview(latents if clean is None else clean))
    return latents


def guided(
    network: Callable[[slice], torch.Tensor], rows: int, scale: float | torch.Tensor, plan: MemoryPlan
) -> torch.Tensor:
    """What the network predicts, guided by `scale`; its passes go together or in turn as the plan says.

    `network` predicts for a slice of the `rows` of conditions: the guided one, and before it the unguided one if there are two.
    """
    in_turn = plan.guidance == "in_turn"
    passes = [slice(row, row + 1) for row in range(rows)] if in_turn else [slice(0, rows)]
    predicted = torch.cat([network(rows_of_pass) for rows_of_pass in passes])
    if rows == 1:
        return predicted
    without, with_it = predicted.chunk(2)
    return without + scale * (with_it - without)

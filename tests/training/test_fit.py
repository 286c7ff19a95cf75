"""Batches are tried before the first step, and where they do not fit the largest settings that do are proposed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import typer

from sam2_core.cli.finetune import finetune
from sam2_core.errors import InputError
from training.dataset.labelled_sets import Sequence
from training.device import make_fabric
from training.fit import GIB, KEYS, LIMIT, OPTIONS, fits, kinds, largest_batch, limits, propose, smaller
from training.loss_fns import LossWeights
from training.model.sam2_train import PromptSettings, SAM2Train
from training.settings import Phase, TrainSettings
from training.trainer import Trainer

MOSE = "configs/sam2.1_training/sam2.1_hiera_b+_MOSE_finetune.yaml"


def disc_video() -> Sequence:
    """One object on every frame."""
    y, x = np.mgrid[:64, :64]
    disc = ((x - 30) ** 2 + (y - 30) ** 2 < 12**2)[None].repeat(6, axis=0)
    return Sequence(
        "made", "disc", "video", (40 + 150 * disc).astype(np.uint8), disc.astype(np.int32), np.ones(6, bool)
    )


def settings(**changes: int) -> TrainSettings:
    phase = Phase(steps=2, image_size=64, lr=1e-3, final_lr=1e-3, corrections=0, clip_every=2)
    return TrainSettings(
        model="cells-nano",
        phases=[replace(phase, **changes)],
        precision="32-true",
        losses=LossWeights(neighbours=0.0),
        prompts=PromptSettings(corrected_frames=2),
    )


def pixels(chosen: TrainSettings) -> int:
    """A made-up need: the pixels of all frames and masks, of frames alone a quarter where they are computed again."""
    most = 0
    for phase, is_clip in kinds(chosen):
        clips, frames = (phase.clips, phase.frames) if is_clip else (phase.images, 1)
        image = 1 if chosen.checkpoint_activations else 4
        most = max(most, phase.image_size**2 * clips * frames * (image + phase.objects))
    return most


class Meter:
    """A probe of a device on which each frame of each object of a batch takes a GiB."""

    def __init__(self, gib: float) -> None:
        self.gib = gib
        self.taken: list[tuple[int, ...]] = []

    def watch(self, model: SAM2Train) -> None:
        model.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, _: object, args: object, batch: dict[str, torch.Tensor]) -> None:
        self.taken.append(tuple(batch["masks"].shape[:2]))
        if self.taken[-1][0] * self.taken[-1][1] > self.gib:
            raise torch.OutOfMemoryError("made")

    def reset(self) -> None:
        self.taken.clear()

    def peak(self) -> int:
        return GIB * max(objects * frames for objects, frames in self.taken)

    def total(self) -> int:
        return int(GIB * self.gib)


def trainer(out: Path, chosen: TrainSettings, gib: float) -> tuple[Trainer, Meter]:
    meter = Meter(gib)
    run = Trainer(chosen, out, make_fabric("cpu", "32-true"), probe=meter)
    meter.watch(run.inner)
    return run, meter


def test_the_order_of_what_is_given_up() -> None:
    order = [
        (p.images, p.clips, p.accumulate, p.checkpoint_activations, p.frames, p.objects)
        for p in smaller(settings(images=3, clips=1, frames=4, objects=3), 0)
    ]
    assert order == [
        (2, 1, 2, False, 4, 3),
        (1, 1, 4, False, 4, 3),
        (1, 1, 4, True, 4, 3),
        (1, 1, 4, True, 3, 3),
        (1, 1, 4, True, 2, 3),
        (1, 1, 4, True, 2, 2),
        (1, 1, 4, True, 2, 1),
    ]


@pytest.mark.parametrize("images", [3, 33, 64])
def test_a_step_does_not_outgrow_the_numbers_of_its_clips(images: int) -> None:
    last = list(smaller(settings(images=images), 0))[-1]
    assert images <= last.images * last.accumulate <= 64


@pytest.mark.parametrize("part", [0.9, 0.5, 0.3, 0.2, 0.1, 0.05])
def test_the_first_that_fits_is_proposed(part: float) -> None:
    chosen = settings(images=4, clips=4, frames=4, objects=8)
    device = int(part * pixels(chosen))
    found = propose(chosen, pixels, device)
    assert found is not None
    assert found.measured == pixels(found.apply(chosen)) <= LIMIT * device
    larger = list(smaller(chosen, device))
    for candidate in larger[: larger.index(replace(found, measured=None))]:
        assert not fits(pixels(candidate.apply(chosen)), device)


def test_nothing_fits() -> None:
    assert propose(settings(), pixels, 100) is None
    assert propose(settings(), lambda _: None, 1 << 40) is None


def test_the_phases_keep_what_is_small_already() -> None:
    chosen = settings(images=8, objects=2)
    chosen = replace(chosen, phases=[*chosen.phases, replace(chosen.phases[0], images=2, objects=16)])
    first = next(smaller(chosen, 0)).apply(chosen)
    assert [(phase.images, phase.objects) for phase in first.phases] == [(4, 2), (2, 16)]
    assert "images: at most 4" in next(smaller(chosen, 0)).message(chosen)


def test_only_steps_that_there_are_count() -> None:
    only_clips, only_images = settings(clip_every=1, images=50), settings(clip_every=0, clips=50)
    assert [is_clip for _, is_clip in kinds(only_clips)] == [True]
    assert [is_clip for _, is_clip in kinds(only_images)] == [False]
    assert (limits(only_clips, 0).images, limits(only_images, 0).clips, limits(only_images, 0).frames) == (1, 1, 1)
    batch = largest_batch(settings(clips=2, objects=3, frames=4).phases[0], is_clip=True)
    assert batch.frames.shape == (2, 4, 3, 64, 64)
    assert batch.masks.shape == (6, 4, 64, 64)
    assert batch.clip.tolist() == [0, 0, 0, 1, 1, 1]


def test_a_batch_that_fits_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = settings(images=2, clips=1, frames=2, objects=2)
    run, _ = trainer(tmp_path / "tried", replace(chosen, phases=[replace(chosen.phases[0], steps=1)]), 24)
    plain = Trainer(run.settings, tmp_path / "plain", make_fabric("cpu", "32-true"))
    for each in (run, plain):
        each.fit([disc_video()], workers=0)
    assert "largest batch needs 4.1 of 24.0 GB" in capsys.readouterr().out  # with the optimizer's 0.1
    for name, value in plain.inner.state_dict().items():
        assert torch.equal(value, run.inner.state_dict()[name]), name


def test_a_batch_that_does_not_fit_is_refused_with_what_does(tmp_path: Path) -> None:
    run, _ = trainer(tmp_path / "run", settings(images=4, clips=1, frames=3, objects=3), gib=10)
    with pytest.raises(InputError, match="does not fit") as error:
        run.fit([disc_video()], workers=0)
    text = str(error.value)
    assert "--images 2 --accumulate 2;" in text
    assert "accumulate: 2 and, in its phases, images: 2" in text
    assert "++trainer.accumulate=2." in text
    assert "9.1 GB" in text  # clips of three frames with three objects
    assert not (tmp_path / "run").exists()


def test_memory_that_runs_out_in_a_step(tmp_path: Path) -> None:
    chosen = settings(images=2, clips=1, frames=3, objects=2)
    run, meter = trainer(tmp_path, chosen, gib=24)
    step = run.backward

    def shrink(batch):  # type: ignore[no-untyped-def]
        if run.step == 1:
            meter.gib = 2.5  # another program took the rest
        return step(batch)

    run.backward = shrink  # type: ignore[method-assign]
    with pytest.raises(InputError, match=r"step 2 ran out of memory; last.pt has what was before") as error:
        run.fit([disc_video()], workers=0)
    assert "--images 1 --frames 2 --objects 1 --accumulate 2 --checkpoint-activations;" in str(error.value)
    kept = torch.load(tmp_path / "last.pt")
    assert kept["step"] == 1
    again = Trainer(chosen, tmp_path, make_fabric("cpu", "32-true"))
    assert again.resume()
    for name, value in run.inner.state_dict().items():
        assert torch.equal(value, again.inner.state_dict()[name]), name
    assert all(parameter.grad is None for parameter in run.inner.parameters())


def test_the_clip_that_is_tried_has_the_most_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, _ = trainer(tmp_path, settings(images=1, clips=1, frames=3, objects=1), gib=24)
    assert run.dry_run is not None
    corrected = []
    draw = run.inner._frames_to_correct

    def remember(length: int) -> set[int]:
        corrected.append(draw(length))
        return corrected[-1]

    monkeypatch.setattr(run.inner, "_frames_to_correct", remember)
    run.dry_run.check(run.settings)
    assert corrected == [set(), {1, 2}]
    assert run.inner.prompts == run.settings.prompts


def test_what_is_named_exists() -> None:
    app = typer.Typer()
    app.command()(finetune)
    options = [name for parameter in typer.main.get_command(app).params for name in parameter.opts]
    assert set(OPTIONS.values()) <= set(options)
    pytest.importorskip("hydra")
    from training.hydra_config import compose_config

    weights = "trainer.checkpoint.model_weight_initializer=null"
    wanted = {"clips": 2, "frames": 3, "objects": 2, "accumulate": 2, "checkpoint_activations": "true"}
    composed = compose_config(MOSE, [weights, *(f"{KEYS[name]}={value}" for name, value in wanted.items())])
    chosen = composed.settings(videos=64)
    (phase,) = chosen.phases
    assert (phase.clips, phase.frames, phase.objects, chosen.accumulate, chosen.checkpoint_activations) == (
        2,
        3,
        2,
        2,
        1,
    )
    assert phase.steps == 40 * (64 * 2 // (2 * 8 * 2))
    assert compose_config(MOSE, [weights, "++trainer.distributed.strategy=fsdp"]).settings(64).strategy == "fsdp"

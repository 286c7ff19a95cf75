"""Score a model on the validation parts: ``python -m training.evaluate --model NAME|PATH --data DIR --out FILE``.

Prompts are simulated as in the evaluations of the SAM papers: the first click at the centre of the object, each
next one at the centre of the largest error; a tight box; the true mask on a first plane or frame. With
``--classical FILE`` (written by ``python -m training.classical``) the best classical method stands beside each.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sam2_core.errors import InputError
from sam2_core.metrics import iou, number_of_clicks
from sam2_core.volume.files import write_json
from training.dataset.labelled_sets import SET_NAMES
from training.dataset.splits import load_part
from training.pictures import Case
from training.tasks import (
    ImageTask,
    PropagationTask,
    image_tasks,
    next_click,
    pooled_dice,
    propagation_tasks,
)

if TYPE_CHECKING:
    from sam2_core.model.sam2 import SAM2Base

CLICK_COUNTS = (1, 3, 5)
CLICK_GOALS = {"noc85": 0.85, "noc90": 0.9}
IMAGE_PROMPTS = {"clicks1": "1 click", "clicks3": "3 clicks", "clicks5": "5 clicks", "box": "box"}

# set, prompt: the score of each object
Scores = dict[str, dict[str, list[float]]]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="cells-nano", help="name or checkpoint (default cells-nano)")
    parser.add_argument("--config", help="YAML file of the model, where the checkpoint is not a known one")
    parser.add_argument("--data", type=Path, required=True, help="folder of the labelled sets")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--classical", type=Path, help="JSON file of python -m training.classical")
    parser.add_argument("--limit", type=int, default=100, help="objects of each set (default 100)")
    parser.add_argument("--sets", nargs="+", default=SET_NAMES, help="sets to score (default: all)")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args(arguments)
    try:
        run(options)
    except InputError as error:
        print(f"training.evaluate: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def run(options: argparse.Namespace) -> None:
    """Evaluate, print the table and write the JSON file."""
    from sam2_core.build import load_model

    classical = read_classical(options.classical, options.limit) if options.classical else {}
    model = load_model(options.model, device=options.device, config=options.config)
    begin = time.perf_counter()
    scores: Scores = defaultdict(lambda: defaultdict(list))
    planes: dict[str, int] = {}
    for name in options.sets:
        sequences = load_part(options.data, "validation", [name])
        score_images(model, image_tasks(sequences, options.limit), scores)
        tasks = propagation_tasks(sequences)
        score_propagation(model, tasks, scores)
        planes |= {task.set: max(len(t.frames) for t in tasks if t.set == task.set) - 1 for task in tasks}
        print(f"{name}: {time.perf_counter() - begin:.0f} s since the start", file=sys.stderr, flush=True)
    report = {
        "model": str(options.model),
        "image_size": int(model.image_size),
        "limit": options.limit,
        "seconds": round(time.perf_counter() - begin),
        "sets": summarise(scores, classical, planes),
    }
    write_json(options.out, report)
    print(markdown(report["sets"]))


def score_images(
    model: SAM2Base,
    tasks: Iterable[ImageTask],
    scores: Scores,
    clicks: int = max(CLICK_COUNTS),
    look: Callable[[Case], None] | None = None,
) -> None:
    """Add the IoU of each object with a box, and after 1, 3 and 5 clicks.

    With more than five `clicks` also the number it takes, `clicks` at most, to reach an IoU of 0.85 and 0.9. `look`
    is called with what the first click found.
    """
    from sam2_core.predict.image_predictor import SAM2ImagePredictor

    predictor = SAM2ImagePredictor(model)
    for _, group in groupby(tasks, key=lambda task: (task.set, task.image_name)):
        objects = list(group)
        image = objects[0].image
        predictor.set_image(image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=-1))
        for task in objects:
            found = scores[task.set]
            masks, _, _ = predictor.predict(box=np.array(task.box, float), multimask_output=False)
            found["box"].append(iou(masks[0] > 0, task.mask))
            further = clicks > max(CLICK_COUNTS)
            goal = max(CLICK_GOALS.values()) if further else None
            ious = click_ious(predictor, task.mask, clicks, goal, look and partial(_look_at_first, look, task))
            for count in CLICK_COUNTS:
                found[f"clicks{count}"].append(ious[count])
            for name, goal in CLICK_GOALS.items() if further else ():
                # if there are fewer IoUs than `clicks`, one of them reaches every goal
                found[name].append(number_of_clicks(np.array(list(ious.values())), goal))


def _look_at_first(
    look: Callable[[Case], None], task: ImageTask, points: list[tuple[int, int]], mask: np.ndarray, score: float
) -> None:
    if len(points) == 1:
        look(Case(task.image_name, task.image, task.mask, mask, score, points[0]))


def click_ious(
    predictor: Any,
    truth: np.ndarray,
    clicks: int,
    goal: float | None = None,
    look: Callable[[list[tuple[int, int]], np.ndarray, float], None] | None = None,
) -> dict[int, float]:
    """IoU after each of the simulated clicks on the image that the predictor holds.

    With a `goal` no more clicks are made, once there were five, than it takes to reach that IoU. `look` is called
    with the clicks so far, the mask and its IoU.

    The first click is ambiguous: of its three masks the one with the best predicted IoU is taken. Later clicks add
    to the earlier ones, with the logits of the mask so far, and give one mask.
    """
    points: list[tuple[int, int]] = []
    labels: list[int] = []
    mask, logits = None, None
    ious: dict[int, float] = {}
    for count in range(1, clicks + 1):
        x, y, label = next_click(truth, mask)
        points.append((x, y))
        labels.append(label)
        masks, predicted, low_res = predictor.predict(
            point_coords=np.array(points, float),
            point_labels=np.array(labels),
            mask_input=logits,
            multimask_output=count == 1,
        )
        best = int(np.argmax(predicted))
        mask, logits = masks[best] > 0, low_res[best][None]
        ious[count] = iou(mask, truth)
        if look is not None:
            look(points, mask, ious[count])
        if goal is not None and count >= max(CLICK_COUNTS) and max(ious.values()) >= goal:
            break
    return ious


def score_propagation(
    model: SAM2Base,
    tasks: list[PropagationTask],
    scores: Scores,
    progress: bool = True,
    look: Callable[[Case], None] | None = None,
) -> None:
    """Add the Dice of each object over the planes or frames its first mask is carried through.

    `look` is called with what was found on each labelled plane.
    """
    if not tasks:
        return
    from sam2_core.predict.video_predictor import SAM2VideoPredictor

    predictor = SAM2VideoPredictor(model)
    for task in tasks:
        state = predictor.init_state(task.frames)
        for i, truth in enumerate(task.masks):
            predictor.add_new_mask(state, 0, i + 1, truth[0])
        carried = np.zeros_like(task.masks)
        for t, ids, logits in predictor.propagate_in_video(state, progress=progress):
            for i, mask in zip(ids, (logits[:, 0] > 0).cpu().numpy(), strict=True):
                carried[i - 1, t] = mask
        for truth, prediction in zip(task.masks, carried, strict=True):
            scores[task.set]["propagation"].append(pooled_dice(truth, prediction, task.labelled))
            if look is not None:
                for t in np.flatnonzero(task.labelled)[1:]:
                    score = iou(prediction[t], truth[t])
                    look(Case(f"{task.name}+{t}", task.frames[t], truth[t], prediction[t], score))


def read_classical(path: Path, limit: int) -> dict[str, Any]:
    """The classical scores by set and prompt; they must be of the same objects."""
    try:
        report = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise InputError(
            f"{path} is no file of classical scores; write it with python -m training.classical"
        ) from error
    if report["limit"] != limit:
        raise InputError(f"{path} is of --limit {report['limit']}, not {limit}; use the same number")
    return report["sets"]


def summarise(scores: Scores, classical: dict[str, Any], planes: dict[str, int]) -> dict[str, Any]:
    """Means by set and prompt, with the best classical method of each."""
    sets: dict[str, Any] = {}
    for name, prompts in scores.items():
        for prompt, values in prompts.items():
            entry: dict[str, Any] = {"objects": len(values), "score": round(float(np.mean(values)), 4)}
            methods = classical.get(name, {}).get(prompt, {}).get("methods")
            if methods:
                entry["classical_method"] = max(methods, key=methods.get)
                entry["classical"] = methods[entry["classical_method"]]
            if prompt == "propagation":
                entry["planes"] = planes[name]
            sets.setdefault(name, {})[prompt] = entry
    return sets


def markdown(sets: dict[str, Any]) -> str:
    """Markdown tables for images and propagation: the model's score and the best classical method's, then its name."""
    lines = [
        f"| set (mean IoU: model / best classical) | objects | {' | '.join(IMAGE_PROMPTS.values())} |",
        "|---|--:" + "|--:" * len(IMAGE_PROMPTS) + "|",
    ]
    for name, prompts in sets.items():
        if "box" in prompts:
            cells = [_cell(prompts[prompt]) for prompt in IMAGE_PROMPTS]
            lines.append(f"| {name} | {prompts['box']['objects']} | {' | '.join(cells)} |")
    lines += ["", "| set (mean Dice) | objects | planes or frames | model | best classical |", "|---|--:|--:|--:|--:|"]
    for name, prompts in sets.items():
        if entry := prompts.get("propagation"):
            best = f"{entry['classical']:.3f} ({entry['classical_method']})" if "classical" in entry else ""
            lines.append(f"| {name} | {entry['objects']} | {entry['planes']} | {entry['score']:.3f} | {best} |")
    named = {name: p for name, p in sets.items() if "classical_method" in p.get("box", {})}
    if named:
        lines += ["", f"| best classical method | {' | '.join(IMAGE_PROMPTS.values())} |", "|---|" + "---|" * 4]
    for name, prompts in named.items():
        lines.append(f"| {name} | {' | '.join(prompts[prompt]['classical_method'] for prompt in IMAGE_PROMPTS)} |")
    return "\n".join(lines)


def _cell(entry: dict[str, Any]) -> str:
    return f"{entry['score']:.3f}" + (f" / {entry['classical']:.3f}" if "classical" in entry else "")


if __name__ == "__main__":
    main()

"""Score every classical method on the validation parts: ``python -m training.classical --data DIR --out FILE``.

The JSON file holds, for each set and prompt, the mean score of every method; ``training.evaluate`` shows the best.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

import numpy as np

from sam2_core.metrics import iou
from sam2_core.volume.files import write_json
from training.classical.boxes import BOX_METHODS
from training.classical.clicks import ClickMethods
from training.classical.regions import to_grey
from training.classical.steps import STEP_METHODS, propagate
from training.dataset.labelled_sets import SET_NAMES
from training.dataset.splits import load_part
from training.tasks import (
    ImageTask,
    PropagationTask,
    image_tasks,
    next_click,
    pooled_dice,
    propagation_tasks,
)

# set, prompt, method: the scores of all objects
Scores = dict[str, dict[str, dict[str, list[float]]]]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="folder of the labelled sets")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--limit", type=int, default=100, help="objects of each set (default 100)")
    parser.add_argument("--sets", nargs="+", default=SET_NAMES, help="sets to score (default: all)")
    options = parser.parse_args(arguments)

    scores: Scores = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for name in options.sets:
        begin = time.perf_counter()
        sequences = load_part(options.data, "validation", [name])
        score_propagation(propagation_tasks(sequences), scores)
        score_images(image_tasks(sequences, options.limit), scores)
        print(f"{name}: {time.perf_counter() - begin:.0f} s", flush=True)
        write(options.out, scores, options.limit)


def score_images(tasks: Iterable[ImageTask], scores: Scores) -> None:
    """Add the IoU of every method with a box and after 1, 3 and 5 clicks."""
    for _, group in groupby(tasks, key=lambda task: (task.set, task.image_name)):
        objects = list(group)
        grey = to_grey(objects[0].image)
        click_methods = ClickMethods(objects[0].image).methods
        for task in objects:
            found = scores[task.set]
            for name, box_method in BOX_METHODS.items():
                found["box"][name].append(iou(box_method(grey, task.box), task.mask))
            for name, click_method in click_methods.items():
                clicks, mask = [], None
                for count in range(1, 6):
                    clicks.append(next_click(task.mask, mask))
                    mask = click_method(clicks)
                    if count in (1, 3, 5):
                        found[f"clicks{count}"][name].append(iou(mask, task.mask))


def score_propagation(tasks: Iterable[PropagationTask], scores: Scores) -> None:
    """Add the Dice of every method that carries the first mask through the planes."""
    for task in tasks:
        frames = to_grey(task.frames)
        for truth in task.masks:
            for name, method in STEP_METHODS.items():
                carried = propagate(method, frames, truth[0])
                scores[task.set]["propagation"][name].append(pooled_dice(truth, carried, task.labelled))


def write(path: Path, scores: Scores, limit: int) -> None:
    """Write means and numbers of objects, beside the file first and then in its place."""
    means = {
        set_name: {
            prompt: {
                "objects": len(next(iter(methods.values()))),
                "methods": {name: round(float(np.mean(values)), 4) for name, values in methods.items()},
            }
            for prompt, methods in prompts.items()
        }
        for set_name, prompts in scores.items()
    }
    write_json(path, {"limit": limit, "sets": means})


if __name__ == "__main__":
    main()

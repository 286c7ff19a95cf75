"""An annotator of a stack: one click becomes masks on all frames."""

from __future__ import annotations

import numpy as np

from ls_backend.demo_projects import image_config, png
from tests.e2e.label_studio.seen import at_size, iou, stored_masks, true_nucleus

PLACE = (87, 74)  # x, y of a nucleus on the first frame
SIZE = (160, 200)


def test_a_click_on_one_frame_gives_masks_on_all(ground, annotator, frames, picture):
    project = ground.new_project("Nuclei in time", image_config(["Nucleus"], stack=True))
    addresses = [ground.projects.upload(project, f"nuclei-{i}.png", png(frame)) for i, frame in enumerate(frames)]
    [task] = ground.projects.add_tasks(project, [{"frames": addresses}])
    annotator.open(project, task)
    annotator.accept_at_once(True)
    annotator.take("key-point")
    annotator.click(*PLACE)
    assert annotator.regions() == len(frames)

    seen = []
    for index in range(len(frames)):
        annotator.show_frame(index)
        seen.append(at_size(annotator.seen_mask(), SIZE))
    picture(annotator, "05-on-another-frame")
    assert iou(seen[0], true_nucleus(0, *PLACE, SIZE)) > 0.5
    assert all(mask.any() for mask in seen)
    assert not np.array_equal(seen[0], seen[-1]), "the nucleus moves"
    annotator.submit()

    [annotation] = ground.annotations(task)
    assert sorted(region["item_index"] for region in annotation["result"]) == list(range(len(frames)))
    [stored] = stored_masks(ground.stored(task))  # one object on all frames
    assert stored.shape == frames.shape
    print([(iou(a,b), a.sum(), b.sum()) for a,b in zip(seen,stored)])
    from PIL import Image
    Image.fromarray(np.concatenate([np.concatenate([a,b],1) for a,b in zip(seen,stored)]).astype(np.uint8)*255).save('/tmp/ls5/u/stack_cmp.png')
    for shown, mask in zip(seen, stored):
        assert iou(shown, mask) > 0.7

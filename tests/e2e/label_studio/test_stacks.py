"""An annotator of a stack: one click becomes masks on all frames."""

from __future__ import annotations

from ls_backend.demo_projects import image_config, png
from tests.e2e.label_studio.seen import at_size, iou, stored_masks, true_nucleus

PLACE = (87, 74)  # x, y of a nucleus on the first frame


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
        seen.append(at_size(annotator.seen_mask()))
    picture(annotator, "03-stack")
    for index, mask in enumerate(seen):
        assert iou(mask, true_nucleus(*PLACE, frame=index)) > 0.5
    annotator.submit()

    [annotation] = ground.annotations(task)
    assert sorted(region["item_index"] for region in annotation["result"]) == list(range(len(frames)))
    [stored] = stored_masks(ground.stored(task))  # one object on all frames
    assert stored.shape == frames.shape
    for shown, mask in zip(seen, stored):
        assert iou(shown, mask) > 0.7

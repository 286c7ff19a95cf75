"""The calls of facebookresearch/sam2's example notebooks, with other names imported and nothing else changed."""

import inspect

import numpy as np
import pytest
import torch
from PIL import Image

from sam2_core import (
    SAM2AutomaticMaskGenerator,
    SAM2ImagePredictor,
    SAM2VideoPredictor,
    build_sam2,
    build_sam2_hf,
    build_sam2_video_predictor,
    build_sam2_video_predictor_hf,
)

SMALL = ["++model.image_size=64"]
CONFIG = "configs/nano/cells-nano.yaml"


@pytest.fixture(scope="module")
def checkpoint(small_model, tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoints") / "model.pt"
    torch.save({"model": small_model.state_dict()}, path)
    return str(path)


@pytest.fixture(scope="module")
def image(movie):
    return np.array(Image.fromarray(movie[0]).convert("RGB"))


class TestImageNotebook:
    @pytest.fixture(scope="class")
    def predictor(self, checkpoint, image):
        device = torch.device("cpu")
        predictor = SAM2ImagePredictor(build_sam2(CONFIG, checkpoint, device=device, hydra_overrides_extra=SMALL))
        predictor.set_image(image)
        return predictor

    def test_the_embedding_is_looked_at(self, predictor):
        assert predictor._features["image_embed"].shape == (1, 128, 4, 4)
        assert predictor._features["image_embed"][-1].shape == (128, 4, 4)

    def test_one_point_sorted_by_score_then_refined(self, predictor):
        point, label = np.array([[20, 12]]), np.array([1])
        masks, scores, logits = predictor.predict(point_coords=point, point_labels=label, multimask_output=True)
        order = np.argsort(scores)[::-1]
        masks, scores, logits = masks[order], scores[order], logits[order]
        assert masks.shape == (3, 40, 56)
        for mask in masks:
            assert set(np.unique(mask.astype(np.uint8))) <= {0, 1}
        best = logits[np.argmax(scores), :, :]
        masks, scores, _ = predictor.predict(
            point_coords=np.array([[20, 12], [40, 30]]),
            point_labels=np.array([1, 0]),
            mask_input=best[None, :, :],
            multimask_output=False,
        )
        assert masks.shape == (1, 40, 56)
        assert scores.shape == (1,)

    def test_a_box_with_a_leading_axis(self, predictor):
        masks, scores, _ = predictor.predict(
            point_coords=None, point_labels=None, box=np.array([10, 5, 50, 30])[None, :], multimask_output=False
        )
        assert masks.shape == (1, 40, 56)
        assert scores.shape == (1,)

    def test_a_point_with_a_box(self, predictor):
        masks, _, _ = predictor.predict(
            point_coords=np.array([[20, 12]]),
            point_labels=np.array([0]),
            box=np.array([10, 5, 50, 30]),
            multimask_output=False,
        )
        assert masks.shape == (1, 40, 56)

    def test_several_boxes(self, predictor):
        boxes = np.array([[1, 2, 30, 30], [10, 5, 50, 30], [4, 4, 20, 20], [0, 0, 55, 39]])
        masks, scores, _ = predictor.predict(point_coords=None, point_labels=None, box=boxes, multimask_output=False)
        assert masks.shape == (4, 1, 40, 56)
        assert scores.shape == (4, 1)
        assert masks[0].squeeze(0).shape == (40, 56)

    def test_batches_of_images_with_boxes_and_with_points(self, predictor, image, movie):
        predictor.set_image_batch([image, movie[5, :30]])
        boxes = [np.array([[1, 2, 30, 30], [4, 4, 20, 20]]), np.array([[0, 0, 55, 29], [4, 4, 9, 9], [2, 2, 8, 8]])]
        masks, scores, _ = predictor.predict_batch(None, None, box_batch=boxes, multimask_output=False)
        assert [m.shape for m in masks] == [(2, 1, 40, 56), (3, 1, 30, 56)]
        assert [s.shape for s in scores] == [(2, 1), (3, 1)]
        points = [np.array([[[20, 12]], [[5, 5]]]), np.array([[[9, 9]], [[30, 20]]])]
        labels = [np.array([[1], [1]]), np.array([[1], [1]])]
        masks, scores, _ = predictor.predict_batch(points, labels, box_batch=None, multimask_output=True)
        best = [m[range(len(m)), np.argmax(s, axis=-1)] for m, s in zip(masks, scores)]
        assert [b.shape for b in best] == [(2, 40, 56), (2, 30, 56)]
        predictor.set_image(image)


class TestVideoNotebook:
    @pytest.fixture(scope="class")
    def predictor(self, checkpoint):
        return build_sam2_video_predictor(CONFIG, checkpoint, device=torch.device("cpu"), hydra_overrides_extra=SMALL)

    @pytest.fixture(scope="class")
    def folder(self, movie, tmp_path_factory):
        folder = tmp_path_factory.mktemp("bedroom")
        for i, frame in enumerate(movie[:5]):
            Image.fromarray(frame).save(folder / f"{i:05d}.jpg")
        return str(folder)

    def segments(self, predictor, state):
        found = {}
        for frame, ids, logits in predictor.propagate_in_video(state):
            found[frame] = {obj: (logits[i] > 0.0).cpu().numpy() for i, obj in enumerate(ids)}
        return found

    def test_one_object_clicked_refined_and_corrected(self, predictor, folder):
        state = predictor.init_state(video_path=folder)
        predictor.reset_state(state)
        points, labels = np.array([[20, 12]], dtype=np.float32), np.array([1], np.int32)
        for _ in range(2):
            _, ids, logits = predictor.add_new_points_or_box(
                inference_state=state, frame_idx=0, obj_id=1, points=points, labels=labels
            )
            assert ids == [1]
            assert (logits[0] > 0.0).cpu().numpy().shape == (1, 40, 56)
            points, labels = np.array([[20, 12], [30, 25]], dtype=np.float32), np.array([1, 1], np.int32)
        found = self.segments(predictor, state)
        assert list(found) == [0, 1, 2, 3, 4]
        assert found[3][1].shape == (1, 40, 56)
        _, _, logits = predictor.add_new_points_or_box(
            inference_state=state,
            frame_idx=3,
            obj_id=1,
            points=np.array([[8, 30]], dtype=np.float32),
            labels=np.array([0], np.int32),
        )
        assert logits.shape == (1, 1, 40, 56)
        assert list(self.segments(predictor, state)) == [0, 1, 2, 3, 4]

    def test_a_box_then_a_click_within_it(self, predictor, folder):
        state = predictor.init_state(video_path=folder)
        box = np.array([10, 5, 50, 30], dtype=np.float32)
        predictor.add_new_points_or_box(inference_state=state, frame_idx=0, obj_id=4, box=box)
        _, ids, _ = predictor.add_new_points_or_box(
            inference_state=state,
            frame_idx=0,
            obj_id=4,
            points=np.array([[20, 12]], dtype=np.float32),
            labels=np.array([1], np.int32),
            box=box,
        )
        assert ids == [4]
        assert set(self.segments(predictor, state)[4]) == {4}

    def test_two_objects(self, predictor, folder):
        state = predictor.init_state(video_path=folder)
        for obj, point in ((2, [20, 12]), (3, [40, 30])):
            _, ids, logits = predictor.add_new_points_or_box(
                inference_state=state,
                frame_idx=0,
                obj_id=obj,
                points=np.array([point], dtype=np.float32),
                labels=np.array([1], np.int32),
            )
        assert ids == [2, 3]
        assert logits.shape == (2, 1, 40, 56)
        assert set(self.segments(predictor, state)[2]) == {2, 3}


class TestAutomaticNotebook:
    def test_both_generators(self, checkpoint, image):
        model = build_sam2(
            CONFIG, checkpoint, device=torch.device("cpu"), apply_postprocessing=False, hydra_overrides_extra=SMALL
        )
        plain = SAM2AutomaticMaskGenerator(
            model, points_per_side=4, pred_iou_thresh=0.0, stability_score_thresh=0.0
        ).generate(image)
        keys = {"segmentation", "area", "bbox", "predicted_iou", "point_coords", "stability_score", "crop_box"}
        assert set(plain[0]) == keys
        overlay = np.ones((*plain[0]["segmentation"].shape, 4))
        for record in sorted(plain, key=lambda x: x["area"], reverse=True):
            overlay[record["segmentation"]] = [0, 0, 1, 0.5]
        assert (overlay[..., 0] == 0).any()
        generator = SAM2AutomaticMaskGenerator(
            model=model,
            points_per_side=4,
            points_per_batch=8,
            pred_iou_thresh=0.0,
            stability_score_thresh=0.1,
            stability_score_offset=0.1,
            crop_n_layers=1,
            box_nms_thresh=0.7,
            crop_n_points_downscale_factor=2,
            min_mask_region_area=2.0,
            use_m2m=True,
        )
        assert all(set(record) == keys for record in generator.generate(image))


# parameter names and defaults of sam2 1.1.0, in order; ours may have more after them. No default: ours is wider
SIGNATURES = {
    build_sam2: "config_file, ckpt_path=None, device, mode='eval', hydra_overrides_extra, apply_postprocessing=True",
    build_sam2_video_predictor: "config_file, ckpt_path=None, device, mode='eval', hydra_overrides_extra, "
    "apply_postprocessing=True, vos_optimized=False",
    build_sam2_hf: "model_id",
    build_sam2_video_predictor_hf: "model_id",
    SAM2ImagePredictor: "sam_model, mask_threshold=0.0, max_hole_area=0, max_sprinkle_area=0",
    SAM2ImagePredictor.from_pretrained: "model_id",
    SAM2ImagePredictor.set_image: "self, image",
    SAM2ImagePredictor.set_image_batch: "self, image_list",
    SAM2ImagePredictor.predict: "self, point_coords=None, point_labels=None, box=None, mask_input=None, "
    "multimask_output=True, return_logits=False, normalize_coords=True",
    SAM2ImagePredictor.predict_batch: "self, point_coords_batch=None, point_labels_batch=None, box_batch=None, "
    "mask_input_batch=None, multimask_output=True, return_logits=False, normalize_coords=True",
    SAM2VideoPredictor.from_pretrained: "model_id",
    SAM2VideoPredictor.init_state: "self, video_path, offload_video_to_cpu=False, offload_state_to_cpu=False, "
    "async_loading_frames=False",
    SAM2VideoPredictor.add_new_points_or_box: "self, inference_state, frame_idx, obj_id, points=None, labels=None, "
    "clear_old_points=True, normalize_coords=True, box=None",
    SAM2VideoPredictor.add_new_mask: "self, inference_state, frame_idx, obj_id, mask",
    SAM2VideoPredictor.propagate_in_video: "self, inference_state, start_frame_idx=None, "
    "max_frame_num_to_track=None, reverse=False",
    SAM2VideoPredictor.propagate_in_video_preflight: "self, inference_state",
    SAM2VideoPredictor.clear_all_prompts_in_frame: "self, inference_state, frame_idx, obj_id, need_output=True",
    SAM2VideoPredictor.remove_object: "self, inference_state, obj_id, strict=False, need_output=True",
    SAM2VideoPredictor.reset_state: "self, inference_state",
    SAM2AutomaticMaskGenerator: "model, points_per_side=32, points_per_batch=64, pred_iou_thresh, "
    "stability_score_thresh, stability_score_offset=1.0, mask_threshold=0.0, box_nms_thresh=0.7, "
    f"crop_n_layers=0, crop_nms_thresh=0.7, crop_overlap_ratio={512 / 1500}, crop_n_points_downscale_factor=1, "
    "point_grids=None, min_mask_region_area=0, output_mode='binary_mask', use_m2m=False, multimask_output=True",
    SAM2AutomaticMaskGenerator.from_pretrained: "model_id",
    SAM2AutomaticMaskGenerator.generate: "self, image",
}


@pytest.mark.parametrize("function", SIGNATURES, ids=lambda f: f.__qualname__)
def test_signature(function):
    parameters = list(inspect.signature(function).parameters.values())
    for parameter, expected in zip(parameters, SIGNATURES[function].split(", ")):
        name, equals, default = expected.partition("=")
        assert parameter.name == name
        if equals:
            assert repr(parameter.default) == default
    assert len(parameters) >= len(SIGNATURES[function].split(", "))

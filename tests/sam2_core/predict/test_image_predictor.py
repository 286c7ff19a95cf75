"""The image predictor: what counts as an image, batches, embeddings on disk, and what is refused."""

import numpy as np
import pytest
import torch
from PIL import Image

from sam2_core.errors import InputError
from sam2_core.predict.image_predictor import SAM2ImagePredictor, as_float

POINT = {"point_coords": np.array([[20.0, 12.0]]), "point_labels": np.array([1])}


@pytest.fixture(scope="module")
def image(movie):
    return movie[0]


@pytest.fixture
def predictor(small_model, image):
    predictor = SAM2ImagePredictor(small_model)
    predictor.set_image(image)
    return predictor


def logits_of(predictor, **prompt):
    return predictor.predict(**(prompt or POINT), return_logits=True)[0]


def test_answers_have_the_images_size(predictor):
    masks, ious, low = predictor.predict(**POINT)
    assert masks.shape == (3, 40, 56)
    assert masks.dtype == np.float32
    assert ious.shape == (3,)
    assert low.shape == (3, 16, 16)
    assert low.dtype == np.float32
    masks, ious, low = predictor.predict(**POINT, multimask_output=False)
    assert (masks.shape, ious.shape, low.shape) == ((1, 40, 56), (1,), (1, 16, 16))


def test_masks_are_the_logits_above_the_threshold(small_model, image):
    for threshold in (0.0, 0.5):
        predictor = SAM2ImagePredictor(small_model, mask_threshold=threshold)
        predictor.set_image(image)
        np.testing.assert_array_equal(predictor.predict(**POINT)[0], logits_of(predictor) > threshold)


def test_a_batch_answers_as_one_by_one(predictor):
    boxes = np.array([[2.0, 3, 30, 30], [10, 10, 50, 38], [0, 0, 55, 39]])
    masks, ious, low = predictor.predict(box=boxes, multimask_output=False, return_logits=True)
    assert (masks.shape, ious.shape, low.shape) == ((3, 1, 40, 56), (3, 1), (3, 1, 16, 16))
    for i, box in enumerate(boxes):
        alone = predictor.predict(box=box, multimask_output=False, return_logits=True)
        np.testing.assert_allclose(masks[i], alone[0], atol=1e-3)
        np.testing.assert_allclose(ious[i], alone[1], atol=1e-5)


def test_images_in_a_batch_answer_as_one_by_one(small_model, movie):
    images = [movie[0], movie[3, :30, :44]]
    predictor = SAM2ImagePredictor(small_model)
    predictor.set_image_batch(images)
    points = [POINT["point_coords"], np.array([[[5.0, 5]], [[30, 20]]])]
    labels = [POINT["point_labels"], np.array([[1], [0]])]
    masks, ious, low = predictor.predict_batch(points, labels, return_logits=True)
    assert [m.shape for m in masks] == [(3, 40, 56), (2, 3, 30, 44)]
    for i, image in enumerate(images):
        predictor.set_image(image)
        alone = predictor.predict(points[i], labels[i], return_logits=True)
        np.testing.assert_allclose(masks[i], alone[0], atol=1e-3)
        np.testing.assert_allclose(ious[i], alone[1], atol=1e-5)
        np.testing.assert_allclose(low[i], alone[2], atol=1e-3)


def test_a_box_and_its_corners_as_points_are_the_same(predictor):
    box = logits_of(predictor, box=np.array([5.0, 6, 40, 30]))
    corners = logits_of(predictor, point_coords=np.array([[5.0, 6], [40, 30]]), point_labels=np.array([2, 3]))
    np.testing.assert_allclose(box, corners, atol=1e-4)


def test_coordinates_may_be_fractions_of_the_image(predictor):
    fractions = logits_of(
        predictor, point_coords=np.array([[20 / 56, 12 / 40]]), point_labels=np.array([1]), normalize_coords=False
    )
    np.testing.assert_allclose(fractions, logits_of(predictor), atol=1e-4)


def test_a_prompt_may_be_a_list_or_a_tensor(predictor):
    expected = logits_of(predictor)
    as_lists = logits_of(predictor, point_coords=[[20, 12]], point_labels=[1])
    np.testing.assert_array_equal(as_lists, expected)
    as_tensors = logits_of(predictor, point_coords=torch.tensor([[20.0, 12.0]]), point_labels=torch.tensor([1]))
    np.testing.assert_array_equal(as_tensors, expected)


def test_the_prompt_counts(predictor):
    here = logits_of(predictor)
    for other in (
        {"point_coords": POINT["point_coords"] + 9, "point_labels": POINT["point_labels"]},
        {"point_coords": POINT["point_coords"], "point_labels": np.array([0])},
        POINT | {"box": np.array([1.0, 2, 30, 30])},
        POINT | {"mask_input": predictor.predict(**POINT)[2][:1]},
    ):
        assert np.abs(logits_of(predictor, **other) - here).max() > 1e-3


def test_embedding_saved_and_restored(predictor, small_model, tmp_path):
    path = tmp_path / "embedding.safetensors"
    predictor.save_embedding(path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    other = SAM2ImagePredictor(small_model)
    other.load_embedding(path)
    np.testing.assert_array_equal(logits_of(other), logits_of(predictor))
    assert torch.equal(other.get_image_embedding(), predictor.get_image_embedding())


def test_embeddings_of_a_batch_are_restored_as_a_batch(small_model, movie, tmp_path):
    predictor = SAM2ImagePredictor(small_model)
    predictor.set_image_batch([movie[0], movie[1, :20]])
    predictor.save_embedding(tmp_path / "batch")
    other = SAM2ImagePredictor(small_model)
    other.load_embedding(tmp_path / "batch")
    boxes = [np.array([1.0, 2, 30, 18])] * 2
    before, after = (p.predict_batch(box_batch=boxes, return_logits=True)[0] for p in (predictor, other))
    assert [m.shape for m in after] == [(3, 40, 56), (3, 20, 56)]
    for a, b in zip(before, after):
        np.testing.assert_array_equal(a, b)


def test_embedding_of_another_model_is_refused(predictor, make_model, tmp_path):
    predictor.save_embedding(tmp_path / "embedding")
    other = SAM2ImagePredictor(make_model(image_size=96))
    with pytest.raises(InputError, match="of another model"):
        other.load_embedding(tmp_path / "embedding")


def test_files_that_are_no_embedding_are_refused(predictor, tmp_path):
    with pytest.raises(InputError, match="not a saved embedding"):
        predictor.load_embedding(tmp_path / "none")
    (tmp_path / "text").write_text("no embedding")
    with pytest.raises(InputError, match="not a saved embedding"):
        predictor.load_embedding(tmp_path / "text")
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(1)}, tmp_path / "weights.safetensors")
    with pytest.raises(InputError, match="of another model"):
        predictor.load_embedding(tmp_path / "weights.safetensors")


def test_grey_is_three_equal_channels(small_model, image):
    predictor = SAM2ImagePredictor(small_model)
    grey = image[..., 0]
    predictor.set_image(grey)
    expected = logits_of(predictor)
    for same in (np.stack([grey] * 3, -1), grey[..., None], Image.fromarray(grey), grey / 255, grey / np.float32(255)):
        predictor.set_image(same)
        np.testing.assert_allclose(logits_of(predictor), expected, atol=1e-3)


def test_alpha_is_left_out(small_model, image):
    predictor = SAM2ImagePredictor(small_model)
    predictor.set_image(image)
    expected = logits_of(predictor)
    predictor.set_image(np.dstack([image, np.full(image.shape[:2], 128, np.uint8)]))
    np.testing.assert_array_equal(logits_of(predictor), expected)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float64])
def test_other_types_are_stretched_to_their_range(image, dtype):
    wide = image.astype(dtype) * 100 + 1000
    stretched = as_float(wide)
    assert stretched.dtype == np.float32
    assert stretched.min() == 0
    assert stretched.max() == pytest.approx(1)
    middle = (wide > 8000) & (wide < 20000)
    assert np.corrcoef(stretched[middle], wide[middle])[0, 1] > 0.999


def test_nan_is_black_and_constants_are_no_trouble():
    image = np.full((8, 9), 0.5)
    image[2, 3] = np.nan
    assert as_float(image)[2, 3] == 0
    assert np.isfinite(as_float(np.full((8, 9), np.nan))).all()
    assert np.isfinite(as_float(np.full((8, 9), 70000, np.int32))).all()
    assert as_float(np.eye(5, dtype=bool)).sum() == 5


@pytest.mark.parametrize("shape", [(8,), (8, 9, 2), (8, 9, 5), (2, 8, 9, 3), (0, 9), (8, 0, 3)])
def test_what_is_no_image_is_refused(small_model, shape):
    with pytest.raises(InputError, match="must have the shape"):
        SAM2ImagePredictor(small_model).set_image(np.zeros(shape, np.uint8))


def test_prompts_that_do_not_fit_are_refused(predictor):
    with pytest.raises(InputError, match="points and their labels belong together"):
        predictor.predict(point_coords=np.array([[1.0, 2]]))
    with pytest.raises(InputError, match="2 points need as many labels, got 1"):
        predictor.predict(point_coords=np.array([[1.0, 2], [3, 4]]), point_labels=np.array([1]))


def test_an_image_must_be_set_first(small_model, predictor):
    fresh = SAM2ImagePredictor(small_model)
    for call in (fresh.predict, fresh.get_image_embedding, fresh.predict_batch):
        with pytest.raises(RuntimeError, match="set an image"):
            call()
    predictor.reset_predictor()
    with pytest.raises(RuntimeError, match="set an image"):
        predictor.predict(**POINT)


def test_batches_need_their_own_calls(predictor):
    with pytest.raises(RuntimeError, match="set_image_batch"):
        predictor.predict_batch([POINT["point_coords"]], [POINT["point_labels"]])
    with pytest.raises(InputError, match="at least one image"):
        predictor.set_image_batch([])


def test_holes_are_filled_on_the_low_resolution_mask(small_model, image, predictor):
    cleaned = SAM2ImagePredictor(small_model, max_hole_area=16 * 16, max_sprinkle_area=0)
    cleaned.set_image(image)
    # every background region is small enough
    assert predictor.predict(**POINT)[0].mean() < 1
    assert cleaned.predict(**POINT)[0].all()
    emptied = SAM2ImagePredictor(small_model, max_sprinkle_area=16 * 16)
    emptied.set_image(image)
    assert not emptied.predict(**POINT)[0].any()


def test_bfloat16_is_close_and_gives_float32(small_model, image, predictor):
    fast = SAM2ImagePredictor(small_model, precision="bfloat16")
    fast.set_image(image)
    masks, ious, low = fast.predict(**POINT, return_logits=True)
    exact = logits_of(predictor)
    assert masks.dtype == ious.dtype == low.dtype == np.float32
    assert 0 < np.abs(masks - exact).mean() < 0.2 * exact.std()


def test_an_autocast_around_the_calls_is_respected(small_model, image, predictor):
    other = SAM2ImagePredictor(small_model)
    with torch.autocast("cpu", torch.bfloat16):
        other.set_image(image)
        masks, ious, _ = other.predict(**POINT, return_logits=True)
    assert masks.dtype == ious.dtype == np.float32
    assert np.abs(masks - logits_of(predictor)).max() > 0


def test_nothing_keeps_a_gradient(predictor):
    assert not predictor.get_image_embedding().requires_grad

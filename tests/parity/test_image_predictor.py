"""Every kind of prompt on images gives the reference's masks, qualities and low-resolution logits."""

import numpy as np
import pytest

pytestmark = pytest.mark.parity

POINT = {"point_coords": np.array([[60.0, 40.0]]), "point_labels": np.array([1])}
POINTS = {"point_coords": np.array([[60.0, 40.0], [20.5, 70.25], [100, 10]]), "point_labels": np.array([1, 0, 1])}
BOX = {"box": np.array([20.0, 15, 90, 80])}
BOXES = {"box": np.array([[20.0, 15, 90, 80], [0, 0, 119, 95], [55, 40, 70, 60]])}
CLICKS = {"point_coords": np.array([[[60.0, 40]], [[20, 70]]]), "point_labels": np.array([[1], [1]])}
BOXES_WITH_CLICKS = {
    "box": BOXES["box"][:2],
    "point_coords": np.array([[[60.0, 40]], [[20, 70]]]),
    "point_labels": np.array([[1], [0]]),
}
NORMALIZED = {"point_coords": np.array([[0.5, 0.25]]), "point_labels": np.array([1]), "normalize_coords": False}

PROMPTS = {
    "point": POINT,
    "points": POINTS,
    "box": BOX,
    "points and box": POINTS | BOX,
    "batch of boxes": BOXES,
    "batch of clicks": CLICKS,
    "batch of boxes with clicks": BOXES_WITH_CLICKS,
    "normalized": NORMALIZED,
    "nothing": {},
}


@pytest.fixture(scope="module")
def predictors(pair, picture):
    theirs, ours = pair.image_predictors()
    theirs.set_image(picture)
    ours.set_image(picture)
    return theirs, ours


@pytest.mark.parametrize("multimask", [True, False])
@pytest.mark.parametrize("kind", PROMPTS)
def test_prompt(predictors, pair, agree, kind, multimask):
    assert pair.theirs.sam_mask_decoder.dynamic_multimask_via_stability
    (masks, ious, low), (our_masks, our_ious, our_low) = (
        p.predict(**PROMPTS[kind], multimask_output=multimask, return_logits=True) for p in predictors
    )
    # before the clamping of the low-resolution logits the scale is that of the masks
    agree(f"{pair.name}: {'candidates' if multimask else 'single mask'}", masks, our_masks)
    assert our_ious.shape == ious.shape
    np.testing.assert_allclose(our_ious, ious, atol=1e-4)
    assert our_low.shape == low.shape
    np.testing.assert_allclose(our_low, low, atol=1e-3 * low.std())


def test_single_mask_without_the_fallback_to_stability(predictors, pair, agree):
    decoders = pair.theirs.sam_mask_decoder, pair.model.sam_mask_decoder
    for decoder in decoders:
        decoder.dynamic_multimask_via_stability = False
    try:
        theirs, ours = (p.predict(**POINT, multimask_output=False, return_logits=True) for p in predictors)
    finally:
        for decoder in decoders:
            decoder.dynamic_multimask_via_stability = True
    agree(f"{pair.name}: single mask", theirs[0], ours[0])


def test_mask_input_with_and_without_points(predictors, pair, agree):
    _, ious, low = predictors[0].predict(**POINT)
    hint = low[np.argmax(ious)][None]
    for prompt in (POINTS, {}):
        theirs, ours = (
            p.predict(**prompt, mask_input=hint, multimask_output=False, return_logits=True) for p in predictors
        )
        agree(f"{pair.name}: mask input", theirs[0], ours[0])


def test_batch_of_mask_inputs(predictors, pair, agree):
    low = predictors[0].predict(**CLICKS, multimask_output=False)[2]
    theirs, ours = (p.predict(**CLICKS, mask_input=low, multimask_output=False, return_logits=True) for p in predictors)
    agree(f"{pair.name}: mask input", theirs[0], ours[0])


def test_thresholded_masks(predictors):
    theirs, ours = (p.predict(**POINTS) for p in predictors)
    logits = predictors[0].predict(**POINTS, return_logits=True)[0]
    sure = np.abs(logits) > 1e-3 * logits.std()
    assert (sure & (logits > 0)).any()
    assert (sure & (logits < 0)).any()
    assert ours[0].dtype == theirs[0].dtype
    np.testing.assert_array_equal(theirs[0][sure], ours[0][sure])


def test_batch_of_images(pair, picture, agree):
    theirs, ours = pair.image_predictors()
    images = [picture, np.ascontiguousarray(picture[::-1, :90])]
    prompts = {
        "point_coords_batch": [CLICKS["point_coords"], POINTS["point_coords"]],
        "point_labels_batch": [CLICKS["point_labels"], POINTS["point_labels"]],
        "box_batch": [BOXES["box"][:2], BOX["box"]],
    }
    answers = []
    for predictor in (theirs, ours):
        predictor.set_image_batch(images)
        answers.append(predictor.predict_batch(**prompts, multimask_output=False, return_logits=True))
    for i in range(2):
        agree(f"{pair.name}: batch of images", answers[0][0][i], answers[1][0][i])
        np.testing.assert_allclose(answers[1][1][i], answers[0][1][i], atol=1e-4)
        assert answers[1][2][i].shape == answers[0][2][i].shape

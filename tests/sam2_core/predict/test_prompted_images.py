"""Prompts on single images: the masks of the video predictor, whoever asks beside, at the cost of what is new."""

import numpy as np
import pytest
import torch

from sam2_core.errors import InputError
from sam2_core.predict.embedding_cache import EmbeddingCache
from sam2_core.predict.prompted_images import ImagePrompt, PromptedImages
from sam2_core.predict.video_predictor import SAM2VideoPredictor


@pytest.fixture(scope="module")
def cells():
    """The model that comes with the package."""
    from sam2_core.build import load_model

    return SAM2VideoPredictor(load_model("cells-nano", device="cpu"))


def discs(seed, size=(96, 128)):
    """An image of bright discs on noise, and their centres (x, y)."""
    rng = np.random.default_rng(seed)
    ys, xs = np.mgrid[: size[0], : size[1]]
    centres = [(24, 30), (70, 40), (100, 70)]
    image = rng.normal(60, 12, size)
    for number, (x, y) in enumerate(centres):
        image[(xs - x) ** 2 + (ys - y) ** 2 <= (9 + 2 * number) ** 2] += 90
    return image.clip(0, 255).astype(np.uint8), centres


def prompt(points=(), labels=(), box=None, mask=None):
    corners = None if box is None else np.array(box, np.float32)
    return ImagePrompt(np.array(points, np.float32).reshape(-1, 2), np.array(labels, np.int32), corners, mask)


def one(image, given, key="image"):
    return key, lambda: image, image.shape[:2], given


def replayed(predictor, image, given):
    """What a user of a video predictor gets for the same: one click after the other."""
    cache = EmbeddingCache(None)
    state = predictor.init_state(image[None], embeddings=cache.of(predictor.embedding_key, "image"))
    if given.box is not None:
        predictor.add_new_points_or_box(state, 0, 1, box=given.box)
    for point, label in zip(given.points, given.labels):
        predictor.add_new_points_or_box(state, 0, 1, points=[point], labels=[label], clear_old_points=False)
    mask = predictor.patches(state, 0)[1].mask(image.shape[:2])
    score = predictor.confidence(state, 0, 1)
    state.close()
    return mask, score


PROMPTS = [
    prompt([[24, 30]], [1]),
    prompt([[24, 30], [30, 36], [60, 60]], [1, 1, 0]),
    prompt(box=[56, 26, 84, 54]),
    prompt([[70, 40], [88, 40]], [1, 0], box=[56, 26, 84, 54]),
    prompt([[5, 90]], [0]),
]


class TestMasks:
    @pytest.mark.parametrize("given", PROMPTS)
    def test_they_are_those_of_the_video_predictor(self, cells, given):
        image, _ = discs(0)
        mask, score = replayed(cells, image, given)
        (answer,) = PromptedImages(cells, EmbeddingCache(None)).answer([one(image, given)])
        assert answer.mask.shape == image.shape
        assert answer.mask.dtype == bool
        np.testing.assert_array_equal(answer.mask, mask)
        assert answer.score == pytest.approx(score if mask.any() else 0, abs=1e-5)

    def test_a_click_finds_the_disc(self, cells):
        image, centres = discs(1)
        (answer,) = PromptedImages(cells, EmbeddingCache(None)).answer([one(image, prompt([centres[2]], [1]))])
        ys, xs = np.mgrid[:96, :128]
        disc = (xs - 100) ** 2 + (ys - 70) ** 2 <= 13**2
        assert (answer.mask & disc).sum() / (answer.mask | disc).sum() > 0.9
        assert 0.5 < answer.score <= 1

    def test_what_is_asked_together_changes_nothing(self, cells):
        asked = []
        for seed, size in enumerate([(96, 128), (128, 110), (700, 600)]):
            image, _ = discs(seed, size)
            asked += [one(image, given, f"image {seed}") for given in PROMPTS]
        cache = EmbeddingCache(None)
        apart = [PromptedImages(cells, cache).answer([each])[0] for each in asked]
        together = PromptedImages(cells, cache).answer(asked)
        for alone, beside in zip(apart, together, strict=True):
            np.testing.assert_array_equal(beside.mask, alone.mask)
            assert beside.score == pytest.approx(alone.score, abs=1e-4)

    def test_a_rough_mask_is_refined(self, cells):
        image, _ = discs(2)
        ys, xs = np.mgrid[:96, :128]
        disc = (xs - 70) ** 2 + (ys - 40) ** 2 <= 11**2
        rough = (abs(xs - 70) <= 12) & (abs(ys - 40) <= 12)

        def agreement(mask):
            return (mask & disc).sum() / (mask | disc).sum()

        prompted = PromptedImages(cells, EmbeddingCache(None))
        refined, clicked = prompted.answer(
            [one(image, prompt(mask=rough)), one(image, prompt([[70, 40]], [1], mask=rough))]
        )
        assert agreement(rough) < 0.7
        assert agreement(refined.mask) > 0.9
        assert agreement(clicked.mask) > 0.9

    def test_an_object_judged_absent_is_empty_and_scores_nothing(self, make_model, movie):
        absent = SAM2VideoPredictor(make_model(object_score=-5.0))
        (answer,) = PromptedImages(absent, EmbeddingCache(None)).answer([one(movie[0], prompt([[20, 20]], [1]))])
        assert not answer.mask.any()
        assert answer.score == 0


@pytest.fixture
def counted(small_model, monkeypatch):
    """Prompted images that note the decoder's batches and the images that are embedded."""
    prompted = PromptedImages(SAM2VideoPredictor(small_model), EmbeddingCache(None))
    prompted.decoded, prompted.embedded = [], []
    segment, forward = small_model.segment, small_model.forward_image

    def decode(embedding, features, points, *args):
        prompted.decoded.append(tuple(points[1].shape))
        return segment(embedding, features, points, *args)

    monkeypatch.setattr(small_model, "segment", decode)
    monkeypatch.setattr(small_model, "forward_image", lambda x: prompted.embedded.append(len(x)) or forward(x))
    return prompted


class TestWork:
    def test_one_more_click_is_one_more_pass_and_one_undone_is_none(self, counted, movie):
        points = [[10, 10], [20, 20], [30, 30]]
        for count, passes in ((1, 1), (2, 2), (3, 3), (2, 3), (3, 3)):
            counted.answer([one(movie[0], prompt(points[:count], [1] * count))])
            assert len(counted.decoded) == passes
        assert counted.decoded == [(1, 1), (1, 2), (1, 3)]
        assert counted.embedded == [1]

    @pytest.mark.parametrize(
        "other",
        [prompt([[10, 10], [20, 21]], [1, 1]), prompt([[10, 10], [20, 20]], [1, 0]),
         prompt([[10, 10], [20, 20]], [1, 1], box=[1, 1, 30, 30])],
    )  # fmt: skip
    def test_what_differs_is_not_taken_for_the_same(self, counted, movie, other):
        first = one(movie[0], prompt([[10, 10], [20, 20]], [1, 1]))
        counted.answer([first])
        counted.decoded.clear()
        (answer,) = counted.answer([one(movie[0], other)])
        assert counted.decoded
        fresh = PromptedImages(counted.predictor, EmbeddingCache(None))
        np.testing.assert_array_equal(answer.mask, fresh.answer([one(movie[0], other)])[0].mask)

    def test_steps_of_a_kind_share_a_pass(self, counted, movie):
        asked = [one(movie[i], prompt([[10, 10], [20, 20]], [1, 0]), f"frame {i}") for i in range(3)]
        counted.answer([*asked, one(movie[0], prompt(box=[1, 1, 30, 30]), "frame 0")])
        assert sorted(counted.decoded) == [(1, 2), (3, 1), (3, 2)]
        assert len(counted.embedded) == 3

    def test_an_image_is_embedded_once(self, counted, movie):
        assert counted.embed("a", lambda: movie[0])
        assert not counted.embed("a", lambda: movie[0])
        counted.answer([("a", pytest.fail, movie[0].shape[:2], prompt([[10, 10]], [1]))])
        assert counted.embedded == [1]

    def test_what_is_remembered_is_bounded(self, counted, movie, monkeypatch):
        from sam2_core.predict import prompted_images

        one_mask = 4 * (64 // 4) ** 2
        monkeypatch.setattr(prompted_images, "_REMEMBERED_BYTES", 3 * one_mask)
        for x in range(8):
            counted.answer([one(movie[0], prompt([[x, x]], [1]))])
        counted.answer([one(movie[0], prompt([[7, 7]], [1]))])
        assert len(counted.decoded) == 8
        counted.answer([one(movie[0], prompt([[0, 0]], [1]))])
        assert len(counted.decoded) == 9


class TestRefusals:
    @pytest.mark.parametrize(
        "given",
        [{}, {"points": [[1, 2]]}, {"labels": [1]}, {"box": [1, 2, 3]}, {"mask": np.zeros((4, 4), bool)}],
        ids=["nothing", "no labels", "no points", "three numbers", "empty mask"],
    )
    def test_a_prompt_that_shows_nothing(self, given):
        with pytest.raises(InputError):
            prompt(**given)

    def test_a_mask_of_another_size(self, counted, movie):
        with pytest.raises(InputError, match="does not fit"):
            counted.answer([one(movie[0], prompt(mask=np.ones((3, 4), bool)))])


def test_answers_are_free_of_gradients_and_of_the_batch(small_model, movie):
    prompted = PromptedImages(SAM2VideoPredictor(small_model), EmbeddingCache(None))
    prompted.answer([one(movie[0], prompt([[10, 10 + i]], [1])) for i in range(4)])
    for kept in prompted._remembered.values():
        assert not kept.logits.requires_grad
        assert kept.logits.untyped_storage().nbytes() == kept.logits.nbytes == 4 * 16**2
    assert torch.is_grad_enabled()

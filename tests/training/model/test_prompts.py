"""Simulated clicks and boxes lie where a user would put them."""

import torch

from training.model.prompts import sample_box, sample_click, sample_correction


def discs(count: int = 16, size: int = 64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    centre = torch.randint(16, 48, (count, 2), generator=generator)
    radius = torch.randint(4, 14, (count,), generator=generator)
    squared = (x[None] - centre[:, 0, None, None]) ** 2 + (y[None] - centre[:, 1, None, None]) ** 2
    return squared < radius[:, None, None] ** 2


def at(mask: torch.Tensor, click: torch.Tensor) -> torch.Tensor:
    x, y = click[:, 0].long().unbind(-1)
    return mask[torch.arange(len(mask)), y, x]


def test_clicks_lie_in_the_region() -> None:
    masks = discs()
    for central in (0.0, 1.0):
        assert at(masks, sample_click(masks, central)).all()


def test_central_clicks_lie_deep() -> None:
    masks = discs()
    click = sample_click(masks, central=1.0)[:, 0]
    for mask, (x, y) in zip(masks, click.tolist()):
        ys, xs = mask.nonzero().unbind(-1)
        radius = (mask.sum() / 3.14159) ** 0.5
        offset = ((xs.float().mean() - x) ** 2 + (ys.float().mean() - y) ** 2) ** 0.5
        assert offset < 0.6 * radius


def test_clicks_anywhere_are_as_likely_on_each_pixel() -> None:
    mask = torch.zeros(64, 64, dtype=torch.bool)
    mask[3, 5] = mask[20:24, 20:24] = True  # a cell with one pixel, and a full one
    torch.manual_seed(0)
    x, y = sample_click(mask.expand(4000, -1, -1), central=0.0)[:, 0].unbind(-1)
    counts = torch.zeros(64, 64).index_put((y.long(), x.long()), torch.ones(()), accumulate=True)[mask]
    assert counts.sum() == 4000
    assert ((counts - 4000 / 17).abs() < 5 * (4000 / 17) ** 0.5).all()


def test_an_empty_region_gets_a_click_too() -> None:
    x, y = sample_click(torch.zeros(3, 32, 64, dtype=torch.bool), central=0.5)[:, 0].unbind(-1)
    assert ((x >= 0) & (x < 64) & (y >= 0) & (y < 32)).all()


def test_corrections_lie_in_the_error_and_say_what_is_true() -> None:
    truth = discs()
    prediction = truth.roll(5, dims=2)
    click, label = sample_correction(prediction, truth, central=0.5)
    assert at(truth ^ prediction, click).all()
    assert torch.equal(label[:, 0].bool(), at(truth, click))


def test_a_right_prediction_is_confirmed_and_an_absent_object_denied() -> None:
    truth = discs(2)
    truth[1] = False
    _, label = sample_correction(truth.clone(), truth, central=0.5)
    assert label[:, 0].tolist() == [1, 0]


def test_boxes_follow_the_mask() -> None:
    masks = discs()
    corners = sample_box(masks, noise=0.0)
    for mask, ((x0, y0), (x1, y1)) in zip(masks, corners.tolist()):
        ys, xs = mask.nonzero().unbind(-1)
        assert (x0, y0, x1, y1) == (xs.min(), ys.min(), xs.max(), ys.max())
    moved = sample_box(masks, noise=0.1)
    assert ((moved - corners).abs() <= 0.1 * 28 + 1e-4).all()
    assert (moved >= 0).all()
    assert (moved <= 63).all()

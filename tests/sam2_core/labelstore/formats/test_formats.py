"""Collections of other tools come in as they are, and go out so that they come in again."""

from __future__ import annotations

import base64
import io
import json

import av
import numpy as np
import pytest
import tifffile
from PIL import Image
from typer.testing import CliRunner

from sam2_core.cli.main import app
from sam2_core.errors import InputError
from sam2_core.labelstore import LabelStore
from sam2_core.labelstore.formats import reader, writer
from sam2_core.labelstore.formats.brush_rle import encode_brush
from sam2_core.labelstore.formats.davis import palette
from sam2_core.masks import mask_to_rle


@pytest.fixture
def masks():
    """Three masks of (30, 40); the third lies within the second."""
    found = np.zeros((3, 30, 40), bool)
    found[0, 2:9, 3:12] = True
    found[1, 12:28, 15:38] = True
    found[2, 16:22, 20:30] = True
    return found


@pytest.fixture
def picture(tmp_path):
    def make(name, size=(30, 40)):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(len(name)).integers(0, 255, (*size, 3), np.uint8)).save(path)
        return path

    return make


def dense(labels):
    """Ids as one array, of whatever a reader gave."""
    return np.asarray(labels)


def painted(masks, order=(0, 1, 2)):
    labels = np.zeros(masks.shape[1:], int)
    for i in order:
        labels[masks[i]] = i + 1
    return labels


def stored(tmp_path, kind, source, images=None):
    store = LabelStore.create(tmp_path / "store")
    for item in reader(kind)(source, images):
        store.add(item.image, item.labels, item=item.item, axes=item.axes, coverage=item.coverage, objects=item.objects)
    return store.items()


def planes(version):
    from sam2_core.volume.planes import raw_planes

    return np.stack([plane for _, plane in raw_planes(version.open_labels().volume)])


def test_pairs_in_two_folders_and_in_one(tmp_path, picture, masks):
    picture("images/a.png")
    (tmp_path / "labels").mkdir()
    tifffile.imwrite(tmp_path / "labels" / "a.tif", painted(masks).astype(np.uint16))
    (item,) = reader("pairs")(tmp_path / "labels", tmp_path / "images")
    assert (item.item, item.image.name) == ("a", "a.png")
    picture("one/b.png")
    Image.fromarray(painted(masks).astype(np.uint8)).save(tmp_path / "one" / "b_labels.png")
    (item,) = reader("pairs")(tmp_path / "one", None)
    assert (item.item, item.image.name, item.labels.name) == ("b", "b.png", "b_labels.png")
    with pytest.raises(InputError, match="--images"):
        list(reader("pairs")(tmp_path / "labels", None))


def test_davis(tmp_path, picture, masks):
    for t in range(3):
        picture(f"JPEGImages/480p/dog/{t:05d}.jpg")
        if t != 1:
            path = tmp_path / "Annotations" / "480p" / "dog" / f"{t:05d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            ids = Image.fromarray((painted(masks) * (t + 1)).astype(np.uint8))
            ids.putpalette(palette())
            ids.save(path)
    (version,) = stored(tmp_path, "davis", tmp_path)
    assert version.item == "dog"
    assert version.record.coverage.states.tolist() == [2, 0, 2]
    np.testing.assert_array_equal(planes(version), painted(masks) * np.array([1, 0, 3])[:, None, None])


@pytest.mark.parametrize("wrong", ["size", "frame", "folder"])
def test_davis_that_does_not_fit(tmp_path, picture, wrong):
    picture("JPEGImages/dog/00000.jpg")
    folder = tmp_path / "Annotations" / "dog"
    folder.mkdir(parents=True)
    size = (30, 41) if wrong == "size" else (30, 40)
    Image.fromarray(np.ones(size, np.uint8)).save(folder / ("00009.png" if wrong == "frame" else "00000.png"))
    if wrong == "folder":
        (tmp_path / "Annotations").rename(tmp_path / "Masks")
    message = {"size": "41 x 30 pixels", "frame": "has no frame", "folder": "no folder"}[wrong]
    with pytest.raises(InputError, match=message):
        stored(tmp_path, "davis", tmp_path)


@pytest.mark.parametrize("truth", ["01_GT/SEG/man_seg", "01_ST/SEG/man_seg", "01_GT/TRA/man_track"])
def test_cell_tracking_challenge(tmp_path, masks, truth):
    for t in range(3):
        for name, values in ((f"01/t{t:03d}", painted(masks) * 100), (f"{truth}{t:03d}", painted(masks) + t)):
            if t == 1 and "SEG" in name:
                continue
            path = tmp_path / "Set" / f"{name}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(path, values.astype(np.uint16))
    (version,) = stored(tmp_path, "ctc", tmp_path / "Set")
    assert version.item == "Set-01"
    assert version.record.coverage.states.tolist() == ([2, 0, 2] if "SEG" in truth else [2, 2, 2])
    np.testing.assert_array_equal(planes(version)[2], painted(masks) + 2)


@pytest.mark.parametrize("kind", ["polygon", "list", "string"])
def test_coco(tmp_path, picture, masks, kind):
    picture("photos/x.png")

    def segmentation(mask):
        if kind != "polygon":
            return mask_to_rle(mask, compressed=kind == "string")
        y, x = np.nonzero(mask)
        x0, y0, x1, y1 = (int(v) for v in (x.min(), y.min(), x.max() + 1, y.max() + 1))
        return [[x0, y0, x1, y0, x1, y1, x0, y1]]

    data = {
        "images": [{"id": 5, "file_name": "x.png", "height": 30, "width": 40}, {"id": 6, "file_name": "empty.png"}],
        "categories": [{"id": 1, "name": "cell"}],
        "annotations": [
            {"id": i, "image_id": 5, "category_id": 1, "iscrowd": 0, "segmentation": segmentation(masks[i])}
            for i in (2, 0, 1)
        ],
    }
    (tmp_path / "instances.json").write_text(json.dumps(data))
    (version,) = stored(tmp_path, "coco", tmp_path / "instances.json", tmp_path / "photos")
    expected = np.select([masks[2], masks[0], masks[1]], [1, 2, 3])
    np.testing.assert_array_equal(planes(version)[0], expected)
    assert {t.class_name for t in version.record.objects.values()} == {"cell"}


def test_sa1b(tmp_path, picture, masks):
    picture("sa_1.jpg")
    data = {
        "image": {"file_name": "sa_1.jpg", "height": 30, "width": 40},
        "annotations": [{"segmentation": mask_to_rle(m)} for m in masks],
    }
    (tmp_path / "sa_1.json").write_text(json.dumps(data))
    (version,) = stored(tmp_path, "sa1b", tmp_path)
    assert version.record.coverage.summary() == "0 of 1 plane complete, 1 partly"
    # by area: the second mask, the first under it, the third on top
    np.testing.assert_array_equal(planes(version)[0], np.select([masks[2], masks[0], masks[1]], [3, 2, 1]))


def test_sav(tmp_path, masks):
    with av.open(str(tmp_path / "sav_7.mp4"), "w") as video:
        stream = video.add_stream("mpeg4", rate=24)
        stream.width, stream.height, stream.pix_fmt = 40, 30, "yuv420p"
        for t in range(9):
            frame = av.VideoFrame.from_ndarray(np.full((30, 40, 3), 20 * t, np.uint8), format="rgb24")
            video.mux(stream.encode(frame))
        video.mux(stream.encode())
    masklets = [[mask_to_rle(np.roll(m, t, 1)) for m in masks[:2]] for t in range(3)]
    (tmp_path / "sav_7_manual.json").write_text(json.dumps({"video_id": "sav_7", "masklet": masklets}))
    (tmp_path / "sav_7_auto.json").write_text(json.dumps({"video_id": "sav_7", "masklet": []}))
    (version,) = stored(tmp_path, "sav", tmp_path)
    assert version.record.coverage.states.tolist() == [1, 0, 0, 0, 1, 0, 0, 0, 1]
    np.testing.assert_array_equal(planes(version)[8], np.roll(painted(masks[:2], (0, 1)), 2, 1))
    (tmp_path / "sav_7_manual.json").write_text(json.dumps({"video_id": "sav_7", "masklet": [*masklets, []]}))
    with pytest.raises(InputError, match="annotates 4 frames"):
        list(reader("sav")(tmp_path, None))


def test_label_studio(tmp_path, picture, masks):
    picture("x.png")
    buffer = io.BytesIO()
    Image.fromarray((masks[1] * 255).astype(np.uint8)).save(buffer, "PNG")
    url = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()

    def region(kind, **value):
        return {"type": f"{kind}labels", "value": value, "original_width": 40, "original_height": 30, "id": kind}

    box = {"x": 50, "y": 100 * 16 / 30, "width": 25, "height": 20, "rotation": 0}
    regions = [
        region("brush", format="rle", rle=encode_brush(masks[0]), brushlabels=["Cell"]),
        region("bitmask", imageDataURL=url, bitmasklabels=["Tissue"]),
        region("rectangle", **box, rectanglelabels=["Cell"]),
        region("polygon", points=[[0, 90], [10, 90], [10, 100], [0, 100]], polygonlabels=["Cell"]),
        {"type": "choices", "value": {"choices": ["good"]}},
    ]
    task = {
        "id": 3,
        "data": {"image": "/data/upload/1/0a1b2c3d-x.png"},
        "annotations": [
            {"result": [], "updated_at": "2026-05-01"},
            {"result": regions[:1], "updated_at": "2026-01-01"},
            {"result": regions, "updated_at": "2026-02-01"},
            {"result": regions[1:], "updated_at": "2026-03-01", "was_cancelled": True},
        ],
    }
    export = tmp_path / "export.json"
    export.write_text(json.dumps([task, {"id": 4, "data": {}, "annotations": []}]))
    (version,) = stored(tmp_path, "label-studio", export)
    expected = np.select([masks[2], masks[1], masks[0]], [3, 2, 1])
    expected[27:30, 0:4] = 4
    np.testing.assert_array_equal(planes(version)[0], expected)
    names = {i: t.class_name for i, t in version.record.objects.items()}
    assert names == {1: "Cell", 2: "Tissue", 3: "Cell", 4: "Cell"}

    regions[0]["value"]["rle"] = regions[0]["value"]["rle"][:20]
    export.write_text(json.dumps([task]))
    with pytest.raises(InputError, match="task 3, region brush: a brush region is damaged"):
        list(reader("label-studio")(export, None))


def test_a_turned_rectangle(tmp_path, picture):
    picture("x.png")
    # a quarter turn clockwise about (20, 10): 10 x 4 becomes x 16..20, y 10..20
    value = {"x": 50, "y": 100 / 3, "width": 25, "height": 40 / 3, "rotation": 90}
    region = {"type": "rectangle", "value": value, "original_width": 40, "original_height": 30}
    task = {"id": 1, "data": {"image": "x.png"}, "annotations": [{"result": [region]}]}
    (tmp_path / "export.json").write_text(json.dumps([task]))
    (item,) = reader("label-studio")(tmp_path / "export.json", None)
    expected = np.zeros((30, 40), int)
    expected[10:20, 16:20] = 1
    np.testing.assert_array_equal(dense(item.labels), expected)


@pytest.mark.parametrize("kind", ["davis", "coco", "pairs"])
def test_what_goes_out_comes_in_again(tmp_path, masks, kind):
    rng = np.random.default_rng(0)
    labels = np.stack([painted(masks), painted(masks[::-1], (0, 1, 2))])
    tifffile.imwrite(tmp_path / "i.tif", rng.integers(0, 900, (2, 30, 40), np.uint16), photometric="minisblack")
    store = LabelStore.create(tmp_path / "first")
    added = store.add(tmp_path / "i.tif", labels, axes="zyx", item="i", copy_image=True)
    writer(kind)(added, tmp_path / "out")
    source = tmp_path / "out" / {"davis": ".", "coco": "i.json", "pairs": "labels"}[kind]
    images = tmp_path / "out" / "images" if kind == "pairs" else None
    again = stored(tmp_path, kind, source, images)
    found = np.concatenate([planes(v) for v in again])
    if kind == "coco":  # ids are numbered anew in each image
        found = np.stack([_same_regions(a, b) for a, b in zip(found, labels)])
    np.testing.assert_array_equal(found, labels)


def _same_regions(found, expected):
    """`found` with the ids of `expected`, if the regions are the same."""
    out = np.zeros_like(expected)
    for i in np.unique(found[found > 0]):
        (match,) = np.unique(expected[found == i])
        out[found == i] = match
    return out


def test_the_commands(tmp_path, picture, masks):
    picture("images/a.png")
    (tmp_path / "labels").mkdir()
    tifffile.imwrite(tmp_path / "labels" / "a.tif", painted(masks).astype(np.uint16))
    given = ["labels", "import", "--store", tmp_path / "lab", tmp_path / "labels", "--from", "pairs"]

    def run(*args):
        return CliRunner().invoke(app, [str(a) for a in args])

    assert run(*given).exit_code == 2
    assert not (tmp_path / "lab").exists()
    for _ in range(2):  # what is there unchanged is passed over
        assert run(*given, "--images", tmp_path / "images").exit_code == 0
        (version,) = LabelStore(tmp_path / "lab").items()
        assert version.version == 1
    out = run("labels", "export", tmp_path / "lab", "--to", "coco", "--out", tmp_path / "coco")
    assert out.exit_code == 0, out.output
    assert (tmp_path / "coco" / "a" / "image.png").is_file()
    again = run("labels", "export", tmp_path / "lab", "--to", "coco", "--out", tmp_path / "coco")
    assert again.exit_code == 2
    wrong = run("labels", "export", tmp_path / "lab", "--to", "coco", "--out", tmp_path / "x", "--item", "zzz")
    assert wrong.exit_code == 2
    assert not (tmp_path / "x").exists()

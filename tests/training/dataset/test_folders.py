"""Folders of DAVIS, SA-V and SA-1B as sequences: lazy, exact, and clear about what is wrong with a file."""

import json
import pickle
import shutil

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader

from sam2_core.errors import InputError
from sam2_core.masks import mask_to_rle
from training.dataset import planes
from training.dataset.clips import ClipDataset, ClipOptions
from training.dataset.folders import load_davis, load_sa1b, load_sav
from training.dataset.views import UNKNOWN
from training.tasks import image_tasks, propagation_tasks

from .conftest import SIZE, frame, number_of, square

CLIPS = ClipOptions(size=64, frames=3, whole_view=1.0, augment=False)


@pytest.fixture
def decoded(monkeypatch):
    """The image files that were decoded, in their order."""
    names = []

    def counted(path):
        names.append(path.name)
        return original(path)

    original = planes.read_image
    monkeypatch.setattr(planes, "read_image", counted)
    return names


def test_davis(davis, decoded):
    cat, dog = load_davis(davis)
    assert not decoded
    assert (dog.name, dog.kind, dog.complete, len(dog)) == ("dog", "video", False, 6)
    assert dog.labelled.tolist() == [True, True, True, False, True, True]
    assert dog.frames.shape == (6, *SIZE, 3)
    assert number_of(dog.frames[4]) == 4
    np.testing.assert_array_equal(cat.labels[2], np.select([square(2), square(2, (26, 20))], [1, 3]))
    assert cat.labels.dtype == np.asarray(cat.labels).dtype == np.int32
    assert not cat.labels[3].any()


def test_the_options_of_meta_s_configs(davis, tmp_path):
    (tmp_path / "train.txt").write_text("dog\n\ncat\n")
    (tmp_path / "not.txt").write_text("dog\n")
    given = {"img_folder": davis / "JPEGImages", "gt_folder": davis / "Annotations"}
    assert [s.name for s in load_davis(**given, file_list_txt=tmp_path / "train.txt")] == ["cat", "dog"]
    (cat,) = load_davis(**given, excluded_videos_list_txt=tmp_path / "not.txt", set_name="mose")
    assert (cat.name, cat.set) == ("cat", "mose")
    (tmp_path / "not.txt").write_text("dog\ncat\n")
    with pytest.raises(InputError, match="nothing is left"):
        load_davis(davis, excluded_videos_list_txt=tmp_path / "not.txt")
    (tmp_path / "train.txt").write_text("cow\n")
    with pytest.raises(InputError, match=r"train\.txt names cow"):
        load_davis(davis, file_list_txt=tmp_path / "train.txt")
    with pytest.raises(InputError, match="gt_folder"):
        load_davis(img_folder=davis)


def test_a_clip_decodes_its_frames_alone(davis, decoded):
    dataset = ClipDataset(load_davis(davis), CLIPS)
    assert not decoded
    for index in range(5):
        decoded.clear()
        clip = dataset[index]
        assert len(decoded) <= 3
        assert decoded == sorted(set(decoded))
        assert clip.masks[0].any()
        assert not (clip.labels == 0).any()
        assert (clip.labels[~clip.valid] == UNKNOWN).all()


def test_grey_frames_stay_grey(davis):
    for t in range(6):
        Image.fromarray(frame(t)[..., 0]).save(davis / "JPEGImages" / "dog" / f"{t:05d}.jpg")
    cat, dog = load_davis(davis)
    assert (dog.frames.shape, cat.frames.shape) == ((6, *SIZE), (6, *SIZE, 3))
    assert dog.frames[[5, 0]].shape == (2, *SIZE)


def test_tasks_are_those_of_arrays(davis):
    sequences = load_davis(davis)
    assert {task.mask.sum() for task in image_tasks(sequences)} == {14 * 14}
    assert all(task.masks.any() for task in propagation_tasks(sequences))


@pytest.mark.parametrize("wrong", ["truncated frame", "frame size", "mask size", "mask gone", "16-bit"])
def test_a_bad_file_in_an_epoch_is_named(davis, wrong):
    sequences = load_davis(davis)
    picture, mask = davis / "JPEGImages/dog/00002.jpg", davis / "Annotations/dog/00002.png"
    if wrong == "truncated frame":
        picture.write_bytes(picture.read_bytes()[:500])
    elif wrong == "frame size":
        Image.fromarray(frame(2)[:-1]).save(picture)
    elif wrong == "mask size":
        Image.fromarray(square()[1:].astype(np.uint8)).save(mask)
    elif wrong == "mask gone":
        mask.unlink()
    else:
        Image.fromarray(np.zeros(SIZE, np.uint16)).save(picture, format="PNG")
    array, file = (sequences[1].labels, mask) if "mask" in wrong else (sequences[1].frames, picture)
    array[[0, 1, 3]]
    with pytest.raises(InputError) as raised:
        array[[0, 2]]
    assert str(file) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_error_comes_through_a_worker(davis):
    for file in davis.glob("JPEGImages/*/*.jpg"):
        if file.stem != "00000":
            file.write_bytes(file.read_bytes()[:500])
    loader = DataLoader(ClipDataset(load_davis(davis), CLIPS), batch_size=None, num_workers=1)
    with pytest.raises(InputError, match=r"\.jpg cannot be read as an image"):
        for _, _clip in zip(range(50), loader):
            pass


@pytest.mark.parametrize("wrong", ["folder", "frames", "stray"])
def test_davis_that_is_not_whole(davis, wrong):
    if wrong == "folder":
        shutil.rmtree(davis / "Annotations")
    elif wrong == "frames":
        shutil.rmtree(davis / "JPEGImages" / "dog")
    else:
        (davis / "Annotations/dog/00000.png").rename(davis / "Annotations/dog/00077.png")
    with pytest.raises(InputError, match={"stray": "has no frame"}.get(wrong, "there is no folder")):
        load_davis(davis)


@pytest.mark.parametrize("extracted", [None, 1, 4])
def test_sav(sav, extracted):
    if extracted:
        (sav / "sav_000001").mkdir()
        for t in range(0, 10, extracted):
            Image.fromarray(frame(t)).save(sav / "sav_000001" / f"{t:05d}.jpg", quality=95)
        (sav / "sav_000001.mp4").unlink()
    (sequence,) = load_sav(sav)
    numbers = np.arange(0, 10, extracted or 1)
    assert sequence.frames.shape == (len(numbers), *SIZE, 3)
    assert sequence.labelled.tolist() == [n in (0, 4, 8) for n in numbers]
    assert not sequence.complete
    assert [number_of(picture) for picture in sequence.frames] == numbers.tolist()
    at = int(np.flatnonzero(numbers == 4)[0])
    # the smaller object lies above the larger one, which it is in
    expected = np.select([square(4, (10, 12), 6), square(4, side=20)], [2, 1])
    np.testing.assert_array_equal(sequence.labels[at], expected)
    assert np.unique(sequence.labels[-1 if extracted == 4 else 8]).tolist() == [0, 1]
    clips = ClipDataset([sequence], CLIPS)
    assert clips[0].frames.shape == (3, 3, 64, 64)


def test_sav_in_layers_keeps_whole_masks(sav):
    first, second = load_sav(sav, layers=2)
    np.testing.assert_array_equal(first.labels[4], square(4, side=20))
    np.testing.assert_array_equal(second.labels[4], 2 * square(4, (10, 12), 6))
    with pytest.raises(InputError, match="give 1 or more"):
        load_sav(sav, layers=0)


@pytest.mark.parametrize("wrong", ["video", "renumbered", "json", "list"])
def test_sav_that_does_not_fit(sav, tmp_path, wrong):
    message = {
        "video": "neither a video",
        "renumbered": "up to number 8",
        "json": "no SA-V file",
        "list": "names sav_9",
    }
    options = {}
    if wrong == "renumbered":
        (sav / "sav_000001").mkdir()
        for t in range(3):
            Image.fromarray(frame(t)).save(sav / "sav_000001" / f"{t:05d}.jpg")
    elif wrong == "video":
        (sav / "sav_000001.mp4").unlink()
    elif wrong == "json":
        (sav / "sav_000001_manual.json").write_text('{"video_id": "sav_000001", "masklet": [1]}')
    else:
        (tmp_path / "list.txt").write_text("sav_000001.mp4\nsav_9\n")
        options["file_list_txt"] = tmp_path / "list.txt"
    with pytest.raises(InputError, match=message[wrong]):
        load_sav(sav, **options)


@pytest.mark.parametrize("wrong", ["size", "code"])
def test_a_bad_masklet_is_named(sav, wrong):
    bad = mask_to_rle(square()[1:]) if wrong == "size" else {"size": list(SIZE), "counts": "@@@@@@"}
    file = sav / "sav_000001_manual.json"
    file.write_text(json.dumps({"video_id": "sav_000001", "masklet": [[bad]]}))
    (sequence,) = load_sav(sav)
    with pytest.raises(InputError, match=r"sav_000001_manual\.json"):
        sequence.labels[0]


def test_sa1b_in_layers(sa1b):
    sequences = load_sa1b(sa1b)
    assert [s.name for s in sequences[:3]] == ["sa_1:layer0", "sa_1:layer1", "sa_1:layer2"]
    # numbered by their sizes: whole 1, beside 2, part 3, part of the part 4
    whole, part, small = (s.labels[0] for s in sequences[:3])
    np.testing.assert_array_equal(whole, square(at=(0, 0), side=24) + 2 * square(at=(30, 30)))
    np.testing.assert_array_equal(part, 3 * square(at=(2, 2), side=8))
    np.testing.assert_array_equal(small, 4 * square(at=(4, 4), side=4))
    assert {s.kind for s in sequences} == {"image"}
    assert ClipDataset(sequences, ClipOptions(size=64, min_pixels=4))[0].masks.any()


def test_sa1b_in_one_layer(sa1b):
    sequence = load_sa1b(sa1b, layers=1)[0]
    order = [square(at=(4, 4), side=4), square(at=(2, 2), side=8), square(at=(30, 30)), square(at=(0, 0), side=24)]
    np.testing.assert_array_equal(sequence.labels[0], np.select(order, [4, 3, 2, 1]))


def test_sa1b_that_is_not_whole(sa1b, tmp_path):
    (tmp_path / "list.txt").write_text("sa_2.jpg\n")
    (sa1b / "sa_1.json").unlink()
    with pytest.raises(InputError, match=r"sa_1\.jpg has no annotation"):
        load_sa1b(sa1b)
    (sequence,) = load_sa1b(sa1b, file_list_txt=tmp_path / "list.txt", layers=1)
    Image.fromarray(frame(3)[:, 1:]).save(sa1b / "sa_2.jpg")
    with pytest.raises(InputError, match=r"sa_2\.jpg has 63 x 48 pixels"):
        sequence.frames[0]
    (again,) = load_sa1b(sa1b, file_list_txt=tmp_path / "list.txt", layers=1)
    with pytest.raises(InputError, match=r"sa_2\.json: a mask has 64 x 48 pixels"):
        again.labels[0]


@pytest.mark.parametrize("loader", [load_davis, load_sav, load_sa1b])
def test_no_such_folder(tmp_path, loader):
    with pytest.raises(InputError, match="there is no folder"):
        loader(tmp_path / "none")
    with pytest.raises(InputError, match="img_folder"):
        loader()


def test_sequences_travel_to_spawned_workers(davis, sav, sa1b):
    for sequence in [*load_davis(davis), *load_sav(sav), *load_sa1b(sa1b)]:
        again = pickle.loads(pickle.dumps(sequence))
        np.testing.assert_array_equal(again.frames[0], sequence.frames[0])
        np.testing.assert_array_equal(again.labels[0], sequence.labels[0])

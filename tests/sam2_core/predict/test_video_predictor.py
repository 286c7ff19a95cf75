"""Tracking: any source, objects that come and go, corrections, and memory that stays bounded."""

import gc
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from sam2_core.errors import InputError
from sam2_core.predict.embedding_cache import EmbeddingCache
from sam2_core.predict.video_predictor import SAM2VideoPredictor


@pytest.fixture
def predictor(small_model):
    return SAM2VideoPredictor(small_model)


def click(predictor, state, frame, obj, x=28.0, y=20.0, label=1, **more):
    return predictor.add_new_points_or_box(
        state, frame, obj, points=np.array([[x, y]]), labels=np.array([label]), **more
    )


def track(predictor, state, **options):
    """Propagate; masks by frame, (N, 1, H, W)."""
    return {f: masks for f, _, masks in predictor.propagate_in_video(state, progress=False, **options)}


def assert_same(one, other, tolerance=1e-3):
    assert one.keys() == other.keys()
    for frame in one:
        torch.testing.assert_close(one[frame], other[frame], atol=tolerance, rtol=tolerance)


@pytest.fixture(scope="module")
def expected(small_model, movie):
    """Object 1, clicked on frame 0, through the movie."""
    predictor = SAM2VideoPredictor(small_model)
    state = predictor.init_state(movie)
    click(predictor, state, 0, 1)
    return track(predictor, state)


class Counted:
    """A frame source that notes what it is asked for."""

    def __init__(self, array):
        self.array = array
        self.asked = []

    def __len__(self):
        return len(self.array)

    @property
    def size(self):
        return self.array.shape[1:3]

    def frame(self, i):
        self.asked.append(i)
        return self.array[i]


class TestSources:
    def test_masks_are_logits_of_the_videos_size(self, expected):
        assert list(expected) == list(range(12))
        for masks in expected.values():
            assert masks.shape == (1, 1, 40, 56)
            assert masks.dtype == torch.float32
            assert (masks > 0).any()
            assert (masks < 0).any()

    @pytest.mark.parametrize("kind", ["zarr", "dask", "folder", "path", "source"])
    def test_every_source_gives_the_same(self, predictor, movie, expected, kind, tmp_path):
        import dask.array
        import zarr

        if kind == "zarr":
            source = zarr.create_array(tmp_path / "a.zarr", shape=movie.shape, chunks=(5, 20, 20, 3), dtype="u1")
            source[:] = movie
        elif kind == "dask":
            source = dask.array.from_array(movie, chunks=(5, 20, 20, 3))
        elif kind == "source":
            source = Counted(movie)
        else:
            for i, frame in enumerate(movie):
                Image.fromarray(frame).save(tmp_path / f"{i}.png")
            source = str(tmp_path) if kind == "folder" else tmp_path
        state = predictor.init_state(source)
        click(predictor, state, 0, 1)
        assert_same(track(predictor, state), expected, tolerance=0)

    def test_grey_frames_of_any_type(self, predictor, movie):
        grey = movie[:4, ..., 0]
        answers = []
        for source in (grey, np.stack([grey] * 3, -1)):
            state = predictor.init_state(source)
            click(predictor, state, 0, 1)
            answers.append(track(predictor, state))
        assert_same(*answers)
        state = predictor.init_state(grey.astype(np.uint16) * 100)
        click(predictor, state, 0, 1)
        assert all(masks.isfinite().all() for masks in track(predictor, state).values())

    def test_frames_are_read_when_needed(self, predictor, movie):
        source = Counted(movie)
        state = predictor.init_state(source)
        assert source.asked == []
        click(predictor, state, 5, 1)
        state.close()
        assert 5 in source.asked
        assert len(source.asked) <= 3  # and two ahead

    def test_clicks_on_one_frame_embed_it_once(self, predictor, movie, monkeypatch):
        state = predictor.init_state(movie)
        embedded = []
        forward = predictor.model.forward_image
        monkeypatch.setattr(predictor.model, "forward_image", lambda x: embedded.append(1) or forward(x))
        for obj in (1, 2, 3):
            click(predictor, state, 4, obj)
        assert len(embedded) == 1

    def test_what_is_no_video_is_refused(self, predictor, tmp_path):
        for source in (tmp_path / "none", tmp_path, np.zeros((0, 5, 5)), 7):
            with pytest.raises(InputError):
                predictor.init_state(source)

    def test_closing_ends_the_thread_and_removes_the_temporary_folder(self, predictor, movie):
        state = predictor.init_state(movie)
        click(predictor, state, 0, 1)
        folder = state.storage_dir
        assert folder.is_dir()
        state.close()
        assert not folder.exists()


class TestPrompts:
    def test_a_click_answers_at_once(self, predictor, movie):
        state = predictor.init_state(movie)
        frame, ids, masks = click(predictor, state, 3, 7)
        assert (frame, ids) == (3, [7])
        assert masks.shape == (1, 1, 40, 56)
        _, ids, both = click(predictor, state, 3, 4, x=5)
        assert ids == [7, 4]
        assert torch.equal(both[0], masks[0])

    def test_points_are_added_or_replaced(self, predictor, movie):
        state = predictor.init_state(movie)
        click(predictor, state, 0, 1, x=10)
        _, _, added = click(predictor, state, 0, 1, x=40, label=0, clear_old_points=False)
        assert state.objects[1].points[0][1].tolist() == [[1, 0]]
        _, _, replaced = click(predictor, state, 0, 1, x=40, label=0)
        assert state.objects[1].points[0][1].tolist() == [[0]]
        assert not torch.equal(added, replaced)

    def test_a_box_with_points(self, predictor, movie):
        state = predictor.init_state(movie)
        click(predictor, state, 0, 1, box=[5, 6, 40, 30])
        coords, labels = state.objects[1].points[0]
        assert labels.tolist() == [[2, 3, 1]]
        torch.testing.assert_close(coords[0, 0], torch.tensor([5 / 56, 6 / 40]) * 64)

    def test_coordinates_may_be_fractions(self, predictor, movie):
        state = predictor.init_state(movie)
        _, _, pixels = click(predictor, state, 0, 1, x=14, y=10)
        _, _, fractions = click(predictor, state, 0, 2, x=0.25, y=0.25, normalize_coords=False)
        torch.testing.assert_close(pixels[0], fractions[1], atol=1e-4, rtol=1e-4)

    def test_tensors_and_lists_are_taken(self, predictor, movie):
        state = predictor.init_state(movie)
        _, _, arrays = click(predictor, state, 0, 1)
        _, _, lists = predictor.add_new_points_or_box(state, 0, 2, points=[[28, 20]], labels=[1])
        tensors = predictor.add_new_points(
            state, 0, 3, points=torch.tensor([[28.0, 20.0]]), labels=torch.tensor([1], dtype=torch.int32)
        )[2]
        assert torch.equal(lists[1], arrays[0])
        assert torch.equal(tensors[2], arrays[0])

    def test_a_mask_is_shown_as_given(self, predictor, movie):
        state = predictor.init_state(movie)
        mask = np.zeros((40, 56), bool)
        mask[10:30, 14:42] = True
        _, _, shown = predictor.add_new_mask(state, 0, 1, mask)
        overlap = ((shown[0, 0] > 0).numpy() & mask).sum() / ((shown[0, 0] > 0).numpy() | mask).sum()
        assert overlap > 0.9
        _, _, empty = predictor.add_new_mask(state, 0, 1, np.zeros((40, 56), bool))
        assert not (empty > 0).any()

    def test_masks_may_pass_through_the_decoder(self, make_model, movie):
        model = make_model("model.use_mask_input_as_output_without_sam=false")
        predictor = SAM2VideoPredictor(model)
        state = predictor.init_state(movie)
        mask = np.zeros((40, 56), bool)
        mask[10:30, 14:42] = True
        _, _, shown = predictor.add_new_mask(state, 0, 1, mask)
        assert len(shown.unique()) > 100
        assert (track(predictor, state, max_frame_num_to_track=2)[0] == shown).all()

    @pytest.mark.parametrize(
        ("prompt", "message"),
        [
            ({"points": [[1, 2]]}, "points and labels belong together"),
            ({"labels": [1]}, "points and labels belong together"),
            ({}, "needs points with labels, or a box"),
            ({"box": [1, 2, 3, 4], "clear_old_points": False}, "a box replaces earlier points"),
            ({"points": [[1, 2], [3, 4]], "labels": [1]}, "2 points need as many labels, got 1"),
        ],
    )
    def test_prompts_that_do_not_fit_are_refused_and_leave_no_object(self, predictor, movie, prompt, message):
        state = predictor.init_state(movie)
        with pytest.raises(ValueError, match=message):
            predictor.add_new_points_or_box(state, 0, 1, **prompt)
        assert state.obj_ids == []

    def test_frames_that_do_not_exist_are_refused(self, predictor, movie):
        state = predictor.init_state(movie)
        for frame in (-1, 12):
            with pytest.raises(InputError, match=f"no frame {frame}: the frames are 0 to 11"):
                click(predictor, state, frame, 1)
            with pytest.raises(InputError, match="no frame"):
                predictor.add_new_mask(state, frame, 1, np.ones((40, 56), bool))
        assert state.obj_ids == []
        click(predictor, state, 0, 1)
        with pytest.raises(InputError, match="no frame 12"):
            track(predictor, state, start_frame_idx=12)

    def test_a_frame_that_cannot_be_read_leaves_no_object(self, predictor, movie):
        class Broken(Counted):
            def frame(self, i):
                if i == 3:
                    raise OSError("bad sector")
                return super().frame(i)

        state = predictor.init_state(Broken(movie[:5]))
        with pytest.raises(RuntimeError, match="frame 3 could not be read: bad sector"):
            click(predictor, state, 3, 1)
        with pytest.raises(RuntimeError, match="bad sector"):
            predictor.add_new_mask(state, 3, 1, np.ones((40, 56), bool))
        assert state.obj_ids == []
        click(predictor, state, 0, 1)
        steps = predictor.propagate_in_video(state, progress=False)
        assert [next(steps)[0] for _ in range(3)] == [0, 1, 2]
        with pytest.raises(RuntimeError, match="bad sector"):
            next(steps)

    def test_a_mask_has_two_axes(self, predictor, movie):
        with pytest.raises(ValueError, match=r"shape \(H, W\)"):
            predictor.add_new_mask(predictor.init_state(movie), 0, 1, np.ones((1, 40, 56), bool))


class TestPropagation:
    def test_needs_a_prompt(self, predictor, movie):
        state = predictor.init_state(movie)
        with pytest.raises(RuntimeError, match="add points, a box or a mask"):
            track(predictor, state)
        click(predictor, state, 0, 1)
        predictor.clear_all_prompts_in_frame(state, 0, 1)
        with pytest.raises(RuntimeError, match="object 1 has no prompt"):
            track(predictor, state)

    @pytest.mark.parametrize(
        ("options", "frames"),
        [
            ({}, range(4, 12)),
            ({"max_frame_num_to_track": 2}, range(4, 7)),
            ({"start_frame_idx": 10}, range(10, 12)),
            ({"reverse": True}, range(4, -1, -1)),
            ({"reverse": True, "max_frame_num_to_track": 1}, range(4, 2, -1)),
            ({"start_frame_idx": 0, "reverse": True}, range(0)),
        ],
    )
    def test_order_of_frames(self, predictor, movie, options, frames):
        state = predictor.init_state(movie)
        click(predictor, state, 6, 2)
        click(predictor, state, 4, 1)
        assert list(track(predictor, state, **options)) == list(frames)

    @pytest.mark.parametrize("batch_size", [1, 2, 16])
    def test_objects_together_are_tracked_as_if_alone(self, small_model, movie, batch_size):
        prompts = {1: (0, 10.0), 2: (0, 28.0), 3: (2, 45.0)}
        predictor = SAM2VideoPredictor(small_model, batch_size=batch_size)
        state = predictor.init_state(movie[:6])
        for obj, (frame, x) in prompts.items():
            click(predictor, state, frame, obj, x=x)
        together = track(predictor, state, start_frame_idx=0)
        for i, (obj, (frame, x)) in enumerate(prompts.items()):
            alone = predictor.init_state(movie[:6])
            click(predictor, alone, frame, obj, x=x)
            single = track(predictor, alone, start_frame_idx=0)
            assert_same({f: masks[i : i + 1] for f, masks in together.items()}, single)

    def test_an_object_prompted_ahead_of_the_frame(self, predictor, movie):
        """Then there is one memory, kept as bfloat16, and no pointer of the past."""
        state = predictor.init_state(movie)
        click(predictor, state, 6, 1)
        found = track(predictor, state, start_frame_idx=3)
        assert list(found) == list(range(3, 12))
        assert found[3].dtype == torch.float32
        assert found[3].isfinite().all()

    def test_left_early_and_taken_up_again(self, predictor, movie, expected):
        state = predictor.init_state(movie)
        click(predictor, state, 0, 1)
        found = {}
        for frame, _, masks in predictor.propagate_in_video(state, progress=False):
            found[frame] = masks
            if frame == 5:
                break
        found |= track(predictor, state, start_frame_idx=6)
        assert_same(found, expected, tolerance=0)

    def test_an_interrupted_step_changes_nothing(self, predictor, movie, expected, monkeypatch):
        state = predictor.init_state(movie)
        click(predictor, state, 0, 1)
        steps = predictor.propagate_in_video(state, progress=False)
        found = {frame: masks for frame, _, masks in (next(steps), next(steps))}

        def interrupt(*_, **__):
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(predictor.model, "encode_memory", interrupt)
            with pytest.raises(KeyboardInterrupt):
                next(steps)
        found |= track(predictor, state, start_frame_idx=2)
        assert_same(found, expected, tolerance=0)

    def test_states_do_not_mix(self, predictor, movie, expected):
        one, other = predictor.init_state(movie), predictor.init_state(movie[::-1])
        click(predictor, other, 0, 1, x=3)
        click(predictor, one, 0, 1)
        steps = zip(
            predictor.propagate_in_video(one, progress=False), predictor.propagate_in_video(other, progress=False)
        )
        assert_same({a[0]: a[2] for a, _ in steps}, expected, tolerance=0)

    def test_it_runs_again_to_the_same(self, predictor, movie, expected):
        state = predictor.init_state(movie)
        click(predictor, state, 0, 1)
        track(predictor, state, max_frame_num_to_track=4)
        predictor.reset_state(state)
        assert state.obj_ids == []
        click(predictor, state, 0, 1)
        assert_same(track(predictor, state), expected, tolerance=0)

    def test_bfloat16_is_close(self, small_model, movie, expected):
        predictor = SAM2VideoPredictor(small_model, precision="bfloat16")
        state = predictor.init_state(movie)
        click(predictor, state, 0, 1)
        found = track(predictor, state, max_frame_num_to_track=2)
        for frame, masks in found.items():
            assert masks.dtype == torch.float32
            difference = (masks - expected[frame]).abs().mean()
            assert 0 < difference < 0.3 * expected[frame].std()

    def test_an_autocast_around_the_calls_is_respected(self, predictor, movie, expected):
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            state = predictor.init_state(movie)
            click(predictor, state, 0, 1)
            found = track(predictor, state, max_frame_num_to_track=2)
        assert all(masks.dtype == torch.float32 for masks in found.values())
        assert not torch.equal(found[2], expected[2])


class TestCorrections:
    def test_a_correction_changes_its_frame(self, predictor, movie, expected):
        state = predictor.init_state(movie)
        click(predictor, state, 0, 1)
        track(predictor, state)
        _, _, corrected = click(predictor, state, 4, 1, x=5, y=35)
        assert (corrected - expected[4]).abs().max() > 0.01

    def test_it_reaches_the_frames_after_it(self, predictor, movie, expected):
        state = predictor.init_state(movie)
        click(predictor, state, 0, 1)
        track(predictor, state)
        click(predictor, state, 4, 1, x=5, y=35, label=0)
        after = track(predictor, state, start_frame_idx=5, max_frame_num_to_track=0)
        assert (after[5] - expected[5]).abs().max() > 1e-3

    @pytest.mark.parametrize("as_prompted", [True, False])
    def test_propagation_keeps_it_only_as_a_prompted_frame(self, small_model, movie, as_prompted):
        predictor = SAM2VideoPredictor(small_model, add_all_frames_to_correct_as_cond=as_prompted)
        state = predictor.init_state(movie)
        click(predictor, state, 0, 1)
        track(predictor, state)
        _, _, corrected = click(predictor, state, 4, 1, x=5, y=35, label=0)
        again = track(predictor, state, start_frame_idx=3, max_frame_num_to_track=1)[4]
        assert torch.equal(again, corrected) is as_prompted

    def test_frames_around_a_correction_are_forgotten_on_request(self, small_model, movie):
        for forget in (False, True):
            predictor = SAM2VideoPredictor(small_model, clear_non_cond_mem_around_input=forget)
            state = predictor.init_state(movie)
            click(predictor, state, 0, 1)
            track(predictor, state)
            click(predictor, state, 11, 1)
            predictor.propagate_in_video_preflight(state)
            # seven frames before it
            assert set(state.objects[1].tracked) == ({1, 2, 3} if forget else set(range(1, 12)))

    def test_cleared_prompts_count_no_more(self, predictor, movie, expected):
        state = predictor.init_state(movie)
        click(predictor, state, 0, 1)
        click(predictor, state, 5, 1, x=3)
        frame, ids, masks = predictor.clear_all_prompts_in_frame(state, 5, 1)
        assert (frame, ids) == (5, [1])
        assert (masks == -1024).all()
        assert_same(track(predictor, state), expected, tolerance=0)

    def test_a_cleared_prompted_frame_is_tracked_over(self, predictor, movie):
        state = predictor.init_state(movie)
        click(predictor, state, 0, 1)
        click(predictor, state, 5, 1, x=3)
        track(predictor, state)
        predictor.clear_all_prompts_in_frame(state, 5, 1)
        assert set(state.objects[1].prompted) == {0}
        assert 5 in state.objects[1].tracked
        assert predictor.clear_all_prompts_in_frame(state, 5, 1, need_output=False) is None


class TestObjects:
    def test_an_object_added_late_leaves_the_others_as_they_are(self, predictor, movie, expected):
        state = predictor.init_state(movie)
        click(predictor, state, 0, 1)
        found = track(predictor, state, max_frame_num_to_track=4)
        _, ids, masks = click(predictor, state, 4, 9, x=5)
        assert ids == [1, 9]
        torch.testing.assert_close(masks[:1], expected[4])
        later = track(predictor, state, start_frame_idx=5)
        found |= {frame: masks[:1] for frame, masks in later.items()}
        assert_same(found, expected)
        # before it was prompted there is nothing of it
        _, _, first = predictor.clear_all_prompts_in_frame(state, 1, 1)
        assert (first[1] == -1024).all()

    def test_an_object_removed_leaves_the_others_as_they_are(self, predictor, movie, expected):
        state = predictor.init_state(movie)
        click(predictor, state, 0, 5, x=5)
        click(predictor, state, 0, 1)
        track(predictor, state, max_frame_num_to_track=4)
        ids, updated = predictor.remove_object(state, 5)
        assert ids == [1]
        assert [frame for frame, _ in updated] == [0]
        assert updated[0][1].shape == (1, 1, 40, 56)
        assert_same(track(predictor, state, start_frame_idx=5), {f: expected[f] for f in range(5, 12)})

    def test_removing_the_last_or_an_unknown_object(self, predictor, movie):
        state = predictor.init_state(movie)
        click(predictor, state, 0, 5)
        assert predictor.remove_object(state, 6) == ([5], [])
        with pytest.raises(RuntimeError, match="no object 6"):
            predictor.remove_object(state, 6, strict=True)
        assert predictor.remove_object(state, 5) == ([], [])

    def test_a_removed_id_starts_afresh(self, predictor, movie, expected):
        state = predictor.init_state(movie)
        click(predictor, state, 0, 1, x=5)
        track(predictor, state)
        predictor.remove_object(state, 1)
        click(predictor, state, 0, 1)
        assert_same(track(predictor, state), expected, tolerance=0)

    def test_one_piece_of_an_object_is_tracked_and_remembered(self, small_model, movie, monkeypatch):
        segment = small_model.segment

        def two_pieces(*arguments, **options):
            answer = segment(*arguments, **options)
            masks = torch.full_like(answer.masks, -5)
            masks[..., 1:6, 1:6], masks[..., 9:13, 9:13] = 3, 2
            return replace(answer, masks=masks)

        monkeypatch.setattr(small_model, "segment", two_pieces)
        seen = []
        for one_piece in (False, True):
            predictor = SAM2VideoPredictor(small_model, one_piece=one_piece)
            state = predictor.init_state(movie)
            click(predictor, state, 0, 1)
            track(predictor, state)
            seen.append(state.objects[1].tracked[1])
        assert [ndimage.label(result.masks[0, 0] > 0)[1] for result in seen] == [2, 1]
        assert seen[1].masks[0, 0, 3, 3] == 3
        assert not torch.equal(seen[0].memory, seen[1].memory)

    def test_of_two_objects_in_one_place_one_is_tracked(self, small_model, movie):
        mask = np.zeros((40, 56), bool)
        mask[10:30, 14:42] = True

        def areas(locked, **options):
            predictor = SAM2VideoPredictor(small_model, **options)
            state = predictor.init_state(movie)
            state.locked.update(locked)
            for obj in (1, 2, 3):
                predictor.add_new_mask(state, 0, obj, mask)
            return [(m > 0).sum((1, 2, 3)).tolist() for m in track(predictor, state).values()]

        together = areas(set())
        assert min(together[1]) > 0
        alone = areas({2}, distinct=True)
        assert alone[0] == together[0]
        assert alone[1] == [0, together[1][1], 0]

    def test_each_pixel_belongs_to_one_object_and_locked_ones_win(self, small_model, movie):
        predictor = SAM2VideoPredictor(small_model, non_overlap_masks=True)
        state = predictor.init_state(movie)
        mask = np.zeros((40, 56), bool)
        mask[10:30, 14:42] = True
        for obj in (1, 2, 3):
            _, _, shown = predictor.add_new_mask(state, 0, obj, mask)
        assert (shown > 0).sum(0).max() == 1
        free = track(predictor, state, max_frame_num_to_track=1)[1]
        assert (free > 0).sum(0).max() == 1
        state.locked.add(3)
        locked = track(predictor, state, max_frame_num_to_track=1)[1]
        overlapping = SAM2VideoPredictor(small_model)
        alone = overlapping.init_state(movie)
        overlapping.add_new_mask(alone, 0, 3, mask)
        wanted = track(overlapping, alone, max_frame_num_to_track=1)[1]
        assert torch.equal(locked[2] > 0, wanted[0] > 0)


@pytest.fixture(scope="module")
def forgetful(make_model):
    """Remembers two frames and two pointers, so that results soon leave memory."""
    return SAM2VideoPredictor(make_model("model.num_maskmem=2", "model.max_obj_ptrs_in_encoder=2"))


class TestBoundedMemory:
    def test_results_that_were_on_disk_give_the_same(self, forgetful, movie):
        answers = []
        for keep in (None, 100):
            state = forgetful.init_state(movie)
            assert state.keep == 3
            state.keep = keep or state.keep
            click(forgetful, state, 0, 1)
            forward = track(forgetful, state)
            on_disk = len(list((state.storage_dir / "object-1").glob("*.safetensors")))
            assert on_disk == (8 if keep is None else 0)
            # from the middle: needs memories that were let go, and makes them again
            again = track(forgetful, state, start_frame_idx=4, max_frame_num_to_track=1)
            corrected = click(forgetful, state, 2, 1, x=5)[2]
            backward = track(forgetful, state, start_frame_idx=9, reverse=True)
            answers.append(({**forward}, again, {2: corrected}, backward))
            state.close()
        for kept, evicted in zip(*answers):
            assert_same(kept, evicted, tolerance=1e-4)

    def test_tensors_in_memory_do_not_grow_with_the_video(self, forgetful, movie):
        state = forgetful.init_state(np.tile(movie, (5, 1, 1, 1)))
        click(forgetful, state, 0, 1)
        click(forgetful, state, 0, 2, x=5)
        held = {}
        for frame, _, _ in forgetful.propagate_in_video(state, progress=False):
            if frame in (20, 55):
                gc.collect()
                held[frame] = sum(t.nbytes for t in gc.get_objects() if type(t) is torch.Tensor)
        state.close()
        # two frames may just be being read ahead; the results of 35 frames are more than twice as large
        assert abs(held[55] - held[20]) <= 2 * (3 * 64 * 64 * 4)

    def test_a_later_process_takes_up_where_an_earlier_one_ended(self, forgetful, movie, tmp_path):
        state = forgetful.init_state(movie)
        click(forgetful, state, 0, 1)
        unbroken = track(forgetful, state)

        first = forgetful.init_state(movie, storage_dir=tmp_path)
        click(forgetful, first, 0, 1)
        track(forgetful, first, max_frame_num_to_track=5)
        first.close()
        second = forgetful.init_state(movie, storage_dir=tmp_path)
        click(forgetful, second, 0, 1)
        assert second.restore() == {1: [1, 2, 3, 4, 5]}
        resumed = track(forgetful, second, start_frame_idx=6)
        assert_same(resumed, {frame: unbroken[frame] for frame in range(6, 12)}, tolerance=1e-4)
        second.close()
        assert (tmp_path / "object-1" / "0000003.safetensors").is_file()

    def test_reset_and_removal_delete_what_was_stored(self, forgetful, movie, tmp_path):
        state = forgetful.init_state(movie, storage_dir=tmp_path)
        for obj in (1, 2):
            click(forgetful, state, 0, obj)
        track(forgetful, state, max_frame_num_to_track=5)
        assert len(list(tmp_path.glob("*/*"))) == 10
        forgetful.remove_object(state, 1)
        assert len(list(tmp_path.glob("*/*"))) == 5
        forgetful.reset_state(state)
        assert list(tmp_path.glob("*/*")) == []

    def test_results_may_stay_in_main_memory(self, predictor, movie, expected):
        state = predictor.init_state(movie, offload_state_to_cpu=True, offload_video_to_cpu=True)
        click(predictor, state, 0, 1)
        assert_same(track(predictor, state, max_frame_num_to_track=2), {f: expected[f] for f in range(3)}, tolerance=0)
        assert state.objects[1].tracked[1].masks.device.type == "cpu"


class TestEmbeddings:
    @pytest.fixture
    def embedded(self, predictor, monkeypatch):
        """One entry for every image that is embedded."""
        calls = []
        forward = predictor.model.forward_image
        monkeypatch.setattr(predictor.model, "forward_image", lambda x: calls.append(1) or forward(x))
        return calls

    def test_masks_are_the_same_wherever_the_embedding_comes_from(self, predictor, movie, embedded, tmp_path):
        views = []
        for _ in range(2):  # two processes, as it were
            views += [EmbeddingCache(tmp_path).of(predictor.embedding_key, "movie")] * 2
        answers = [click(predictor, predictor.init_state(movie, embeddings=view), 3, 1)[2] for view in views]
        assert len(embedded) == 1
        for other in answers[1:]:
            assert torch.equal(other, answers[0])
        _, _, exact = click(predictor, predictor.init_state(movie), 3, 1)
        torch.testing.assert_close(answers[0], exact, atol=0.02, rtol=0.01)

    def test_propagation_keeps_nothing_and_uses_what_is_there(self, predictor, movie, embedded):
        view = EmbeddingCache(None).of(predictor.embedding_key, "movie")
        state = predictor.init_state(movie, embeddings=view)
        click(predictor, state, 2, 1)
        first = track(predictor, state)
        assert len(embedded) == 10
        assert [frame for frame in range(12) if frame in view] == [2]
        for frame in range(12):
            assert predictor.embed(state.frames.source, frame, view) == (frame != 2)
        embedded.clear()
        state = predictor.init_state(movie, embeddings=view)
        click(predictor, state, 2, 1)
        assert_same(track(predictor, state), first, tolerance=0)
        assert embedded == []

    def test_other_models_have_other_keys(self, small_model, make_model):
        keys = {SAM2VideoPredictor(model).embedding_key for model in (small_model, make_model(image_size=96))}
        keys.add(SAM2VideoPredictor(small_model, precision="bfloat16").embedding_key)
        assert len(keys) == 3
        assert SAM2VideoPredictor(small_model).embedding_key in keys


class TestConfidence:
    def test_is_the_predicted_iou_times_the_probability_of_the_object(self, predictor, movie, monkeypatch):
        state = predictor.init_state(movie)
        answers = []
        segment = predictor.model.segment

        def noted(*args, **options):
            answers.append(segment(*args, **options))
            return answers[-1]

        monkeypatch.setattr(predictor.model, "segment", noted)
        click(predictor, state, 0, 1)
        track(predictor, state, max_frame_num_to_track=2)
        assert [answer.ious.shape for answer in answers] == [(1, 3)] * 3
        for frame, answer in enumerate(answers):
            expected = answer.ious.max() * answer.object_score_logits.sigmoid()
            assert 0 < expected < 1
            assert predictor.confidence(state, frame, 1) == pytest.approx(float(expected))

    def test_each_object_of_a_batch_has_its_own(self, predictor, movie):
        state = predictor.init_state(movie)
        for obj, x in ((1, 10.0), (2, 28.0)):
            click(predictor, state, 0, obj, x=x)
        track(predictor, state, max_frame_num_to_track=1)
        for obj, x in ((1, 10.0), (2, 28.0)):
            alone = predictor.init_state(movie)
            click(predictor, alone, 0, obj, x=x)
            track(predictor, alone, max_frame_num_to_track=1)
            together = predictor.confidence(state, 1, obj)
            assert together == pytest.approx(predictor.confidence(alone, 1, obj), abs=1e-4)
        assert predictor.confidence(state, 1, 1) != pytest.approx(predictor.confidence(state, 1, 2), abs=1e-4)

    def test_of_a_given_mask_is_nearly_one(self, predictor, movie):
        state = predictor.init_state(movie)
        mask = np.zeros((40, 56), bool)
        predictor.add_new_mask(state, 0, 1, mask)
        assert predictor.confidence(state, 0, 1) == 0
        mask[10:30, 14:42] = True
        predictor.add_new_mask(state, 0, 1, mask)
        assert predictor.confidence(state, 0, 1) == pytest.approx(1, abs=1e-3)

    def test_is_zero_where_the_object_is_absent(self, make_model, movie):
        predictor = SAM2VideoPredictor(make_model(object_score=-5.0))
        state = predictor.init_state(movie)
        click(predictor, state, 0, 1)
        track(predictor, state, max_frame_num_to_track=1)
        assert predictor.confidence(state, 0, 1) == predictor.confidence(state, 1, 1) == 0

    def test_survives_the_process(self, predictor, movie, tmp_path):
        state = predictor.init_state(movie, storage_dir=tmp_path)
        click(predictor, state, 0, 1)
        track(predictor, state, max_frame_num_to_track=2)
        again = predictor.init_state(movie, storage_dir=tmp_path)
        click(predictor, again, 0, 1)
        again.restore()
        for frame in (1, 2):
            assert predictor.confidence(again, frame, 1) == predictor.confidence(state, frame, 1) > 0

    def test_needs_a_result(self, predictor, movie):
        state = predictor.init_state(movie)
        click(predictor, state, 0, 1)
        for frame, obj in ((1, 1), (0, 2)):
            with pytest.raises(InputError, match=f"object {obj} has no result on frame {frame}"):
                predictor.confidence(state, frame, obj)

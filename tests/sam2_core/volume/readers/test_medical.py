"""NIfTI and DICOM."""

import gzip
import sys

import numpy as np
import pytest

from sam2_core.errors import InputError, MissingDependencyError
from sam2_core.volume import open_volume

DATA = np.random.default_rng(0).integers(-500, 500, (7, 6, 5, 4), dtype=np.int16)  # x, y, z, t


def write_nifti(path, data=DATA, slope=None, affine=None):
    nibabel = pytest.importorskip("nibabel")
    image = nibabel.Nifti1Image(data, np.diag([0.5, 0.5, 3.0, 1.0]) if affine is None else affine)
    if data.ndim == 4:
        image.header.set_zooms((0.5, 0.5, 3.0, 40.0))
    image.header.set_xyzt_units("mm", "msec")
    if slope is not None:
        image.header.set_slope_inter(*slope)
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_nifti_is_turned_round(tmp_path, name):
    volume = open_volume(write_nifti(tmp_path / name))
    assert (volume.format, volume.axes, volume.shape) == ("NIfTI", "tzyx", (4, 5, 6, 7))
    assert volume.scale == {"t": 40.0, "z": 3.0, "y": 0.5, "x": 0.5}
    assert volume.units == {"t": "millisecond", "z": "millimeter", "y": "millimeter", "x": "millimeter"}
    assert np.array_equal(volume.data.compute(), DATA.T)
    assert np.array_equal(volume.plane("x", 3, {"t": 2}), DATA[3, :, :, 2].T)
    assert np.array_equal(volume.affine, np.diag([0.5, 0.5, 3.0, 1.0]))


def test_nifti_slope_and_origin(tmp_path):
    affine = np.diag([0.5, 0.5, 3.0, 1.0])
    affine[:3, 3] = [1, 2, 3]
    nibabel = pytest.importorskip("nibabel")
    image = nibabel.Nifti1Image(DATA[..., 0], affine)
    image.header.set_slope_inter(2.0, 10.0)
    image.to_filename(tmp_path / "a.nii")
    expected = np.asarray(nibabel.load(tmp_path / "a.nii").dataobj)
    volume = open_volume(tmp_path / "a.nii")
    assert volume.axes == "zyx"
    assert volume.translation == {"z": 3.0, "y": 2.0, "x": 1.0}
    assert np.allclose(volume.data.compute(), expected.T)


def test_short_nifti(tmp_path):
    whole = write_nifti(tmp_path / "a.nii").read_bytes()
    (tmp_path / "short.nii").write_bytes(whole[:-100])
    with pytest.raises(InputError, match="shorter than its header says"):
        open_volume(tmp_path / "short.nii")
    (tmp_path / "short.nii.gz").write_bytes(gzip.compress(whole[:-100]))
    with pytest.raises(InputError, match="shorter than its header says"):
        open_volume(tmp_path / "short.nii.gz").read()
    (tmp_path / "cut.nii.gz").write_bytes(gzip.compress(whole, mtime=0)[:-200])
    with pytest.raises(InputError, match="cannot be unpacked"):
        open_volume(tmp_path / "cut.nii.gz").read()
    (tmp_path / "none.nii").write_bytes(b"no header at all")
    with pytest.raises(InputError, match="cannot be read as NIfTI"):
        open_volume(tmp_path / "none.nii")


def write_slice(path, pixels, z, instance, series="1.2.3", slope=1, intercept=0):
    """One file; `pixels` (y, x), or (frames, y, x) for a multi-frame file."""
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = f"1.2.3.{instance}"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    d = pydicom.Dataset()
    d.file_meta = meta
    d.SOPClassUID, d.SOPInstanceUID, d.SeriesInstanceUID = MRImageStorage, meta.MediaStorageSOPInstanceUID, series
    d.Modality, d.PatientID, d.InstanceNumber = "MR", "p", instance
    d.Rows, d.Columns, d.SamplesPerPixel, d.PhotometricInterpretation = *pixels.shape[-2:], 1, "MONOCHROME2"
    if pixels.ndim == 3:
        d.NumberOfFrames, d.SpacingBetweenSlices = len(pixels), 2.5
    d.BitsAllocated, d.BitsStored, d.HighBit, d.PixelRepresentation = 16, 16, 15, 1
    d.PixelSpacing, d.ImagePositionPatient = [0.7, 0.5], [0, 0, z]
    d.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    d.RescaleSlope, d.RescaleIntercept = slope, intercept
    d.PixelData = pixels.astype("<i2").tobytes()
    d.save_as(path, enforce_file_format=True)


def test_a_dicom_series_is_sorted_by_position(tmp_path):
    for n, z in enumerate([6, 0, 9, 3]):  # files out of order
        write_slice(tmp_path / f"{n}.dcm", DATA[:, :, z // 3, 0], z, n)
    (tmp_path / "readme.txt").write_text("beside a series lie notes")
    volume = open_volume(tmp_path)
    assert (volume.format, volume.axes, volume.shape, volume.dtype) == ("DICOM", "zyx", (4, 7, 6), np.int16)
    assert volume.scale == {"z": 3.0, "y": 0.7, "x": 0.5}
    assert np.array_equal(volume.data.compute(), DATA[:, :, :4, 0].transpose(2, 0, 1))
    assert np.array_equal(volume.plane("x", 2), DATA[:, 2, :4, 0].T)
    single = open_volume(tmp_path / "1.dcm")
    assert (single.axes, single.shape) == ("yx", (7, 6))


def test_positions_taken_several_times_are_time(tmp_path):
    n = 0
    for t in range(3):
        for z in (4, 2):
            n += 1
            write_slice(tmp_path / f"{n:02d}", DATA[:, :, z, t], z, n)  # files without a suffix
    volume = open_volume(tmp_path)
    assert (volume.axes, volume.shape) == ("tzyx", (3, 2, 7, 6))
    assert np.array_equal(volume.plane("z", 1, {"t": 2}), DATA[:, :, 4, 2])
    (tmp_path / "06").unlink()
    with pytest.raises(InputError, match="not all taken equally often"):
        open_volume(tmp_path)


def test_a_multi_frame_file_is_a_stack(tmp_path):
    write_slice(tmp_path / "a.dcm", DATA[:, :, :, 0].transpose(2, 0, 1), 0, 1)
    volume = open_volume(tmp_path / "a.dcm")
    assert (volume.axes, volume.shape, volume.scale["z"]) == ("zyx", (5, 7, 6), 2.5)
    assert np.array_equal(volume.plane("z", 3), DATA[:, :, 3, 0])


def test_dicom_rescale(tmp_path):
    write_slice(tmp_path / "a.dcm", DATA[:, :, 0, 0], 0, 1, slope=2, intercept=-1000)
    write_slice(tmp_path / "b.dcm", DATA[:, :, 1, 0], 1, 2, slope=3, intercept=0)
    volume = open_volume(tmp_path)
    assert volume.dtype == np.float32
    assert np.array_equal(volume.plane("z", 0), DATA[:, :, 0, 0] * 2.0 - 1000)
    assert np.array_equal(volume.plane("z", 1), DATA[:, :, 1, 0] * 3.0)


def test_mixed_or_damaged_dicom(tmp_path):
    write_slice(tmp_path / "a.dcm", DATA[:, :, 0, 0], 0, 1)
    write_slice(tmp_path / "b.dcm", DATA[:, :, 0, 0], 1, 2, series="1.2.4")
    with pytest.raises(InputError, match="2 DICOM series"):
        open_volume(tmp_path)
    write_slice(tmp_path / "b.dcm", DATA[:5, :, 0, 0], 1, 2)
    with pytest.raises(InputError, match="different sizes"):
        open_volume(tmp_path)
    (tmp_path / "b.dcm").write_bytes(b"rubbish")
    with pytest.raises(InputError, match="cannot be read as DICOM"):
        open_volume(tmp_path)


@pytest.mark.parametrize(("package", "name"), [("nibabel", "a.nii"), ("pydicom", "a.dcm")])
def test_a_missing_package_names_its_extra(tmp_path, monkeypatch, package, name):
    (tmp_path / name).write_bytes(b"anything")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependencyError, match=r"napari-sam2\[medical\]"):
        open_volume(tmp_path / name)

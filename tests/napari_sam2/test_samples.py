"""The two samples: there without a network, the same every time, placed in micrometres."""

import socket

import numpy as np
import pytest

from sam2_core.errors import MissingDependencyError

pytest.importorskip("napari")
from napari.layers import Layer

from napari_sam2 import samples


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a sample asked for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_cells_in_time():
    pytest.importorskip("ndev_sampledata")
    light, nuclei = (Layer.create(*layer) for layer in samples.cells_in_time())
    assert not light.visible
    assert nuclei.visible
    assert nuclei.axis_labels == ("t", "y", "x")
    assert nuclei.data.shape[0] == 10
    assert str(nuclei.units[-1]) == "micrometer"
    assert nuclei.metadata["sam2"]["axes"] == "tyx"


def test_cells_in_time_say_what_to_install(monkeypatch):
    monkeypatch.setattr(samples, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r'pip install "napari-sam2\[demo\]"'):
        samples.cells_in_time()


def test_nuclei_in_depth():
    (layer,) = (Layer.create(*layer) for layer in samples.nuclei_in_depth())
    assert layer.data.shape == (48, 256, 256)
    assert layer.data.dtype == np.uint16
    assert layer.scale.tolist() == list(samples.SPACING)
    assert layer.axis_labels == ("z", "y", "x")
    low, high = layer.contrast_limits
    dark, bright = np.percentile(layer.data, (5, 99))
    assert low <= dark < bright < high


def test_the_stack_is_the_same_every_time_and_has_its_nuclei():
    from scipy.ndimage import gaussian_filter, label

    stack = samples.nuclei_stack((24, 96, 96), count=8)
    assert np.array_equal(stack, samples.nuclei_stack((24, 96, 96), count=8))
    _, found = label(gaussian_filter(stack.astype(np.float32), (0.8, 2, 2)) > 500)
    assert 5 <= found <= 8  # some touch, or lie at the rim

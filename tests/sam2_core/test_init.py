"""The package's public names."""

import pytest

import sam2_core


@pytest.mark.parametrize("name", sam2_core.__all__)
def test_every_public_name_is_there(name):
    assert name in dir(sam2_core)
    assert getattr(sam2_core, name) is getattr(sam2_core, name)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        sam2_core.nothing  # noqa: B018

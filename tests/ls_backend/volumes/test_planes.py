"""Planes behind signed addresses: what is shown, and what nobody can make the server show."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from starlette.testclient import TestClient

from ls_backend.errors import NotFoundError, RequestError
from ls_backend.volumes.planes import PlaneAddresses, PlaneReader, PlaneSeries, plane_pixels
from ls_backend.volumes.routes import PlaneRoutes
from sam2_core.volume import open_volume
from tests.ls_backend.volumes.made_volumes import KEY, URL, movie, write_ome


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a movie in it, and a volume beside it."""
    home = tmp_path_factory.mktemp("planes")
    (home / "shown").mkdir()
    write_ome(home / "shown" / "movie.zarr", movie(), "tczyx", levels=2)
    write_ome(home / "hidden.zarr", movie()[0, 0], "zyx")
    return home


def series_of(path, **changes):
    shown = PlaneSeries(str(path), None, 0, "z", (("t", 1),), (0,), ((0.0, 3000.0),))
    return replace(shown, **changes)


@pytest.fixture
def addresses():
    return PlaneAddresses(KEY, URL)


@pytest.fixture
def client(folder):
    """A server of the folder, and the way to its addresses."""
    routes = PlaneRoutes(KEY, [folder / "shown"], URL)
    app = FastAPI()
    app.include_router(routes.router)

    @app.exception_handler(RequestError)
    async def refused(_, error):
        return JSONResponse({"error": str(error)}, error.status)

    with TestClient(app, base_url=URL) as client:
        yield client


def pixels(response):
    assert response.status_code == 200, response.text
    return np.asarray(Image.open(io.BytesIO(response.content)))


def test_a_plane_of_a_time_point_is_shown_through_its_window(folder, client, addresses):
    series = series_of(folder / "shown" / "movie.zarr")
    address = addresses.make(series, [3])[0]
    expected = np.rint(np.clip(movie()[1, 0, 3] / 3000, 0, 1) * 255)
    response = client.get(address)
    np.testing.assert_allclose(pixels(response), expected, atol=1)
    assert response.headers["content-type"] == "image/png"


def test_channels_become_colours_and_levels_are_smaller(folder, client, addresses):
    path = folder / "shown" / "movie.zarr"
    series = series_of(path, level=1, channels=(1, 0), windows=((20000.0, 23000.0), (0.0, 3000.0)))
    shown = pixels(client.get(addresses.make(series, [0])[0]))
    assert shown.shape == (12, 16, 3)
    raw = movie()[1, :, 0, ::2, ::2]
    np.testing.assert_allclose(shown[..., 0], (raw[1] - 20000.0) / 3000 * 255, atol=1)
    np.testing.assert_allclose(shown[..., 1], raw[0] / 3000 * 255, atol=1)
    assert not shown[..., 2].any()


def test_planes_across_time_and_across_y(folder, client, addresses):
    path = folder / "shown" / "movie.zarr"
    along_t = series_of(path, axis="t", fixed=(("z", 2),))
    np.testing.assert_allclose(
        pixels(client.get(addresses.make(along_t, [2])[0])), movie()[2, 0, 2] / 3000 * 255, atol=1
    )
    across_y = series_of(path, axis="y")
    np.testing.assert_allclose(
        pixels(client.get(addresses.make(across_y, [7])[0])), movie()[1, 0, :, 7] / 3000 * 255, atol=1
    )


def test_browsers_may_read_and_keep_a_plane(folder, client, addresses):
    address = addresses.make(series_of(folder / "shown" / "movie.zarr"), [3])[0]
    first = client.get(address, headers={"Origin": "http://label-studio.test"})
    assert first.headers["access-control-allow-origin"] == "*"
    assert "max-age" in first.headers["cache-control"]
    again = client.get(address, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get(address, headers={"If-None-Match": '"another"'}).status_code == 200


def test_a_volume_that_was_replaced_is_read_anew(tmp_path, addresses):
    path = tmp_path / "stack.zarr"
    write_ome(path, np.zeros((2, 8, 8), np.uint8), "zyx")
    reader = PlaneReader(addresses, [tmp_path])
    token = addresses.token(series_of(path, fixed=(), windows=((0.0, 255.0),)))
    before = reader.picture(token, 0)
    path.rename(tmp_path / "old.zarr")
    write_ome(path, np.full((2, 8, 8), 200, np.uint8), "zyx")
    after = reader.picture(token, 0)
    assert after.etag != before.etag
    assert np.asarray(Image.open(io.BytesIO(after.content))).max() == 200


def forged(token, change):
    """A token whose content was changed, with the signature of the old one."""
    content, _, signature = token.partition(".")
    plain = json.loads(base64.urlsafe_b64decode(content + "=" * (-len(content) % 4)))
    text = base64.urlsafe_b64encode(json.dumps(change(plain)).encode()).rstrip(b"=").decode()
    return f"{text}.{signature}"


def test_what_was_not_signed_here_is_not_read(folder, client, addresses):
    shown = series_of(folder / "shown" / "movie.zarr")
    token = addresses.token(shown)
    other = forged(token, lambda plain: [*plain[:1], str(folder / "shown" / "other.zarr"), *plain[2:]])
    for bad in (other, f"{token[:-1]}{'A' if token[-1] != 'A' else 'B'}", PlaneAddresses(b"x" * 32, URL).token(shown)):
        response = client.get(f"/planes/{bad}/0.png")
        assert response.status_code == 404
        assert "not made by this server" in response.json()["error"]
        assert addresses.read(f"{URL}/planes/{bad}/0.png") is None
    assert client.get("/planes/nothing/0.png").status_code == 422


def test_only_volumes_below_the_folders_are_shown(folder, client, addresses):
    (folder / "shown" / "link.zarr").unlink(missing_ok=True)
    (folder / "shown" / "link.zarr").symlink_to(folder / "hidden.zarr")
    outside = folder / "hidden.zarr"
    for path in (outside, folder / "shown" / ".." / "hidden.zarr", folder / "shown" / "link.zarr"):
        response = client.get(addresses.make(series_of(path, fixed=()), [0])[0])
        assert response.status_code == 404
        assert "--volumes" in response.json()["error"]
    gone = client.get(addresses.make(series_of(folder / "shown" / "gone.zarr"), [0])[0])
    assert gone.status_code == 404
    assert "is gone" in gone.json()["error"]
    assert str(folder) not in gone.json()["error"]


def test_planes_that_are_not_there_and_addresses_that_have_expired(folder, client, addresses):
    path = folder / "shown" / "movie.zarr"
    missing = client.get(addresses.make(series_of(path), [5])[0])
    assert missing.status_code == 404
    assert "5 planes" in missing.json()["error"]
    expired = series_of(path, expires=1000)
    response = client.get(addresses.make(expired, [0])[0])
    assert response.status_code == 404
    assert "expired" in response.json()["error"]
    assert addresses.read(addresses.make(expired, [0])[0]) == (expired, 0)


def test_planes_of_our_own_are_read_without_asking_the_web(folder, addresses):
    reader = PlaneReader(addresses, [folder / "shown"])
    address = addresses.make(series_of(folder / "shown" / "movie.zarr"), [4])[0]
    for known in (address, address.replace(URL, "https://elsewhere.test/behind/a/proxy")):
        source, index = reader.local_plane(known)
        assert index == 4
        np.testing.assert_array_equal(source.raw(index)[..., 0], movie()[1, 0, 4])
        assert plane_pixels(source, index).dtype == np.uint8
    assert reader.local_plane("http://label-studio.test/data/upload/1/cell.png") is None
    assert reader.local_plane("http://[broken") is None
    with pytest.raises(NotFoundError, match="5 planes"):
        reader.local_plane(address.replace("/4.png", "/5.png"))


def test_without_folders_nothing_is_shown(folder, addresses):
    reader = PlaneReader(addresses, [])
    with pytest.raises(NotFoundError, match="--volumes"):
        reader.picture(addresses.token(series_of(folder / "shown" / "movie.zarr")), 0)


def test_pictures_are_kept_within_their_bound(folder, addresses, monkeypatch):
    path = folder / "shown" / "movie.zarr"
    made = []
    monkeypatch.setattr(
        "ls_backend.volumes.planes.plane_pixels", lambda source, i: made.append(i) or plane_pixels(source, i)
    )
    token = addresses.token(series_of(path))
    size = len(PlaneReader(addresses, [folder]).picture(token, 0).content)
    reader = PlaneReader(addresses, [folder], cache_bytes=int(2.5 * size))
    made.clear()
    for index in (0, 1, 0, 2, 0, 1):
        reader.picture(token, index)
    assert made == [0, 1, 2, 1]


@given(
    st.builds(
        PlaneSeries,
        path=st.text(min_size=1, max_size=60),
        axes=st.sampled_from([None, "zyx", "tczyx"]),
        level=st.integers(0, 9),
        axis=st.sampled_from([None, "t", "z", "y", "x"]),
        fixed=st.dictionaries(st.sampled_from("tz"), st.integers(0, 10**6)).map(lambda d: tuple(d.items())),
        channels=st.lists(st.integers(0, 99), min_size=1, max_size=3).map(tuple),
        windows=st.lists(st.tuples(st.floats(-1e9, 0), st.floats(1, 1e9)), min_size=1, max_size=3).map(tuple),
        expires=st.none() | st.integers(0, 2**40),
    ),
    st.integers(0, 10**9 - 1),
)
def test_an_address_says_what_was_put_into_it(series, index):
    addresses = PlaneAddresses(KEY, URL)
    assert addresses.read(addresses.make(series, [index])[0]) == (series, index)


@given(st.text(max_size=80))
def test_no_text_breaks_the_reading_of_addresses(text):
    addresses = PlaneAddresses(KEY, URL)
    assert addresses.read(text) is None
    assert addresses.read(f"{URL}/planes/{text}.{'A' * 22}/0.png") is None


def test_uint8_colours_are_shown_as_they_are(tmp_path, addresses):
    data = np.random.default_rng(1).integers(0, 255, (12, 10, 3), dtype=np.uint8)
    Image.fromarray(data).save(tmp_path / "photo.png")
    reader = PlaneReader(addresses, [tmp_path])
    volume = open_volume(tmp_path / "photo.png")
    series = PlaneSeries(str(volume.path), None, 0, None, (), (0, 1, 2), ((0.0, 255.0),) * 3)
    shown = Image.open(io.BytesIO(reader.picture(addresses.token(series), 0).content))
    np.testing.assert_array_equal(np.asarray(shown), data)

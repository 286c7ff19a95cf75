"""Volumes go to Label Studio and their labels come back, by the command line."""

from __future__ import annotations

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient
from typer.testing import CliRunner

from ls_backend.settings import Settings, note_addresses, signing_key
from ls_backend.volumes.routes import PlaneRoutes
from sam2_core.cli.main import app
from sam2_core.labelstore import LabelStore
from sam2_core.volume import LabelVolume, open_volume
from tests.ls_backend.volumes.made_volumes import FakeLabelStudio, box, brush, movie, write_ome

MASK = box((24, 32), (4, 12), (3, 11))


@pytest.fixture
def image(tmp_path):
    return write_ome(tmp_path / "data" / "stack.zarr", movie()[0, 0], "zyx", scale={"z": 3.0}, translation={"x": 9.0})


@pytest.fixture
def fake(monkeypatch):
    """Label Studio, without a network."""
    fake = FakeLabelStudio()
    monkeypatch.setattr("ls_backend.studio.client.LabelStudio", lambda *_, **__: fake)
    return fake


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A running server: what it is asked by the command line it answers."""
    (tmp_path / "data").mkdir(exist_ok=True)
    served = FastAPI()
    served.include_router(
        PlaneRoutes(signing_key(tmp_path / "lab.server"), [tmp_path / "data"], "http://unused").router
    )
    client = TestClient(served, raise_server_exceptions=False)
    monkeypatch.setattr(httpx, "get", lambda address, **_: client.get(address))
    return client


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "0" * 40)
    monkeypatch.setenv("SAM2_SERVE_LABELS", str(tmp_path / "lab"))

    def do(*words):
        return CliRunner().invoke(app, ["labels", *map(str, words)])

    return do


def test_there_and_back(tmp_path, image, fake, server, run):
    made = run("to-label-studio", image, "--create", "nuclei", "--label", "nucleus", "--per-task", 3)
    assert made.exit_code == 0, made.output
    assert "2 tasks" in made.output
    assert fake.projects[1]["title"] == "nuclei"
    assert fake.connected[0]["project"] == 1
    assert [len(t["data"]["frames"]) for t in fake.tasks] == [3, 2]
    assert all(server.get(f).status_code == 200 for t in fake.tasks for f in t["data"]["frames"])

    fake.annotate(1, [brush(MASK, 2)])
    fake.annotate(2, [brush(~MASK, 0)], updated_at="2031-01-01")  # an older one counts less, a skipped one not at all
    fake.annotate(2, [brush(MASK, 0)], updated_at="2032-01-01")
    fake.annotate(2, [], updated_at="2033-01-01", was_cancelled=True)
    out, store = tmp_path / "out.zarr", tmp_path / "store"
    back = run("from-label-studio", "--project", 1, "--out", out, "--store", store)
    assert back.exit_code == 0, back.output
    assert "1 object of 2 tasks, 5 of 5 planes complete" in back.output
    labels = LabelVolume.open(out)
    expected = np.zeros((5, 24, 32), np.uint32)
    expected[2:4] = MASK
    np.testing.assert_array_equal(labels.volume.read(), expected)
    original = open_volume(image)
    assert (labels.volume.scale, labels.volume.translation) == (original.scale, original.translation)
    (item,) = LabelStore(store).items()
    assert item.record.provenance.source.endswith("/projects/1")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "lab.server", "out.zarr", "store"]
    assert fake.closed == 2


def test_what_is_there_already_is_passed_over(image, fake, server, run):
    run("to-label-studio", image, "--create", "nuclei", "--range", "0:2", "--window", "0,3000")
    again = run("to-label-studio", image, "--project", 1, "--range", "0:2", "--window", "0,3000")
    assert again.exit_code == 0, again.output
    assert "0 tasks, 1 were there already" in again.output
    assert len(fake.tasks) == 1
    run("to-label-studio", image, "--project", 1, "--range", "2:5", "--window", "0,3000")
    assert len(fake.tasks) == 2


def test_a_project_gets_the_frames_where_its_setup_wants_them(image, fake, server, run):
    fake.projects[4] = {"id": 4, "label_config": '<View><Image name="i" valueList="$pages"/></View>'}
    assert run("to-label-studio", image, "--project", 4).exit_code == 0
    assert set(fake.tasks[0]["data"]) == {"pages", "volume", "planes"}
    fake.projects[5] = {"id": 5, "label_config": '<View><Image name="i" value="$image"/></View>'}
    refused = run("to-label-studio", image, "--project", 5)
    assert refused.exit_code == 2
    assert "valueList" in refused.output


def test_labels_of_an_image_can_go_into_it(image, fake, server, run):
    run("to-label-studio", image, "--create", "nuclei")
    fake.annotate(1, [brush(MASK, 0)])
    assert run("from-label-studio", "--project", 1, "--out", image).exit_code == 0
    assert LabelVolume.open(image).path == image / "labels" / "sam2"
    again = run("from-label-studio", "--project", 1, "--out", image)
    assert again.exit_code == 2
    assert "--overwrite" in again.output
    assert run("from-label-studio", "--project", 1, "--out", image, "--overwrite").exit_code == 0


def test_of_several_volumes_one_is_chosen(tmp_path, image, fake, server, run):
    other = write_ome(tmp_path / "data" / "other.zarr", movie()[1, 0], "zyx")
    run("to-label-studio", image, "--create", "nuclei")
    run("to-label-studio", other, "--project", 1)
    for task in (1, 2):
        fake.annotate(task, [brush(MASK, 0)])
    out = tmp_path / "out.zarr"
    unclear = run("from-label-studio", "--project", 1, "--out", out)
    assert unclear.exit_code == 2
    assert "stack.zarr, level 0, along z, channel 0" in unclear.output
    assert "--volume" in unclear.output
    assert run("from-label-studio", "--project", 1, "--out", out, "--volume", "nothing").exit_code == 2
    assert run("from-label-studio", "--project", 1, "--out", out, "--volume", "other").exit_code == 0


def test_a_server_that_does_not_show_the_volume_is_noticed_before_tasks_are_made(
    tmp_path, fake, server, run, monkeypatch, image
):
    outside = write_ome(tmp_path / "outside.zarr", movie()[0, 0], "zyx")
    refused = run("to-label-studio", outside, "--create", "nuclei")
    assert refused.exit_code == 2
    assert "does not show this volume" in refused.output

    def unreachable(address, **_):
        raise httpx.ConnectError("refused")

    monkeypatch.setattr(httpx, "get", unreachable)
    refused = run("to-label-studio", image, "--create", "nuclei")
    assert refused.exit_code == 2
    assert "no server answers at http://127.0.0.1:9090" in refused.output
    assert not fake.projects


def test_the_server_is_where_it_noted_that_it_is(tmp_path, image, fake, server, run, monkeypatch):
    note_addresses(Settings(labels=tmp_path / "lab", port=9911, public_url="https://sam2.example.org"))
    asked = []

    def only_local(address, **_):
        asked.append(address)
        if address.startswith("https:"):
            raise httpx.ConnectError("that name leads nowhere from here")
        return server.get(address)

    monkeypatch.setattr(httpx, "get", only_local)
    made = run("to-label-studio", image, "--create", "nuclei")
    assert made.exit_code == 0
    assert "browsers have to reach" in made.output
    assert [address.partition("/planes/")[0] for address in asked] == [
        "https://sam2.example.org",
        "http://127.0.0.1:9911",
    ]
    assert fake.tasks[0]["data"]["frames"][0].startswith("https://sam2.example.org/planes/")


def test_tasks_that_are_there_get_the_addresses_of_now(image, fake, server, run):
    run("to-label-studio", image, "--create", "nuclei", "--days", 1)
    again = run("to-label-studio", image, "--project", 1, "--backend-url", "http://127.0.0.1:9911", "--days", 2)
    assert again.exit_code == 0, again.output
    assert "0 tasks, 1 were there already (1 with other addresses" in again.output
    (task,) = fake.tasks
    assert all(frame.startswith("http://127.0.0.1:9911/planes/") for frame in task["data"]["frames"])


def test_a_title_that_is_there_makes_no_second_project(image, fake, server, run):
    run("to-label-studio", image, "--create", "nuclei")
    again = run("to-label-studio", image, "--create", "nuclei")
    assert again.exit_code == 2
    assert "give --project 1" in again.output
    assert len(fake.projects) == 1


def test_it_is_told_which_channel_is_shown(tmp_path, fake, server, run):
    image = write_ome(tmp_path / "data" / "two.zarr", movie()[0], "czyx")
    made = run("to-label-studio", image, "--create", "nuclei", "--channel", "1")
    assert "two.zarr, channel 1: 1 task" in made.output


def test_a_server_that_cannot_be_connected_is_told_and_no_hindrance(image, fake, server, run):
    fake.refuses_servers = True
    made = run("to-label-studio", image, "--create", "nuclei")
    assert made.exit_code == 0
    assert "was not connected" in made.output
    assert len(fake.tasks) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--create"),
        (["--project", 1, "--create", "a"], "--create"),
        (["--project", 1, "--label", "a"], "give --create"),
        (["--create", "a", "--label", "b", "--label", "b"], "name of its own"),
        (["--create", "a", "--range", "9:12"], "range"),
        (["--create", "a", "--channel", "7"], "channel"),
        (["--create", "a", "--labels", "elsewhere"], "sam2 serve"),
    ],
)
def test_mistakes_are_told(image, fake, server, run, words, said):
    result = run("to-label-studio", image, *words)
    assert result.exit_code == 2
    assert said in result.output
    assert not fake.tasks


def test_mistakes_on_the_way_back_are_told(tmp_path, image, fake, server, run, monkeypatch):
    assert "--store" in run("from-label-studio", "--project", 1).output
    run("to-label-studio", image, "--create", "nuclei")
    empty = run("from-label-studio", "--project", 1, "--out", tmp_path / "out.zarr")
    assert empty.exit_code == 2
    assert "nothing is labelled in project 1 yet" in empty.output
    signing_key(tmp_path / "other.server")
    elsewhere = run("from-label-studio", "--project", 1, "--out", tmp_path / "out.zarr", "--labels", tmp_path / "other")
    assert elsewhere.exit_code == 2
    assert "--labels and --state" in elsewhere.output
    monkeypatch.delenv("LABEL_STUDIO_API_KEY")
    without = run("from-label-studio", "--project", 1, "--out", tmp_path / "out.zarr")
    assert without.exit_code == 2
    assert "LABEL_STUDIO_API_KEY" in without.output

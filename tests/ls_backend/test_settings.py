"""Settings come from flags, variables and a file, in this order, and bad ones are told in a sentence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ls_backend.settings import Settings, forget_secrets, load_settings, signing_key
from sam2_core.errors import InputError


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("LABEL_STUDIO_", "SAM2_SERVE_")):
            monkeypatch.delenv(name)


def test_flags_go_before_variables_and_variables_before_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text("port: 1\nmodel: from-file\ntrack_frames: 7\nLABEL_STUDIO_URL: http://file:1\n")
    monkeypatch.setenv("SAM2_SERVE_PORT", "2")
    monkeypatch.setenv("SAM2_SERVE_MODEL", "from-variable")
    settings = load_settings(file, port=3)
    assert (settings.port, settings.model, settings.track_frames) == (3, "from-variable", 7)
    assert str(settings.label_studio_url) == "http://file:1/"


def test_variables_of_label_studio_have_their_own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABEL_STUDIO_URL", "https://labels.example.org")
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "very secret")
    settings = load_settings()
    assert settings.label_studio_url.host == "labels.example.org"
    assert settings.label_studio_api_key is not None
    assert settings.label_studio_api_key.get_secret_value() == "very secret"


@pytest.mark.parametrize(
    ("folders", "hosts"),
    [
        ('["/data/a", "/data/b"]', '["one", "two:81"]'),
        (os.pathsep.join(["/data/a", "/data/b"]), "one, two:81"),
    ],
)
def test_variables_hold_several_folders_and_hosts(monkeypatch: pytest.MonkeyPatch, folders: str, hosts: str) -> None:
    monkeypatch.setenv("SAM2_SERVE_VOLUMES", folders)
    monkeypatch.setenv("SAM2_SERVE_ALLOWED_HOSTS", hosts)
    settings = load_settings()
    assert settings.volumes == (Path("/data/a"), Path("/data/b"))
    assert settings.allowed_hosts == ("one", "two:81")


def test_a_variable_that_is_no_list_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAM2_SERVE_VOLUMES", '["/data/a"')
    with pytest.raises(InputError, match=r"^volumes: "):
        load_settings()


def test_no_secret_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "very-secret")
    settings = load_settings(secret="also-secret", basic_auth="user:hidden", webhook_secret="concealed")
    shown = f"{settings!r} {settings} {settings.model_dump_json()}"
    assert not any(word in shown for word in ("very-secret", "also-secret", "hidden", "concealed"))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"port": 70000}, "^port: "),
        ({"host": "0.0.0.0"}, "SAM2_SERVE_SECRET"),
        ({"secret": "short"}, "^secret: has to be at least 8"),
        ({"secret": "with/a/slash"}, "^secret: "),
        ({"basic_auth": "no-password"}, "USER:PASSWORD"),
        ({"label_studio_url": "ftp://somewhere"}, "^label_studio_url: "),
        ({"pre_annotate": "sometimes"}, "^pre_annotate: "),
        ({"train_preset": "everything"}, "^train_preset: has to be one of head, decoder"),
        ({"unheard_of": 1}, "^unheard_of: "),
    ],
)
def test_a_bad_setting_is_named(given: dict, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence) as caught:
        load_settings(**given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("given", [{"secret": "long-enough"}, {"basic_auth": "user:word"}, {"open": True}])
def test_other_machines_may_come_in_where_somebody_checks_who_asks_or_wants_it_so(given: dict) -> None:
    assert not load_settings(host="0.0.0.0", **given).is_local


@pytest.mark.parametrize("content", ["port: [", "- a list", "just text"])
def test_a_file_that_is_none_is_told(tmp_path: Path, content: str) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text(content)
    with pytest.raises(InputError, match=r"serve\.yaml"):
        load_settings(file)
    with pytest.raises(InputError, match="no file of settings"):
        load_settings(tmp_path / "absent.yaml")


def test_the_address_that_others_see() -> None:
    assert Settings(host="127.0.0.1", port=1234).url == "http://127.0.0.1:1234"
    assert Settings(public_url="https://sam.example.org/").url == "https://sam.example.org"


def test_the_signing_key_stays_and_is_for_its_owner_alone(tmp_path: Path) -> None:
    key = signing_key(tmp_path / "state")
    assert len(key) == 32
    assert signing_key(tmp_path / "state") == key
    assert (tmp_path / "state" / "signing.key").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("content", ["", "00", "no key at all"])
def test_a_damaged_signing_key_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "signing.key").write_text(content)
    with pytest.raises(InputError, match="damaged"):
        signing_key(tmp_path)


def test_processes_that_are_started_get_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = {"LABEL_STUDIO_API_KEY": "k", "sam2_serve_secret": "s", "SAM2_SERVE_BASIC_AUTH": "u:p"}
    kept = {"SAM2_SERVE_PORT": "1234", "LABEL_STUDIO_URL": "http://ls.test"}
    for name, value in {**secret, **kept, "SAM2_SERVE_WEBHOOK_SECRET": "w"}.items():
        monkeypatch.setenv(name, value)
    forget_secrets()
    left = [name.upper() for name in os.environ]
    assert not {name.upper() for name in secret} & set(left)
    assert "SAM2_SERVE_WEBHOOK_SECRET" not in left
    assert set(kept) <= set(left)

"""Which addresses are fetched, and which never."""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import socket

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ls_backend.errors import ForbiddenAddressError, UpstreamError
from ls_backend.studio.addresses import AddressPolicy, resolve, shown
from sam2_core.errors import InputError

LABEL_STUDIO = "http://ls.example:8080"
ALLOWED = ("images.example", "minio:9000", "[2001:db8::5]:8000", "192.0.2.7")


def _policy(url: str = LABEL_STUDIO) -> AddressPolicy:
    return AddressPolicy(url, ALLOWED)


@pytest.mark.parametrize(
    "address",
    [
        "/data/upload/5/b3db859f-cell.png",
        "/data/local-files/?d=images/a%20b.png",
        "/storage-data/uploaded/?filepath=upload/1/a.png",
        "/tasks/7/resolve/?fileuri=czM6Ly9iL2s=",
        "/projects/3/resolve/?fileuri=czM6Ly9iL2s=",
        "/static/samples/sample.jpg",
    ],
)
@pytest.mark.parametrize("origin", ["", LABEL_STUDIO, "HTTP://LS.example:8080", "http://ls.example.:8080"])
def test_what_label_studio_serves_is_fetched_from_it_with_the_token(address, origin):
    target = _policy().target(origin + address)
    assert str(target.url).startswith(LABEL_STUDIO)
    assert target.url.raw_path.decode() == address
    assert target.authorised
    assert not target.foreign


def test_uploads_last_and_other_files_may_change():
    assert _policy().target("/data/upload/5/b3db859f-cell.png").lasting
    assert not _policy().target("/data/local-files/?d=a.png").lasting


@pytest.mark.parametrize(
    "address", ["/data/upload/1/a.png", "/ls/data/upload/1/a.png", "http://h/ls/data/upload/1/a.png"]
)
def test_label_studio_below_a_path(address):
    target = AddressPolicy("http://h/ls/").target(address)
    assert (str(target.url), target.authorised) == ("http://h/ls/data/upload/1/a.png", True)


@pytest.mark.parametrize("address", ["/api/users/", "/user/account", "/data/upload/../../api/users", "/", "", "?x=1"])
def test_other_paths_of_label_studio_get_no_token(address):
    target = _policy().target(LABEL_STUDIO + address)
    assert not target.authorised
    assert target.url.host == "ls.example"


@pytest.mark.parametrize("scheme", ["s3", "gs", "azure-blob"])
def test_clouds_are_resolved_by_label_studio(scheme):
    address = f"{scheme}://bucket/folder/ä b.png"
    target = _policy().target(address, task=7)
    assert target.url.path == "/tasks/7/resolve/"
    assert base64.urlsafe_b64decode(target.url.params["fileuri"]).decode() == address
    assert target.authorised
    with pytest.raises(ForbiddenAddressError, match="part of a task"):
        _policy().target(address)


@pytest.mark.parametrize(
    "address",
    [
        "https://images.example/a.png?x=1#there",
        "http://images.example:80/a.png",
        "http://IMAGES.example./a.png",
        "http://minio:9000/bucket/a.png",
        "http://[2001:db8:0::5]:8000/a.png",
        "http://192.0.2.7/a.png",
        "http://[::ffff:192.0.2.7]/a.png",
    ],
)
def test_allowed_hosts_are_fetched_from_without_the_token(address):
    target = _policy().target(address)
    assert target.foreign
    assert not target.authorised
    assert not target.url.fragment


FORBIDDEN = [
    "",
    "/etc/passwd",
    "/home/me/a.png",
    "images/a.png",
    "../a.png",
    "C:/a.png",
    "C:\\a.png",
    "//images.example/a.png",
    "/\\images.example/a.png",
    "/data/upload/../../../etc/passwd",
    "/data/upload/%2e%2e/%2e%2e/api/users",
    "/data/upload/..%2f..%2fapi/users",
    "/data/upload/..%5c..%5capi",
    "/tasks/7/annotations/",
    "/tasks/x/resolve/",
    "/api/users/",
    "/data/upload/a.png\r\nX-Header: 1",
    "/data/upload/a\0.png",
    "file:///etc/passwd",
    "FILE:/etc/passwd",
    "ftp://images.example/a.png",
    "gopher://images.example/a.png",
    "redis://bucket/a.png",
    "jar:http://images.example!/a.png",
    "javascript:alert(1)",
    "data:image/png;base64,AAAA",
    "http:images.example/a.png",
    "http:/images.example/a.png",
    "http:///a.png",
    "http://other.example/a.png",
    "http://images.example:8080/a.png",
    "http://minio/a.png",
    "http://images.example.evil.example/a.png",
    "http://evil.example#images.example/a.png",
    "http://images.example@evil.example/a.png",
    "http://user:password@images.example/a.png",
    "http://ls.example:8080@evil.example/data/upload/1/a.png",
    "http://ls.example%2eevil.example/a.png",
    "http://images.example\\@evil.example/a.png",
    "http://ｉmages.example/a.png",
    "http://images。example/a.png",
    "http://images.example:port/a.png",
    "http://images.example:99999/a.png",
    "http://localhost/a.png",
    "http://127.0.0.1/a.png",
    "http://127.1/a.png",
    "http://2130706433/a.png",
    "http://0x7f000001/a.png",
    "http://0x7f.1/a.png",
    "http://0177.0.0.1/a.png",
    "http://0/a.png",
    "http://[::1]/a.png",
    "http://[::ffff:127.0.0.1]/a.png",
    "http://[::ffff:7f00:1]/a.png",
    "http://[fe80::1%25eth0]/a.png",
    "http://[::1/a.png",
    "http://" + "a" * 9000,
]


@pytest.mark.parametrize("address", FORBIDDEN)
def test_what_is_never_fetched(address):
    with pytest.raises(ForbiddenAddressError) as caught:
        _policy().target(address, task=7)
    assert "password" not in str(caught.value).replace("/etc/passwd", "")
    assert len(str(caught.value)) < 600


METADATA = [
    "169.254.169.254",
    "169.254.170.2",
    "metadata.google.internal",
    "METADATA.google.internal.",
    "100.100.100.200",
    "[fd00:ec2::254]",
    "[::ffff:169.254.169.254]",
    "[::ffff:a9fe:a9fe]",
    "[64:ff9b::169.254.169.254]",
    "[2002:a9fe:a9fe::]",
    "[fe80::1]",
    "0.0.0.0",
    "[::]",
]


@pytest.mark.parametrize("host", METADATA)
def test_addresses_of_clouds_own_services_are_refused_even_if_they_are_allowed(host):
    policy = AddressPolicy(LABEL_STUDIO, [host])
    with pytest.raises(ForbiddenAddressError, match="never fetched from"):
        policy.target(f"http://{host}/latest/meta-data/")


def _resolved(monkeypatch, *addresses: str) -> list[str]:
    def getaddrinfo(host, port, *_, **__):
        if not addresses:
            raise socket.gaierror
        return [
            (socket.AF_INET6 if ":" in a else socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in addresses
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asyncio.run(resolve(httpx.URL("http://images.example/a.png")))


def test_a_name_is_resolved_to_the_addresses_that_were_checked(monkeypatch):
    assert _resolved(monkeypatch, "192.0.2.1", "2001:db8::1", "192.0.2.1") == ["192.0.2.1", "2001:db8::1"]
    assert _resolved(monkeypatch, "10.0.0.3") == ["10.0.0.3"]  # an allowed host may well be in the own network


@pytest.mark.parametrize("address", ["169.254.169.254", "fe80::1", "::ffff:169.254.0.1", "fd00:ec2::254", "224.0.0.1"])
def test_a_name_that_leads_to_a_forbidden_address_is_refused(monkeypatch, address):
    with pytest.raises(ForbiddenAddressError, match="leads to"):
        _resolved(monkeypatch, "192.0.2.1", address)


def test_an_unknown_name_says_so(monkeypatch):
    with pytest.raises(UpstreamError, match="is not known"):
        _resolved(monkeypatch)


def test_redirections_obey_the_same_rules():
    policy = _policy()
    start = policy.target("/tasks/7/resolve/?fileuri=x")
    assert policy.redirected(start, "/data/upload/1/a.png").authorised
    away = policy.redirected(start, "https://images.example/a.png?X-Signature=secret")
    assert (away.foreign, away.authorised) == (True, False)
    # the token does not come back with the address
    assert not policy.redirected(away, f"{LABEL_STUDIO}/data/upload/1/a.png").authorised
    for location in (
        "http://other.example/a.png",
        "file:///etc/passwd",
        "//evil.example/x",
        "/\\evil.example",
        "http://[",
    ):
        with pytest.raises(ForbiddenAddressError, match="redirects to"):
            policy.redirected(start, location)


@pytest.mark.parametrize(
    "url", ["ls.example", "ftp://ls.example", "http://u:p@ls.example", "http://ls.example/?a=1", ""]
)
def test_a_malformed_address_of_label_studio(url):
    with pytest.raises(InputError, match="is no address of a Label Studio"):
        AddressPolicy(url)


@pytest.mark.parametrize("host", ["http://a.example", "a.example/path", "*.example", "", "127.1", "a b"])
def test_a_malformed_allowed_host(host):
    with pytest.raises(InputError, match="allowed_hosts"):
        AddressPolicy(LABEL_STUDIO, [host])


def test_what_messages_show_of_an_address():
    assert shown("https://b.example/k.png?X-Amz-Signature=secret") == "https://b.example/k.png"
    assert shown("https://user:secret@b.example/k.png") == "https://b.example/k.png"
    assert shown("/data/local-files/?d=a/b.png") == "/data/local-files/?d=a/b.png"
    assert shown("data:image/png;base64,AAAA") == "data:image/png;base64,..."
    assert "\n" not in shown("a\nb")
    assert len(shown("/" + "a" * 5000)) < 200


_HOSTS = st.one_of(
    st.ip_addresses().map(lambda ip: f"[{ip}]" if ip.version == 6 else str(ip)),
    st.integers(0, 2**32 - 1).flatmap(
        lambda n: st.sampled_from([str(n), hex(n), oct(n).replace("o", ""), ".".join(map(hex, n.to_bytes(4, "big")))])
    ),
    st.from_regex(r"[a-zA-Z0-9@:%.\\/\[\]_-]{1,30}", fullmatch=True),
    st.sampled_from(["ls.example", "images.example", "minio", "metadata.google.internal", "localhost"]),
)


@given(
    scheme=st.sampled_from(["http", "https", "HTTP", "file", "ftp", ""]),
    user=st.sampled_from(["", "user@", "ls.example:8080@", "images.example\\@"]),
    host=_HOSTS,
    port=st.sampled_from(["", ":80", ":8080", ":9000", ":0", ":x"]),
    path=st.one_of(st.just("/data/upload/1/a.png"), st.text(max_size=30).map(lambda t: f"/{t}")),
)
@example(scheme="http", user="", host="ls.example", port=":8080", path="/data/upload/1/..")
def test_the_token_goes_to_files_of_label_studio_and_nothing_goes_elsewhere(scheme, user, host, port, path):
    try:
        target = _policy().target(f"{scheme}:{'//'}{user}{host}{port}{path}" if scheme else f"{user}{host}{port}{path}")
    except ForbiddenAddressError:
        return
    reached = target.url.host, target.url.port or {"http": 80, "https": 443}[target.url.scheme]
    assert not target.url.userinfo
    if target.foreign:
        assert not target.authorised
        named = {("minio", 9000), ("images.example", 80), ("images.example", 443)}
        named |= {("192.0.2.7", 80), ("192.0.2.7", 443), ("2001:db8::5", 8000)}
        host = target.url.host.rstrip(".").lower()
        try:
            ip = ipaddress.ip_address(host)
            host = str(getattr(ip, "ipv4_mapped", None) or ip)
        except ValueError:
            pass
        assert (host, reached[1]) in named
    else:
        assert reached == ("ls.example", 8080)
    if target.authorised:
        assert target.url.path.startswith(
            ("/data/", "/storage-data/", "/static/", "/tasks/", "/projects/", "/api/projects/")
        )
        assert ".." not in target.url.path.split("/")


@given(st.text(max_size=200))
def test_any_text_is_fetched_from_where_it_may_be_or_refused(text):
    try:
        target = _policy().target(text)
    except ForbiddenAddressError:
        return
    assert target.url.host in ("ls.example", "images.example", "minio", "192.0.2.7", "2001:db8::5")

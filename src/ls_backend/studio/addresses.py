"""Which addresses of task data are fetched, from where, and whether Label Studio's token goes with the request.

Whoever writes task data may mean no good: an address is fetched from Label Studio itself or from a host that the
settings allow, and from nowhere else. Nothing here connects to anything but a name server.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote

import httpx

from ls_backend.errors import ForbiddenAddressError, UpstreamError
from sam2_core.errors import InputError

MAX_LENGTH = 8192
"""Longest address in characters, `data:` addresses aside."""

CLOUD_SCHEMES = ("s3", "gs", "azure-blob")
"""Addresses that Label Studio resolves with the credentials of a project's storage."""

RESOLVE_SECONDS = 10
"""How long a name server may take."""

_PORTS = {"http": 80, "https": 443}
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):", re.IGNORECASE)
_WEB = re.compile(r"(?P<scheme>https?)://(?P<authority>[^/?#]+)(?P<rest>.*)", re.IGNORECASE)
_NAME = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?")
_NUMERIC_LABEL = re.compile(r"\d+|0x[0-9a-f]*")
_FORBIDDEN_CHARACTERS = re.compile(r"[\x00-\x1f\x7f\\]")
_FILE_PATH = re.compile(
    r"/(data/upload/.+|data/local-files/?|storage-data/.+|static/.+"
    r"|(tasks|projects)/\d+/resolve/?|api/projects/\d+/file-proxy/?)"
)
"""Paths under which Label Studio serves files; its token goes to no other address of task data."""

_METADATA_NAMES = {"metadata.google.internal", "metadata.goog", "metadata"}
_NEVER = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8",
        "169.254.0.0/16",  # link-local, with the metadata services of most clouds
        "100.100.100.200/32",  # metadata services elsewhere
        "168.63.129.16/32",
        "192.0.0.192/32",
        "224.0.0.0/3",  # multicast, reserved, broadcast
        "::/128",
        "fe80::/10",
        "fd00:ec2::254/128",
        "fd20:ce::254/128",
        "ff00::/8",
    )
)
_EMBEDDING = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("::/96"))  # their last 32 bits are IPv4

_IP = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class Target:
    """Where an address is fetched.

    Parameters
    ----------
    url : httpx.URL
    authorised : bool
        Label Studio's token goes with the request.
    foreign : bool
        The host is not Label Studio's: what its name resolves to is to be checked, see `resolve`.
    lasting : bool
        The file never changes under this address: uploads have a name that is drawn anew each time.
    """

    url: httpx.URL
    authorised: bool
    foreign: bool
    lasting: bool = False


class AddressPolicy:
    """Decides what is fetched.

    Parameters
    ----------
    label_studio : str
        Address of Label Studio as this server reaches it.
    allowed_hosts : sequence of str
        Other hosts, as HOST (the usual ports) or HOST:PORT. They never get the token.

    Raises
    ------
    InputError
        One of them is no such address or host.
    """

    def __init__(self, label_studio: str, allowed_hosts: Sequence[str] = ()) -> None:
        self.label_studio = label_studio.strip().rstrip("/")
        self._origin, self._base_path = _own(self.label_studio)
        self._allowed = {pair for host in allowed_hosts for pair in _allowed(host)}

    def target(self, address: str, task: int | None = None) -> Target:
        """Where an address of task data is fetched.

        Parameters
        ----------
        address : str
            A path of Label Studio's, an http or https address, or one of a cloud storage.
        task : int, optional
            The task it is of, by which Label Studio finds the credentials of a cloud storage.

        Raises
        ------
        ForbiddenAddressError
            It is not fetched.
        """
        text = address.strip()
        if not text:
            raise ForbiddenAddressError("the task has an empty address where an image or a video should be")
        if len(text) > MAX_LENGTH or _FORBIDDEN_CHARACTERS.search(text):
            raise ForbiddenAddressError(
                f"the address {shown(text)} is too long or has characters that no address has: correct it in the task"
            )
        scheme = _SCHEME.match(text)
        if scheme is None:
            return self._relative(text)
        name = scheme.group(1).lower()
        if name in _PORTS:
            return self._web(text)
        if name in CLOUD_SCHEMES:
            return self._cloud(text, task)
        raise ForbiddenAddressError(
            f"addresses that begin with {name}: are not fetched: use http(s), a file that Label Studio has, or one of"
            " its storages"
        )

    def redirected(self, target: Target, location: str) -> Target:
        """Where a redirection leads, under the same rules; once away from Label Studio, the token stays away.

        Raises
        ------
        ForbiddenAddressError
            It leads where nothing is fetched.
        """
        try:
            joined = str(target.url.join(location.strip()))
        except (httpx.InvalidURL, ValueError):
            raise ForbiddenAddressError(f"{shown(target.url)} redirects to something that is no address") from None
        try:
            # the part before the join is checked too: joining would hide a backslash
            if _FORBIDDEN_CHARACTERS.search(location):
                raise ForbiddenAddressError("it has characters that no address has")
            found = self.target(joined)
        except ForbiddenAddressError as error:
            raise ForbiddenAddressError(f"{shown(target.url)} redirects to {shown(joined)}: {error}") from None
        return Target(found.url, found.authorised and target.authorised, found.foreign)

    def _relative(self, text: str) -> Target:
        path = text.removeprefix(self._base_path)
        if not path.startswith("/") or path.startswith("//") or not _is_file_path(path):
            raise ForbiddenAddressError(
                f"{shown(text)} is not served by Label Studio, and file paths are not read: import the file, or add a"
                " storage of local files to the project"
            )
        return self._own_target(path)

    def _web(self, text: str) -> Target:
        match = _WEB.fullmatch(text)
        if match is None or "@" in match["authority"]:
            raise ForbiddenAddressError(f"{shown(text)} is not an address of the form http(s)://HOST/PATH")
        scheme = match["scheme"].lower()
        host, port = _host_and_port(match["authority"])
        origin = (scheme, host, _PORTS[scheme] if port is None else port)
        if origin == self._origin:
            rest = match["rest"] if match["rest"].startswith("/") else f"/{match['rest']}"
            inside = not self._base_path or rest.startswith(f"{self._base_path}/")
            if inside and _is_file_path(rest.removeprefix(self._base_path)):
                return self._own_target(rest.removeprefix(self._base_path))
            root = self.label_studio.removesuffix(self._base_path)
            return Target(_url(root + rest), authorised=False, foreign=False)
        if _is_metadata(host):
            raise ForbiddenAddressError(f"{host} is an address of a cloud's own services, which are never fetched from")
        if origin[1:] not in self._allowed:
            raise ForbiddenAddressError(
                f"nothing is fetched from {host}:{origin[2]}: add it to allowed_hosts of the server's settings if that"
                " is wanted"
            )
        return Target(_url(text), authorised=False, foreign=True)

    def _cloud(self, text: str, task: int | None) -> Target:
        if task is None:
            raise ForbiddenAddressError(f"{shown(text)} can only be resolved by Label Studio, as part of a task")
        reference = base64.urlsafe_b64encode(text.encode()).decode()
        return self._own_target(f"/tasks/{task}/resolve/?fileuri={reference}")

    def _own_target(self, path: str) -> Target:
        url = _url(self.label_studio + path)
        return Target(url, authorised=True, foreign=False, lasting=path.startswith("/data/upload/"))


async def resolve(url: httpx.URL) -> list[str]:
    """The IP addresses of a foreign host, to connect to instead of its name, so that they are those that were checked.

    Raises
    ------
    ForbiddenAddressError
        One of them is none to connect to.
    UpstreamError
        The name is not known.
    """
    host = url.raw_host.decode()
    port = url.port or _PORTS[url.scheme]
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(RESOLVE_SECONDS):
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, TimeoutError):
        raise UpstreamError(f"the host {host} is not known to the name server: check the address") from None
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    for address in addresses:
        if _is_never(ipaddress.ip_address(address.partition("%")[0])):
            raise ForbiddenAddressError(f"{host} leads to {address}, which is never fetched from")
    return addresses


def shown(address: str | httpx.URL) -> str:
    """An address as messages and logs may show it: without what signs it, and not too long."""
    text = str(address).strip()
    if text[:5].lower() == "data:":
        return f"{text.partition(',')[0][:60]},..."
    web = _WEB.fullmatch(text)
    if web is not None and "@" in web["authority"]:
        text = f"{web['scheme']}://{web['authority'].rpartition('@')[2]}{web['rest']}"
    path, mark, query = text.partition("#")[0].partition("?")
    if mark and path.endswith(("/data/local-files/", "/data/local-files")) and "&" not in query:
        path += f"?{query}"
    path = "".join(c if c.isprintable() else "?" for c in path)
    return path if len(path) <= 160 else f"{path[:100]}...{path[-40:]}"


def _own(address: str) -> tuple[tuple[str, str, int], str]:
    """Scheme, host and port of a Label Studio, and the path that it is under."""
    match = _WEB.fullmatch(address.strip().rstrip("/"))
    try:
        if match is None or "@" in match["authority"] or "?" in match["rest"] or "#" in match["rest"]:
            raise ForbiddenAddressError("")
        host, port = _host_and_port(match["authority"])
    except ForbiddenAddressError:
        raise InputError(f"{shown(address)} is no address of a Label Studio: give http(s)://HOST:PORT") from None
    scheme = match["scheme"].lower()
    return (scheme, host, _PORTS[scheme] if port is None else port), match["rest"]


def _allowed(text: str) -> list[tuple[str, int]]:
    """The hosts and ports that an entry of the settings allows."""
    try:
        host, port = _host_and_port(text.strip())
    except ForbiddenAddressError:
        raise InputError(f"{text!r} in allowed_hosts is no host: give HOST or HOST:PORT") from None
    return [(host, p) for p in (_PORTS.values() if port is None else [port])]


def _host_and_port(authority: str) -> tuple[str, int | None]:
    """Host, in the one form that it is compared in, and port.

    Numbers that browsers take for IP addresses (decimal, hexadecimal, octal, shortened) are refused.
    """
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^\[\]:]+)(?::(\d{1,5}))?", authority)
    if match is None or int(match[2] or 0) > 65535:
        raise ForbiddenAddressError(f"{shown(authority)} is no host")
    port = int(match[2]) if match[2] else None
    name = match[1].lower()
    if name.startswith("["):
        try:
            address: _IP = ipaddress.IPv6Address(name[1:-1])
        except ValueError:
            raise ForbiddenAddressError(f"{name} is no IP address") from None
        return str(getattr(address, "ipv4_mapped", None) or address), port
    name = name.removesuffix(".")
    if not _NAME.fullmatch(name) or ".." in name:
        raise ForbiddenAddressError(f"{shown(name)} is no host name in plain letters")
    if _NUMERIC_LABEL.fullmatch(name.rpartition(".")[2]):
        try:
            return str(ipaddress.IPv4Address(name)), port
        except ValueError:
            raise ForbiddenAddressError(f"{name} is no IP address of the form 192.0.2.1") from None
    return name, port


def _is_file_path(text: str) -> bool:
    path = unquote(re.split(r"[?#]", text)[0])
    steps_out = any(segment in (".", "..") for segment in path.split("/"))
    return _FILE_PATH.fullmatch(path) is not None and not steps_out and not _FORBIDDEN_CHARACTERS.search(path)


def _is_metadata(host: str) -> bool:
    if host in _METADATA_NAMES:
        return True
    try:
        return _is_never(ipaddress.ip_address(host))
    except ValueError:
        return False


def _is_never(address: _IP) -> bool:
    """Whether nothing is fetched from an IP address, or from the IPv4 address that an IPv6 address stands for."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and any(address in network for network in _EMBEDDING) and int(address) > 1:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None and _is_never(inner):
            return True
    return any(address in network for network in _NEVER if network.version == address.version)


def _url(text: str) -> httpx.URL:
    try:
        return httpx.URL(text.partition("#")[0])
    except httpx.InvalidURL:
        raise ForbiddenAddressError(f"{shown(text)} is no address that can be fetched") from None

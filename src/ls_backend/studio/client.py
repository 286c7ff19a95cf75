"""`LabelStudio`: calls of its API, and the files that its tasks name."""

from __future__ import annotations

import logging
import re
import ssl
from collections.abc import AsyncIterator, Sequence
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, BinaryIO

import httpx

from ls_backend.errors import UpstreamError
from ls_backend.studio.addresses import AddressPolicy, shown
from ls_backend.studio.downloads import Downloads, Fetched
from ls_backend.studio.tokens import Credentials
from ls_backend.studio.upstream import MissingError, check_up, refusal, tried_again

PAGE_SIZE = 100
"""Items asked for at a time; the most that Label Studio gives of projects."""

for _name in ("httpx", "httpcore"):
    # they would log whole addresses, those of cloud storages with their signatures
    logging.getLogger(_name).setLevel(logging.WARNING)


class LabelStudio:
    """A Label Studio server. Used from one event loop.

    Parameters
    ----------
    url : str
        Its address.
    token : str, optional
        A personal access token or a legacy token. Without one only what needs none can be had.
    allowed_hosts : sequence of str
        Other hosts, HOST or HOST:PORT, that files may be fetched from; they never get the token.
    timeout : float
        Seconds to wait for an answer of the API, and for each part of a file.

    Raises
    ------
    InputError
        An address, a host or the token is malformed.
    """

    def __init__(
        self,
        url: str,
        token: str | None,
        allowed_hosts: Sequence[str] = (),
        timeout: float = 30.0,
    ) -> None:
        self.policy = AddressPolicy(url, allowed_hosts)
        self.url = self.policy.label_studio
        self._credentials = Credentials(token, f"{self.url}/api/token/refresh")
        certificates = httpx.create_ssl_context()  # SSL_CERT_FILE may name those of an institution's own authority
        self._own = _http_client(timeout, certificates, keep=8)
        # a connection that is kept would serve another name at the same IP address
        self._foreign = _http_client(timeout, certificates, keep=0)
        self._downloads = Downloads(self.policy, self._credentials, self._own, self._foreign)

    def __repr__(self) -> str:
        return f"LabelStudio({self.url!r})"

    async def get(self, path: str, **params: Any) -> Any:
        """What the API has at a path, such as "/api/tasks/7".

        Parameters
        ----------
        path : str
        **params
            Of the query; None counts as not given.

        Raises
        ------
        MissingError
            There is no such thing.
        UpstreamError
            Label Studio does not give it, or cannot be reached; the sentence says what to do.
        """
        return await self._call("GET", path, None, params)

    async def post(self, path: str, body: Any = None, **params: Any) -> Any:
        """Post a JSON body; the answer's JSON, None if it has none. Raises as `get` does."""
        return await self._call("POST", path, body, params)

    async def patch(self, path: str, body: Any = None, **params: Any) -> Any:
        """Change what is at a path; the answer's JSON. Raises as `get` does."""
        return await self._call("PATCH", path, body, params)

    async def pages(self, path: str, page_size: int = PAGE_SIZE, **params: Any) -> AsyncIterator[Any]:
        """The items of a list of the API, such as "/api/tasks" (with `project`) or "/api/projects", page by page.

        What is added or deleted meanwhile may be given twice or not at all. A list that comes as a whole, as that of a
        task's annotations, is given as it is. Raises as `get` does.
        """
        page, seen = 1, 0
        while True:
            try:
                answer = await self.get(path, page=page, page_size=page_size, **params)
            except MissingError:
                if page == 1:
                    raise
                return  # items were deleted: the page that was announced is no more
            if isinstance(answer, list):
                items, more = answer, False
            elif isinstance(answer, dict) and "results" in answer:
                items, more = answer["results"], answer.get("next") is not None
            elif isinstance(answer, dict) and "tasks" in answer:
                items = answer["tasks"]
                more = bool(items) and seen + len(items) < answer.get("total", 0)
            else:
                raise UpstreamError(f"{self._name} has no list at {path}")
            for item in items:
                yield item
            if not more:
                return
            seen += len(items)
            page += 1

    async def download(
        self,
        address: str,
        into: BinaryIO,
        limit_bytes: int,
        *,
        task: int | None = None,
        etag: str | None = None,
        seconds: float = 60.0,
    ) -> Fetched:
        """Write the file at an address of task data into `into`; see `Downloads.fetch`."""
        return await self._downloads.fetch(address, into, limit_bytes, task=task, etag=etag, seconds=seconds)

    async def close(self) -> None:
        """Close all connections."""
        await self._own.aclose()
        await self._foreign.aclose()

    @property
    def _name(self) -> str:
        return f"Label Studio at {shown(self.url)}"

    async def _call(self, method: str, path: str, body: Any, params: dict[str, Any]) -> Any:
        query = {name: value for name, value in params.items() if value is not None}

        async def attempt() -> httpx.Response:
            token = await self._credentials.header(self._own)
            response = await self._send(method, path, body, query, token)
            if response.status_code == 401 and token is not None and self._credentials.renews():
                token = await self._credentials.header(self._own, refused=token)
                response = await self._send(method, path, body, query, token)
            if method == "GET":
                check_up(response.status_code)
            return response

        response = await tried_again(attempt, self._name, repeatable=method == "GET")
        if response.is_redirect:
            to = shown(response.headers.get("location", "elsewhere"))
            raise UpstreamError(f"{self._name} redirects {path} to {to}: set LABEL_STUDIO_URL to where it is")
        if not response.is_success:
            raise refusal(response.status_code, path, self._name, bool(self._credentials), _detail(response))
        if not response.content:
            return None
        try:
            return response.json()
        except ValueError:
            raise UpstreamError(
                f"{self._name} answers {path} with something else than JSON: set LABEL_STUDIO_URL to where it is"
            ) from None

    async def _send(
        self, method: str, path: str, body: Any, query: dict[str, Any], token: str | None
    ) -> httpx.Response:
        headers = {"Accept": "application/json"} | ({} if token is None else {"Authorization": token})
        return await self._own.request(method, f"{self.url}{path}", json=body, params=query or None, headers=headers)


def _http_client(timeout: float, certificates: ssl.SSLContext, keep: int) -> httpx.AsyncClient:
    """A client without cookies, redirections, proxies and .netrc: any of them could send a secret astray."""
    return httpx.AsyncClient(
        timeout=httpx.Timeout(timeout, connect=5.0),
        limits=httpx.Limits(max_connections=32, max_keepalive_connections=keep),
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        follow_redirects=False,
        trust_env=False,
        verify=certificates,
    )


def _detail(response: httpx.Response) -> str:
    """What Label Studio says about a failure, shortened; empty where it is a page or nothing."""
    try:
        said = response.json()
    except ValueError:
        return ""
    if not isinstance(said, dict):
        return ""
    text = said.get("validation_errors") or said.get("detail") or ""
    if isinstance(text, dict):
        text = "; ".join(_about(field, reasons) for field, reasons in text.items())
    return " ".join(re.sub(r"<[^>]*>", "", str(text)).split())[:300].rstrip(".")


def _about(field: str, reasons: Any) -> str:
    said = " ".join(map(str, reasons)) if isinstance(reasons, list) else str(reasons)
    return said if field == "non_field_errors" else f"{field}: {said}"

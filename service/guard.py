"""What every request passes: the Host check, the token, the size limit, the security headers. Plain ASGI around the app."""

from __future__ import annotations

import base64
import binascii
import hmac

from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.problems import Problem, problem_response
from service.settings import is_loopback

OPEN_PATHS = frozenset({"/healthz"})
READING = frozenset({"GET", "HEAD", "OPTIONS"})
MAX_BODY_BYTES = 4 * 2**20
_TOO_LARGE = f"A request holds at most {MAX_BODY_BYTES:,} bytes. Send it in parts."
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_RAW_HEADERS = [(name.lower().encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]


class Guard:
    """Lets a request through to `app`, or answers 401, 403, 413 or 421 itself; puts the security headers on every answer.

    With a token, all but `OPEN_PATHS` needs it: as `Authorization: Bearer TOKEN`, or as the password of Basic
    authentication, which is what a browser asks its user for. Without a token (loopback only) the Host header must
    name this machine, so that a foreign page whose name was pointed at 127.0.0.1 reads nothing.

    What changes something needs the token as Bearer: a browser never sends that of itself, so no foreign page can make
    it push. Without a token nothing can be changed.
    """

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self.app, self.token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message["headers"])
                if not any(name.lower() == b"cache-control" for name, _ in headers):
                    headers.append((b"cache-control", b"no-store"))
                message["headers"] = headers + _RAW_HEADERS
            await send(message)

        refusal = self._refusal(scope["method"], scope["path"], Headers(scope=scope))
        if refusal is None:
            await self.app(scope, _limited(receive), send_guarded)
            return
        ask = (
            {"WWW-Authenticate": 'Bearer, Basic realm="Clipmill: the token is the password"'}
            if refusal.status == 401
            else None
        )
        await problem_response(refusal, ask)(scope, receive, send_guarded)

    def _refusal(self, method: str, path: str, headers: Headers) -> Problem | None:
        if _says_too_large(headers.get("content-length", "")):
            return Problem(413, _TOO_LARGE)
        if path in OPEN_PATHS:
            return None
        authorization = headers.get("authorization", "")
        if self.token:
            if not _same(_presented_token(authorization), self.token):
                return Problem(
                    401, "This address needs the service's token, as the header 'Authorization: Bearer TOKEN'."
                )
            if method not in READING and not authorization.lower().startswith("bearer "):
                return Problem(403, "What changes something needs the token as 'Authorization: Bearer TOKEN'.")
            return None
        if not is_loopback(_host_name(headers.get("host", ""))):
            return Problem(421, "Without a token the service answers only to localhost, 127.0.0.1 and [::1].")
        if method not in READING:
            return Problem(403, "Nothing can be changed without a token. Start the service with --token-file FILE.")
        return None


def _says_too_large(content_length: str) -> bool:
    return content_length.isascii() and content_length.isdigit() and int(content_length[:20]) > MAX_BODY_BYTES


def _limited(receive: Receive) -> Receive:
    """The same body, but no more of it than allowed: one sent in chunks does not say beforehand how long it is."""
    seen = 0

    async def receive_limited() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > MAX_BODY_BYTES:
            # FastAPI lets this one pass while it reads a body, and turns all others into a 400.
            raise HTTPException(413, _TOO_LARGE)
        return message

    return receive_limited


def _same(presented: str, token: str) -> bool:
    return hmac.compare_digest(presented.encode(), token.encode())


def _presented_token(authorization: str) -> str:
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[2]
        except (binascii.Error, ValueError):
            return ""
    return ""


def _host_name(host: str) -> str:
    """The name of a Host header, without its port."""
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]

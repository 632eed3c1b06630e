"""Which pages of other origins may call, told to their browsers."""

from __future__ import annotations

from collections.abc import Collection, Mapping

Header = tuple[bytes, bytes]
_HEADERS = b"authorization, content-type"
_SECONDS = b"600"


class Cors:
    """The headers for allowed origins; for every other origin there are none."""

    def __init__(self, origins: Collection[str]) -> None:
        self._origins = frozenset(origins)

    def headers(self, request: Mapping[str, str]) -> tuple[Header, ...]:
        """What an answer to this request carries."""
        if not self._origins:
            return ()
        vary = (b"vary", b"origin")
        origin = request.get("origin")
        if origin is None or not (origin in self._origins or "*" in self._origins):
            return (vary,)
        exposed = b"access-control-expose-headers", b"retry-after"
        return (vary, (b"access-control-allow-origin", origin.encode("latin-1")), exposed)

    def preflight(self, request: Mapping[str, str], methods: Collection[str]) -> tuple[Header, ...]:
        """What the answer to a browser's question before a request carries."""
        found = self.headers(request)
        if len(found) < 2:
            return found
        return (
            *found,
            (b"access-control-allow-methods", ", ".join(sorted(methods)).encode()),
            (b"access-control-allow-headers", _HEADERS),
            (b"access-control-max-age", _SECONDS),
        )

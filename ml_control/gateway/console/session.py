"""Who looks at the console: a cookie after a token was shown once, and a seal on every form."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass

COOKIE = "ml_control_session"
_LASTS = 8 * 3600.0
_MOST = 1000  # sessions at once: logging in for ever must not fill the memory


@dataclass(frozen=True)
class Session:
    """A person who showed a token. ``role`` is the token's; it is asked again at every action."""

    id: str
    token: str  # name of the token, never the token
    secret: str  # what was shown, hashed: asked again, so that a revoked token ends the session
    role: str
    until: float

    def seal(self, form: str) -> str:
        """What a form of this session carries, so that another site cannot send it."""
        return hmac.new(self.id.encode(), form.encode(), hashlib.sha256).hexdigest()

    def sealed(self, form: str, seal: str) -> bool:
        """Whether a seal is the one that this session's page carried."""
        return hmac.compare_digest(self.seal(form).encode(), seal.encode("utf-8", "replace"))


class Sessions:
    """Sessions of this process: a restart ends them."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._open: dict[str, Session] = {}
        self._lock = threading.Lock()

    def begin(self, token: str, secret: str, role: str) -> Session:
        """A new session under an unguessable id."""
        now = self._clock()
        session = Session(secrets.token_urlsafe(32), token, secret, role, now + _LASTS)
        with self._lock:
            for known in [k for k, s in self._open.items() if s.until <= now]:
                del self._open[known]
            while len(self._open) >= _MOST:
                del self._open[next(iter(self._open))]
            self._open[session.id] = session
        return session

    def get(self, cookies: str) -> Session | None:
        """The session that a cookie header names, if it lasts."""
        for part in cookies.split(";"):
            name, _, value = part.strip().partition("=")
            if name == COOKIE:
                session = self._open.get(value)
                if session is not None and self._clock() < session.until:
                    return session
        return None

    def end(self, session: Session) -> None:
        """Forget it."""
        with self._lock:
            self._open.pop(session.id, None)


def cookie(session: Session | None, *, secure: bool) -> str:
    """The cookie header's value: not for scripts, not for other sites; None takes it away."""
    value, age = (session.id, int(_LASTS)) if session else ("", 0)
    safe = "; Secure" if secure else ""
    return f"{COOKIE}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={age}{safe}"

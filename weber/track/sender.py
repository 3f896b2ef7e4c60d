"""Sends what is said of a run, beside it: a thread with a bounded queue, which nobody waits for until the run has ended."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from http.client import HTTPException
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from weber.track.events import Event
from weber.track.posts import Post
from weber.version import VERSION

MOST_WAITING = 256
"""Events that may wait; they name files of pictures and do not hold them."""
TIMEOUT_SECONDS = 10.0
PAUSES_SECONDS = (1.0, 4.0, 15.0)
"""Before each further try."""
CLOSING_SECONDS = 15.0
"""What is left has so long to be sent when the run has ended."""
_MOST_LIMITED = 50
"""So often a server may say that a message has to wait."""
_TOO_MANY = 429
_PASSING = (408, 425, 500, 502, 503, 504)
"""Answers after which another try may help."""


class _StayHere(HTTPRedirectHandler):
    """A redirection is an answer like any other: what is secret goes nowhere else."""

    def redirect_request(self, *_: object) -> None:
        """See urllib."""
        return


class Sender:
    """Sends events to one address, in order. `build`: what is sent of an event; `headers` of each request."""

    def __init__(self, url: str, *, build: Callable[[Event], Iterable[Post]], headers: dict[str, str]) -> None:
        self._url, self._build = url, build
        self._headers = {"User-Agent": f"weber/{VERSION}"} | headers
        self._opener = build_opener(_StayHere())
        self._waiting: deque[Event] = deque()
        self._changed, self._gone = threading.Condition(), threading.Event()
        self._is_closing, self._is_well, self._deadline = False, True, float("inf")
        self._num_added = self._num_sent = 0
        self.reason = ""
        self._thread = threading.Thread(target=self._work, name="weber webhook", daemon=True)
        self._thread.start()

    def add(self, event: Event) -> None:
        """One more. Where too many wait, the oldest that is only of passing interest is lost, else this one."""
        with self._changed:
            self._num_added += 1
            if len(self._waiting) >= MOST_WAITING:
                passing = next((number for number, one in enumerate(self._waiting) if one.is_passing), None)
                self.reason = self.reason or "it is slower than the run"
                if passing is None:
                    return
                del self._waiting[passing]
            self._waiting.append(event)
            self._changed.notify()

    def finish(self) -> None:
        """Nothing more will be added; what waits has a little time."""
        with self._changed:
            self._is_closing, self._deadline = True, time.monotonic() + CLOSING_SECONDS
            self._changed.notify()

    def close(self) -> int:
        """After `finish`: wait until all is sent, or the time is over; returns how many were lost."""
        self._thread.join(max(0.0, self._deadline - time.monotonic()))
        self._gone.set()
        with self._changed:
            num_lost = self._num_added - self._num_sent
            self._waiting.clear()
        if num_lost and not self.reason:
            self.reason = "it has not answered in time"
        return num_lost

    def _work(self) -> None:
        while (event := self._take()) is not None:
            sent = [self._send(post) for post in self._build(event)]
            if all(sent):
                with self._changed:
                    self._num_sent += 1

    def _take(self) -> Event | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closing)
            return self._waiting.popleft() if self._waiting and not self._gone.is_set() else None

    def _send(self, post: Post) -> bool:
        """Whether it was sent. After one that was lost, the next has one try alone, so that an address that is gone costs little."""
        pauses = list(PAUSES_SECONDS) if self._is_well else []
        num_limited = 0
        while True:
            pause = self._try(post)
            if pause is None:
                self._is_well = True
                return True
            if pause > 0 and num_limited < _MOST_LIMITED:
                num_limited += 1
            elif pause == 0 and pauses:
                pause = pauses.pop(0)
            else:
                self._is_well = False
                return False
            if not self._wait(pause):
                return False

    def _try(self, post: Post) -> float | None:
        """None: it was sent. Else how long the server wants to be left alone; 0: it does not say, below 0: for good."""
        request = Request(self._url, data=post.body, headers=self._headers | {"Content-Type": post.content_type}, method="POST")
        try:
            with self._opener.open(request, timeout=TIMEOUT_SECONDS) as answer:
                answer.read()
            return None
        except HTTPError as error:
            with error:
                self.reason = f"its server answers {error.code}"
                if error.code == _TOO_MANY:
                    return _read_pause(error)
                return 0.0 if error.code in _PASSING else -1.0
        except (OSError, HTTPException, ValueError) as error:
            reason = error.reason if isinstance(error, URLError) else error
            self.reason = f"it cannot be reached ({type(reason).__name__})"  # no more: texts of errors may hold the address
            return 0.0

    def _wait(self, seconds: float) -> bool:
        """Wait, unless the end of the run leaves no time for it."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if end > self._deadline or self._gone.wait(min(0.1, max(0.0, end - time.monotonic()))):
                return False
        return True


def _read_pause(error: HTTPError) -> float:
    """How long a limited server wants to be left alone: of the body, else of the header."""
    told: list[object] = [error.headers.get("Retry-After")]
    with suppress(OSError, HTTPException, ValueError):
        content = json.loads(error.read())
        if isinstance(content, dict):
            told.insert(0, content.get("retry_after"))
    for one in told:
        with suppress(TypeError, ValueError):
            return max(0.05, float(str(one)))
    return PAUSES_SECONDS[0]

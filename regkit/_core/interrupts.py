"""Ctrl-C, a notebook's stop button: what must not be cut in two is ended first (an import, a step, a bar's drawing)."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm.auto import tqdm


@contextmanager
def until_the_end(*, impatient: bool = False) -> Iterator[None]:
    """Hold back Ctrl-C until the block has ended. (Threads never receive any.)

    impatient: the second one gets through. Never around an import: half a module would stay until the program's end.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []

    def hold(number: int, frame: Any) -> None:
        if received and impatient:
            raise KeyboardInterrupt
        received.append(number)

    usual = signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
        if received:
            signal.raise_signal(received[0])


class Bar(tqdm):
    """tqdm's bar, drawn to the end: cut short it would keep its lock, and every bar of another thread would wait.

    tqdm's own TQDM_DISABLE switches it off, whatever a caller wants.
    """

    def __new__(cls, *options: Any, **more: Any) -> Bar:
        with until_the_end():
            return super().__new__(cls, *options, **more)

    def __init__(self, *options: Any, disable: bool = False, **more: Any) -> None:
        more["disable"] = disable or bool(os.environ.get("TQDM_DISABLE"))
        with until_the_end():
            super().__init__(*options, **more)

    def refresh(self, *options: Any, **more: Any) -> Any:
        with until_the_end():
            return super().refresh(*options, **more)

    def close(self) -> None:
        with until_the_end():
            super().close()

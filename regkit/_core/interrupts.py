"""Ctrl-C, a notebook's stop button: what must not be cut in two is ended first (an import, a step, a bar's drawing)."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tqdm.auto import tqdm

_ENDING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


@contextmanager
def until_the_end(*, impatient: bool = False) -> Iterator[None]:
    """Hold back Ctrl-C, and what else ends a program, until the block has ended. (Threads never receive any.)

    impatient: the second one gets through. Never around an import: half a module would stay until the program's end.
    """
    received: list[int] = []

    def hold(number: int, frame: Any) -> None:
        received.append(number)
        if impatient and len(received) == 2:
            raise KeyboardInterrupt

    try:
        with _handled({number: hold for number in _ENDING}):
            yield
    finally:
        if received:
            signal.raise_signal(received[0])


@contextmanager
def as_ctrl_c() -> Iterator[None]:
    """Let SIGTERM and a closed terminal interrupt as Ctrl-C does, where they would end the program."""
    deadly = [number for number in _ENDING if signal.getsignal(number) is signal.SIG_DFL]
    with _handled(dict.fromkeys(deadly, signal.default_int_handler)):
        yield


@contextmanager
def _handled(handlers: Mapping[int, Any]) -> Iterator[None]:
    """Let these handle signals in the block; what is ignored stays so. Only the main thread can."""
    main = threading.current_thread() is threading.main_thread()
    usual = {number: signal.getsignal(number) for number in handlers if main}
    usual = {number: handler for number, handler in usual.items() if handler not in (None, signal.SIG_IGN)}
    try:
        for number in usual:
            signal.signal(number, handlers[number])
        yield
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


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

"""A file server on this machine that resumes, breaks connections and changes files, for the tests of downloads."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class LocalServer:
    """Serves the files of a folder. requests: (path, Range) of all so far. breaking: bytes until it hangs up, or None.

    ranges: whether it can continue a file. page: whether it answers with a web page instead.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requests: list[tuple[str, str | None]] = []
        self.breaking: int | None = None
        self.ranges = True
        self.page = False
        self.address = ""


@contextmanager
def serving(folder: Path) -> Iterator[LocalServer]:
    """A server while the block runs."""
    state = LocalServer(folder)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _answer(self, state)

        def log_message(self, *arguments: object) -> None:
            """Nothing is printed."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _answer(handler: BaseHTTPRequestHandler, state: LocalServer) -> None:
    asked = handler.headers.get("Range")
    state.requests.append((handler.path, asked))
    path = state.folder / handler.path.lstrip("/")
    if not path.is_file():
        handler.send_error(404)
        return
    content = path.read_bytes()
    tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
    fresh = handler.headers.get("If-Range") in (None, tag)
    start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and state.ranges and fresh else 0
    if start >= len(content) > 0:
        handler.send_response(416)
        handler.send_header("Content-Range", f"bytes */{len(content)}")
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return
    handler.send_response(206 if start else 200)
    if start:
        handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
    handler.send_header("ETag", tag)
    handler.send_header("Content-Type", "text/html" if state.page else "application/octet-stream")
    handler.send_header("Content-Length", str(len(content) - start))
    handler.end_headers()
    handler.wfile.write(content[start:] if state.breaking is None else content[start : start + state.breaking])
    handler.close_connection = True

"""JupyterLab in headless Chromium: what the browser tests and the screenshots share."""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Locator, Page, sync_playwright

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
LIMIT = 1800.0  # seconds: the end of what hangs, far above what a machine under load takes
CONTROLS = (".noUi-handle", ".widget-dropdown select")
SETTINGS = {  # draw every cell, also those out of sight; ask nothing
    "notebook-extension/tracker.jupyterlab-settings": '{"windowingMode": "none"}',
    "apputils-extension/notification.jupyterlab-settings": '{"fetchNews": "false", "checkForUpdates": false}',
}


@contextlib.contextmanager
def jupyterlab(folder: Path, scratch: Path, **environment: str) -> Iterator[str]:
    """Serve a folder in JupyterLab; yields the address pattern, in which {} is a notebook's path."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, text in SETTINGS.items():
        path = scratch / "settings" / "@jupyterlab" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    token = secrets.token_hex(8)
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", f"--port={port}", "--allow-root"]
    command += [f"--IdentityProvider.token={token}", "--LabApp.expose_app_in_browser=True"]
    command += [f"--MappingKernelManager.kernel_info_timeout={LIMIT}"]
    environment = {**os.environ, **environment, "JUPYTERLAB_SETTINGS_DIR": str(scratch / "settings")}
    environment |= {"JUPYTERLAB_WORKSPACES_DIR": str(scratch / "workspaces"), "IPYTHONDIR": str(scratch / "ipython")}
    with open(scratch / "jupyterlab.log", "w") as log:
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        try:
            _wait_for(f"http://127.0.0.1:{port}/api?token={token}", server)
            yield f"http://127.0.0.1:{port}/lab/tree/{{}}?token={token}&reset"
        finally:
            server.terminate()  # its kernels end with it
            try:
                server.wait(LIMIT)
            finally:
                server.kill()


def _wait_for(address: str, server: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + LIMIT
    while time.monotonic() < end and server.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=60):
            return
        time.sleep(0.3)
    raise TimeoutError(f"JupyterLab must answer within {LIMIT:.0f} s at {address}; look into its log.")


@contextlib.contextmanager
def page(errors: list[str], *, width: int = 1280, height: int = 900) -> Iterator[Page]:
    """A page in headless Chromium; what goes wrong in it is added to `errors`."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=LIMIT * 1000)
        try:
            opened = browser.new_page(viewport={"width": width, "height": height})
            opened.set_default_timeout(LIMIT * 1000)
            opened.on("pageerror", lambda error: errors.append(str(error)))
            yield opened
        finally:
            browser.close()


@contextlib.contextmanager
def notebook(opened: Page, address: str) -> Iterator[None]:
    """Open a notebook and run all of its cells; at the end of the block its kernel ends."""
    opened.goto(address)
    try:
        opened.wait_for_selector(".jp-Notebook .jp-Cell")
        opened.wait_for_function(
            "window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status == 'idle'"
        )
        opened.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
        yield
    finally:
        opened.evaluate("window.jupyterapp?.serviceManager.sessions.shutdownAll()")


def cell_errors(opened: Page) -> list[str]:
    """The errors in the notebook's cells, in regkit's widgets, and in what draws them."""
    return opened.evaluate(
        """() => {
            const cells = [...window.jupyterapp.shell.currentWidget.content.model.sharedModel.cells];
            const failed = cells.flatMap(cell => cell.outputs ?? []).filter(output => output.output_type == 'error');
            const areas = [...document.querySelectorAll('.jp-OutputArea')].map(area => area.textContent);
            const alerts = [...document.querySelectorAll('.jp-OutputArea [role=alert]')].map(area => area.textContent);
            const broken = areas.filter(text => /javascript error|Error displaying widget/i.test(text));
            const told = failed.map(output => `${output.ename}: ${output.evalue}`);
            return [...told, ...alerts, ...broken].filter(text => text);
        }"""
    )


def widget_areas(opened: Page) -> list[Locator]:
    """The outputs that hold a picture with controls."""
    areas = opened.locator(".jp-OutputArea-child:has(img.widget-image)").all()
    return [area for area in areas if area.locator(", ".join(CONTROLS)).count()]


def move_a_control(opened: Page, area: Locator) -> None:
    """Move the first visible slider, else the first choice, and wait until one of the area's pictures is another."""
    pictures = area.locator("img.widget-image")

    def shown() -> list[str | None]:
        return [picture.get_attribute("src") for picture in pictures.all()]

    before = shown()
    slider, choice = (area.locator(kind).locator("visible=true") for kind in CONTROLS)
    if slider.count():
        slider.first.scroll_into_view_if_needed()
        slider.first.focus()
        high = float(slider.first.get_attribute("aria-valuenow")) >= float(slider.first.get_attribute("aria-valuemax"))
        opened.keyboard.press("ArrowLeft" if high else "ArrowRight")
    else:
        choice.first.select_option(index=1)
    end = time.monotonic() + LIMIT
    while shown() == before:
        if time.monotonic() > end:
            raise AssertionError(f"a picture must change when its control moves; it stayed as it was for {LIMIT:.0f} s")
        opened.wait_for_timeout(50)

"""A headless Chromium, driven through its WebDriver, that reports everything a page must not do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.support.ui import WebDriverWait

__all__ = ["Browser", "browser", "missing"]

WAIT_SECONDS = 10.0


def missing() -> str:
    """Which program there is not; empty when all are there."""
    return next((name for name in ("chromium", "chromedriver") if shutil.which(name) is None), "")


class Browser:
    def __init__(self, driver: Chrome) -> None:
        self.driver = driver

    def open(self, url: str, width: int = 1280, height: int = 900, ratio: float = 1.0) -> None:
        self.size(width, height, ratio)
        self.driver.get("about:blank")
        self.complaints()
        self.driver.get(url)

    def size(self, width: int, height: int, ratio: float = 1.0) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": ratio, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def prefer(self, **features: str) -> None:
        """Media features: ``prefers_color_scheme="dark"``, ``prefers_reduced_motion="reduce"``; nothing for none."""
        listed = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": listed})

    def scripts(self, allowed: bool) -> None:
        self.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not allowed})

    def run(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    def text(self, selector: str = "body") -> str:
        return str(self.run("return document.querySelector(arguments[0]).innerText", selector))

    def until(self, what: str, condition: Callable[[], object], seconds: float = WAIT_SECONDS) -> None:
        WebDriverWait(self.driver, seconds, poll_frequency=0.05).until(lambda _: condition(), f"waited {seconds} s: {what}")

    def until_true(self, expression: str, *arguments: object, seconds: float = WAIT_SECONDS) -> None:
        self.until(expression, lambda: self.run(f"return {expression}", *arguments), seconds)

    def complaints(self) -> list[str]:
        """What the console has said since the last call: errors, warnings and violations of the content security policy."""
        return [f"{entry['level']}: {entry['message']}" for entry in self.driver.get_log("browser")]

    def asked(self) -> list[str]:
        """Every address that pages asked for since the last call."""
        found = []
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                found.append(str(message["params"]["request"]["url"]))
        return found

    def elsewhere(self, origin: str) -> list[str]:
        """Those of :meth:`asked` that went to another origin."""
        here = urlsplit(origin).netloc
        return [url for url in self.asked() if urlsplit(url).scheme not in ("data", "about") and urlsplit(url).netloc != here]

    def picture(self) -> bytes:
        return self.driver.get_screenshot_as_png()


@contextmanager
def browser() -> Iterator[Browser]:
    options = ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for argument in (
        "--headless=new",
        "--no-sandbox",  # as root there is none; only pages of this test are opened
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--no-first-run",
        "--hide-scrollbars",
        "--force-color-profile=srgb",
        "--lang=en",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = Chrome(options=options, service=ChromeService(shutil.which("chromedriver")))
    try:
        yield Browser(driver)
    finally:
        driver.quit()

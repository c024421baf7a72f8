"""The page of `report` in a browser that is offline: it asks for nothing, and its parts move."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Cli

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, offline."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    binary = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for word in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"):
        options.add_argument(f"--{word}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = webdriver.Chrome(options, webdriver.ChromeService(driver))
    chrome.set_window_size(1200, 900)
    chrome.execute_cdp_cmd("Network.enable", {})
    offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    chrome.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
    yield chrome
    chrome.quit()


def test_the_page_in_a_browser(cli: Cli, place: Path, smoke_run: Path, browser: Any) -> None:
    cli("report", smoke_run, "-o", "page.html")
    browser.get((place / "page.html").as_uri())
    _the_divider_follows_mouse_and_keys(browser)
    _panes_are_chosen(browser)
    _a_curve_is_read(browser)
    _the_theme_is_turned(browser)
    _it_fits_a_narrow_window(browser)
    assert browser.get_log("browser") == []
    assert {url.partition(":")[0] for url in _asked_for(browser)} <= {"file", "data"}


def _split(browser: Any) -> float:
    """Where the first divider is, in per cent."""
    script = "return getComputedStyle(document.querySelector('.panes')).getPropertyValue('--split')"
    return float(browser.execute_script(script).strip(" %"))


def _first(browser: Any, selector: str) -> Any:
    return browser.find_element("css selector", selector)


def _the_divider_follows_mouse_and_keys(browser: Any) -> None:
    from selenium.webdriver import ActionChains, Keys

    panes = _first(browser, ".panes")
    assert _split(browser) == 50
    quarter = panes.size["width"] // 4
    ActionChains(browser, 0).move_to_element(panes).click_and_hold().move_by_offset(
        quarter, 5
    ).release().perform()
    assert _split(browser) == pytest.approx(75, abs=2)
    left = _first(browser, ".pane.left")
    assert "inset(" in left.value_of_css_property("clip-path")
    box = browser.execute_script("return document.querySelector('.panes').getBoundingClientRect().toJSON()")
    ActionChains(browser, 0).move_to_element_with_offset(panes, -int(box["width"] // 4), 0).click().perform()
    assert _split(browser) == pytest.approx(25, abs=2)
    before = _split(browser)
    divider = _first(browser, ".divider")
    divider.send_keys(Keys.ARROW_RIGHT * 4)
    assert _split(browser) > before
    divider.send_keys(Keys.HOME)
    assert _split(browser) == 0
    divider.send_keys(Keys.END)
    assert _split(browser) == 100


def _panes_are_chosen(browser: Any) -> None:
    assert _shown(browser) == ["input", "network"]
    labels = browser.find_elements("css selector", ".choices")[0].find_elements("css selector", "label")
    labels[1].click()
    assert _shown(browser) == ["target", "network"]
    assert labels[-1].text == "error x 8"
    labels[-1].click()
    assert _shown(browser) == ["error x 8"]
    assert not _first(browser, ".divider").is_displayed()


def _shown(browser: Any) -> list[str]:
    panes = _first(browser, ".panes").find_elements("css selector", ".pane")
    return [pane.get_attribute("data-pane") for pane in panes if pane.is_displayed()]


def _a_curve_is_read(browser: Any) -> None:
    from selenium.webdriver import ActionChains

    chart = _first(browser, ".chart")
    ActionChains(browser, 0).move_to_element(chart.find_element("css selector", "svg")).perform()
    assert chart.find_element("css selector", ".readout").text.startswith("step ")


def _the_theme_is_turned(browser: Any) -> None:
    before = _first(browser, "body").value_of_css_property("background-color")
    _first(browser, "#theme").click()
    assert _first(browser, "body").value_of_css_property("background-color") != before


def _it_fits_a_narrow_window(browser: Any) -> None:
    metrics = {"width": 360, "height": 700, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    assert browser.execute_script("return document.documentElement.scrollWidth") == 360


def _asked_for(browser: Any) -> list[str]:
    """The addresses of all requests."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requests = [message for message in messages if message["method"] == "Network.requestWillBeSent"]
    return [message["params"]["request"]["url"] for message in requests]

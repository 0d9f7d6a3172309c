"""A visitor of the gateway's page, with a real browser. Runs on a lab host with Debian's chromium-driver and Selenium.

Arguments: address, host name, key, file with axe-core, folder for pictures. Prints what was seen, as JSON: for each of
`en`, `zh` and `phone` (Chinese, 360 CSS pixels wide): title, text, problems (axe-core's: rule and first place), wide
(whether anything makes the whole page scroll sideways), origins (of all that was loaded), errors (of the console); and
of the English one also `may` (what the page says of the key), `wrong` (of another one), `turned` (the language after
the button was pressed) and `markup` of the examples.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

AUDIT = "const done = arguments[0]; axe.run(document).then((found) => done(found.violations));"
ORIGINS = "return [...new Set(performance.getEntriesByType('resource').map((entry) => new URL(entry.name).origin))]"
WIDE = "return document.documentElement.scrollWidth > document.documentElement.clientWidth"


def browser(address: str, name: str, language: str, width: int) -> webdriver.Chrome:
    """A browser that knows the host name, as by a hosts file."""
    options = webdriver.ChromeOptions()
    for option in ("headless=new", "no-sandbox", "ignore-certificate-errors", f"lang={language}"):
        options.add_argument(f"--{option}")
    options.add_argument(f"--host-resolver-rules=MAP {name} {address}")
    options.add_experimental_option("prefs", {"intl.accept_languages": language})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))
    # A window cannot be as narrow as a phone; its page can.
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    return driver


def typed(driver: webdriver.Chrome, key: str) -> str:
    """What the page says of a key."""
    field = driver.find_element(By.ID, "secret")
    field.clear()
    field.send_keys(key)
    before = driver.find_element(By.ID, "may").text
    driver.find_element(By.CSS_SELECTOR, "#ask button").click()
    WebDriverWait(driver, 20).until(lambda d: d.find_element(By.ID, "may").text not in ("", before))
    return str(driver.find_element(By.ID, "may").text)


def visit(driver: webdriver.Chrome, name: str, axe: str, picture: Path) -> dict[str, Any]:
    """Look at the page once it has asked for the gateway's state."""
    driver.get(f"https://{name}/")
    WebDriverWait(driver, 20).until(lambda d: d.find_element(By.ID, "status").text)
    driver.save_screenshot(str(picture))
    seen = {
        "title": driver.title,
        "text": driver.find_element(By.TAG_NAME, "body").text,
        "wide": driver.execute_script(WIDE),
        "origins": driver.execute_script(ORIGINS),
        "errors": [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"],
    }
    # Last, and by the debugger: the page's own policy would not let a script in.
    driver.execute_cdp_cmd("Page.setBypassCSP", {"enabled": True})
    driver.execute_script(axe)
    found = driver.execute_async_script(AUDIT)
    return {**seen, "problems": [[rule["id"], rule["nodes"][0]["html"]] for rule in found]}


def main(address: str, name: str, key: str, axe_file: str, folder: str) -> None:
    """All visits."""
    axe, seen = Path(axe_file).read_text(encoding="utf-8"), {}
    for title, language, width in (("en", "en-GB", 1200), ("zh", "zh-CN", 1200), ("phone", "zh-CN", 360)):
        driver = browser(address, name, language, width)
        try:
            seen[title] = visit(driver, name, axe, Path(folder, f"{title}.png"))
            if title == "en":
                seen[title]["wrong"] = typed(driver, key + "x")
                seen[title]["may"] = typed(driver, key)
                seen[title]["examples"] = [e.text for e in driver.find_elements(By.TAG_NAME, "pre")]
                driver.find_element(By.ID, "language").click()
                seen[title]["turned"] = driver.find_element(By.TAG_NAME, "html").get_attribute("lang")
        finally:
            driver.quit()
    json.dump(seen, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])

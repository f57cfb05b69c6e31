"""A real browser and operators for the tests of pages, and older versions for those of upgrades."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, expect, sync_playwright
from support import WAIT_SECONDS, Services, create_operators, enter, need
from versions import OLDEST, released, unpack


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = need("chromium-headless-shell", "chromium", "google-chrome")
    # The figures of the overview are some seconds old, and the machine may be busy.
    expect.set_options(timeout=WAIT_SECONDS * 1000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium,
            # A browser's sandbox does not work in a container's root account.
            args=["--no-sandbox", "--disable-background-networking", "--disable-component-update"],
        )
        yield browser
        browser.close()


@pytest.fixture
def operated(web: Services) -> Services:
    """A web process with operators."""
    create_operators(web)
    return web


@pytest.fixture
def client(operated: Services) -> Iterator[httpx.Client]:
    """An operator who has signed in."""
    with httpx.Client(base_url=operated.url, timeout=60, follow_redirects=True) as client:
        enter(client, operated)
        yield client


@pytest.fixture(scope="module", params=[OLDEST, *released()])
def older(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an older version: of each of the released ones, and of one before them."""
    return unpack(request.param, tmp_path_factory.mktemp("version") / "older")

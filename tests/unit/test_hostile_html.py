"""HTML that takes for ever, or all memory, to be cleaned is told so, and harms nobody else."""

from collections.abc import Iterator

import pytest

from app.desk.email_html import CLEANER, Images, safe_html

NO_IMAGES = Images({}, {})
TOLD = "too complicated to be shown"
# Each paragraph has all of what stands open opened in it again.
FONTS = 3_200
REOPENED = "<p>" + "".join(f"<font size={n}>" for n in range(FONTS)) + "</p><p>x" * FONTS


@pytest.fixture(scope="module", autouse=True)
def cleaner() -> Iterator[None]:
    yield
    CLEANER.end()


@pytest.mark.parametrize(
    "html",
    [
        pytest.param(REOPENED, id="more memory than there is"),
        pytest.param("<div>" * 400_000, id="more time than there is", marks=pytest.mark.long),
        pytest.param(f"<p><font size=1>{'<a href=//e>x' * 150_000}", id="more than a page has"),
    ],
)
async def test_html_that_cannot_be_cleaned_is_told_so_and_the_next_one_is_shown(html: str) -> None:
    assert TOLD in await safe_html(html, NO_IMAGES)
    assert "<p>Next</p>" in await safe_html("<p>Next</p>", NO_IMAGES)


async def test_an_image_of_ours_is_shown_whatever_stands_around_it() -> None:
    html = '<img alt=\'x" src="image:7\' src="https://e.example/a.png"><img src="image:0" alt=sly>'
    ours = Images({"https://e.example/a.png": "/emails/1/attachments/0"}, {})
    page = await safe_html(html, ours)
    assert page.endswith(
        '<img alt="x&quot; src=&quot;image:7" src="/emails/1/attachments/0"><img alt="sly">'
        "</body></html>"
    )

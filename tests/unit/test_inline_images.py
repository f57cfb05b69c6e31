"""Which images within the text of an email are files of it."""

import json
import time
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from support import make_settings

from app.attachments.hosts import own_hosts
from app.intake.email_row import make_row
from app.intake.inline_images import MOST_IMAGES, inline_images
from app.intake.json_body import read_json_object
from app.intake.payload import check_payload

HOSTS = own_hosts(make_settings(zendesk_subdomain="acme"))


@pytest.mark.parametrize(
    ("body", "urls"),
    [
        (
            '<p>See <img alt="x" src="https://acme.zendesk.com/attachments/token/a/?name=b.png&amp;x=1">',
            ["https://acme.zendesk.com/attachments/token/a/?name=b.png&x=1"],
        ),
        (
            "<IMG SRC='https://acme.zendesk.com/attachments/token/a/'><img\nsrc = "
            "https://acme.zendesk.com/attachments/token/b/ ><img "
            'src="https://acme.zendesk.com/attachments/token/a/">',
            [
                "https://acme.zendesk.com/attachments/token/a/",
                "https://acme.zendesk.com/attachments/token/b/",
            ],
        ),
        ('<img src="https://tracker.example/pixel.gif">', []),
        ('<img src="https://acme.zendesk.com/api/v2/users.json">', []),
        ('<img src="https://other.zendesk.com/attachments/token/a/">', []),
        ('<img src="http://acme.zendesk.com/attachments/token/a/">', []),
        ('<img data-src="https://acme.zendesk.com/attachments/token/a/">', []),
        ('<a href="https://acme.zendesk.com/attachments/token/a/">', []),
        ('<img src="https://[acme">', []),
        ("", []),
    ],
)
def test_images_of_an_email_are_those_that_the_account_keeps(body: str, urls: list[str]) -> None:
    assert [image["url"] for image in inline_images(body, [], HOSTS)] == urls


def test_images_are_bounded_in_number() -> None:
    body = "".join(
        f'<img src="https://acme.zendesk.com/attachments/token/{n}/">' for n in range(500)
    )
    assert len(inline_images(body, [], HOSTS)) == MOST_IMAGES


@pytest.mark.parametrize("part", ["<img ", "<img src=", "<img src ", "<img src=https://", " src"])
def test_hostile_bodies_are_looked_through_in_linear_time(part: str) -> None:
    def seconds(times: int) -> float:
        body = "<img " + part * times
        begin = time.perf_counter()
        inline_images(body, [], HOSTS)
        return time.perf_counter() - begin

    assert seconds(80_000) < 40 * (seconds(10_000) + 0.001)


@pytest.mark.parametrize("name", ["%00", "%ED%A0%80", "..%2f..%2fx", "&#0;", "&#xd800;"])
def test_names_of_images_can_be_stored(name: str) -> None:
    url = f"https://acme.zendesk.com/attachments/token/a/?name=a{name}"
    [image] = inline_images(f'<img src="{url}">', [], HOSTS)
    text = json.dumps(image)
    assert "\\u0000" not in text and "\\ud8" not in text


IMAGE = "https://acme.zendesk.com/attachments/token/a/?name=logo%20of%20us.png"


def test_an_image_is_stored_with_the_files_of_its_email_once_and_marked() -> None:
    other = IMAGE.replace("/a/", "/b/")
    body = {
        "ticket_id": 1,
        "from_email": "kim@example.com",
        "body_html": f'<img src="{IMAGE}"><img src="{other}">',
        "attachments": [{"filename": "b.png", "url": other}],
    }
    raw = json.dumps(body).encode()
    row = make_row(
        raw,
        json_body := read_json_object(raw),
        check_payload(json_body.fields),
        email_id=uuid4(),
        invocation_id=None,
        signature=None,
        now=datetime.now(UTC),
        hosts=HOSTS,
    )

    listed, shown = json.loads(row.attachment_urls or "")
    assert (listed["url"], listed.get("inline")) == (other, None)
    assert (shown["url"], shown["filename"], shown["inline"]) == (IMAGE, "logo of us.png", True)

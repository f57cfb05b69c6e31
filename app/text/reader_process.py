"""The process that reads long bodies."""

from typing import Any

from app.text.answering import answer_requests
from app.text.email_text import read_email_text

# Neither is reached: reading is linear, and four million characters take less than 200 MB. They end
# the process if that should not hold for something nobody thought of.
MOST_CPU_SECONDS = 20.0
MOST_MEMORY_BYTES = 1024 * 1024 * 1024


def answer(**fields: Any) -> dict[str, Any]:
    """What `read_email_text` makes of a request."""
    read = read_email_text(**fields)
    return {"cleaned_body": read.cleaned_body, "data": read.as_data()}


if __name__ == "__main__":
    answer_requests(answer, most_cpu_seconds=MOST_CPU_SECONDS, most_memory_bytes=MOST_MEMORY_BYTES)

"""Mailroom's web process, its rows thrown away where the group commit would store them."""

from app.cli.listener import listen
from app.cli.web import Server
from app.intake.admission import Admission
from app.intake.email_row import EmailRow
from app.intake.writer import EmailWriter
from app.main import create_app
from app.settings import get_settings


async def throw_away(self: EmailWriter, row: EmailRow) -> Admission:
    """What the route waits for where nothing is stored."""
    return Admission(row.id, is_duplicate=False)


def main() -> None:
    """Serve it as `mailroom web` does."""
    settings = get_settings()
    EmailWriter.store = throw_away  # type: ignore[method-assign]
    Server(create_app(), settings).run(sockets=[listen(settings)])


if __name__ == "__main__":
    main()

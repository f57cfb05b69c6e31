"""Mail that goes out by SMTP, to a server that a setting names. Its name is resolved once, and the
connection goes to an address that was checked, as everywhere in `outbound`."""

import asyncio
import socket
from email.message import EmailMessage
from pathlib import Path
from ssl import SSLCertVerificationError, SSLError

import aiosmtplib
import attrs

from app.http.host_names import Origin
from app.outbound.errors import (
    MailRefusedError,
    OutboundError,
    TimedOutError,
    UnreachableError,
    UntrustedError,
)
from app.outbound.network import MOST_ADDRESSES, Resolve, resolve
from app.outbound.rules import Rules
from app.outbound.transport import trusted

TOTAL_SECONDS = 60.0
CONNECT_SECONDS = 10.0
# Characters of what a server answers.
LONGEST_ANSWER = 300


@attrs.frozen
class MailServer:
    """A mail server, and how it is spoken to."""

    host: str
    port: int
    user: str = ""
    password: str = attrs.field(default="", repr=False)
    is_tls: bool = False
    """Encrypted from the first byte on; else by STARTTLS, without which nothing is sent."""
    is_plain: bool = False
    """Not encrypted at all."""

    @property
    def rules(self) -> Rules:
        """Who names a mail server means it, though it is in the own network."""
        return Rules(hosts=None, internal=frozenset({Origin("smtp", self.host, self.port)}))


async def send_mail(
    server: MailServer,
    message: EmailMessage,
    *,
    ca_file: Path | None = None,
    resolve: Resolve = resolve,
) -> None:
    """Give a message to a mail server.

    Raises:
        AddressNotAllowedError: the server's name leads to an address that must not be called.
        UntrustedError: the server cannot prove who it is, or encrypts nothing.
        UnreachableError: there is no such server, or nothing that speaks SMTP.
        MailRefusedError: it does not take the message; says what it answered.
        TimedOutError: it took too long.
    """
    host = server.host
    try:
        async with asyncio.timeout(TOTAL_SECONDS):
            await _give(server, await _connect(server, resolve), message, ca_file)
    except TimeoutError as error:
        raise TimedOutError(f"{host} does not answer in time", host) from error
    except (aiosmtplib.SMTPException, SSLError, OSError) as error:
        raise _explained(error, host) from error


async def _give(
    server: MailServer, connection: socket.socket, message: EmailMessage, ca_file: Path | None
) -> None:
    client = aiosmtplib.SMTP(
        hostname=server.host,
        sock=connection,
        local_hostname=socket.gethostname(),
        username=server.user or None,
        password=server.password or None,
        use_tls=server.is_tls,
        start_tls=not (server.is_tls or server.is_plain),
        tls_context=trusted(ca_file),
        timeout=TOTAL_SECONDS,
    )
    try:
        await client.connect()
        await client.send_message(message)
        await client.quit()
    finally:
        # The connection is its own by now.
        client.close()


async def _connect(server: MailServer, resolve: Resolve) -> socket.socket:
    addresses = await resolve(server.host, server.port)
    for address in addresses:
        server.rules.check_address(server.host, server.port, address)
    for address in addresses[:MOST_ADDRESSES]:
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        made = socket.socket(family, socket.SOCK_STREAM)
        made.setblocking(False)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await asyncio.get_running_loop().sock_connect(made, (str(address), server.port))
        except (OSError, TimeoutError):
            made.close()
        except BaseException:
            made.close()
            raise
        else:
            return made
    raise UnreachableError(f"{server.host} cannot be reached at port {server.port}", server.host)


def _explained(error: Exception, host: str) -> OutboundError:
    """What an error of the library means."""
    if isinstance(error, aiosmtplib.SMTPResponseException):
        said = " ".join(str(error.message).split())[:LONGEST_ANSWER]
        return MailRefusedError(f"{host} answers {error.code} {said}", host)
    if isinstance(error, aiosmtplib.SMTPRecipientsRefused):
        # Their text holds the addresses.
        codes = ", ".join(sorted({str(refused.code) for refused in error.recipients}))
        return MailRefusedError(f"{host} takes no mail for whom it is meant ({codes})", host)
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, SSLCertVerificationError):
            return UntrustedError(
                f"{host} has no certificate that is trusted ({cause.verify_message})", host
            )
        cause = cause.__cause__ or cause.__context__
    if "STARTTLS" in str(error):
        return UntrustedError(
            f"{host} offers no encryption: use smtps://, or add tls=none if that is meant", host
        )
    return UnreachableError(f"{host} cannot be spoken to ({type(error).__name__})", host)

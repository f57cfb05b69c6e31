"""The `mailroom` command: a group whose subcommands are loaded when they are called. `--help` works
whatever the settings are."""

import importlib
import sys
from typing import Any

import click

from app.cli.printing import say_lines
from app.errors import MailroomError
from app.settings import Settings, SettingsError, environment_name, use_defaults
from app.telemetry.logs import configure_default_logging

COMMANDS = {
    "up": ("app.cli.up:up", "Run everything on this machine: database, web, workers."),
    "web": ("app.cli.web:web", "Run the web process, which takes email."),
    "worker": ("app.cli.worker:worker", "Run workers, which process email."),
    "migrate": ("app.cli.migrate:migrate_database", "Bring the database up to this version."),
    "send": ("app.cli.send:send", "Sign a webhook as Zendesk does, and post it."),
    "handler": ("app.cli.handler:handler", "Try a handler on one email."),
    "zendesk": ("app.cli.zendesk:zendesk", "Make and check the webhook and trigger at Zendesk."),
    "lint": (
        "app.cli.lint:lint_file",
        "Say what is wrong with a trigger's template.",
    ),
    "text": ("app.cli.text:show_text", "Show what becomes of the body of an email."),
    "show": ("app.cli.show:show", "Tell the story of one email."),
    "receipt": ("app.cli.receipt:receipt", "Print a signed proof of what became of one email."),
    "status": ("app.cli.processing:status", "Say how it stands, and whether it is paused."),
    "pause": ("app.cli.processing:pause", "Pause processing; email is accepted and waits."),
    "resume": ("app.cli.processing:resume", "Resume processing."),
    "stuck": ("app.cli.show:stuck", "List emails that are older in their state than expected."),
    "listen": ("app.cli.listen:listen", "Receive deliveries in development, and show them."),
    "reconcile": ("app.cli.reconcile:reconcile", "Have delivered what was not, or once more."),
    "bulk": ("app.cli.bulk:bulk", "Do one thing to many emails, such as to retry them."),
    "quarantine": ("app.cli.quarantine:quarantine", "Look after refused webhooks."),
    "attachments": ("app.cli.attachments:attachments", "Look after the files of emails."),
    "sync": ("app.cli.sync:sync", "Look after the delivery of finished emails."),
    "prune": ("app.cli.prune:prune", "Remove what is older than it is to be kept."),
    "erase": ("app.cli.erase:erase", "Erase emails by sender, ticket or id, for good."),
    "erasures": ("app.cli.erase:erasures", "List what was erased, when and by whom."),
    "token": ("app.cli.token:token", "Make and revoke tokens of the HTTP API."),
    "user": ("app.cli.user:user", "Make users, and say what they may do."),
    "gaps": ("app.cli.gaps:gaps", "Look now for emails that no webhook brought."),
    "backfill": ("app.cli.gaps:backfill", "Look through Zendesk's tickets of the past."),
    "suspended": ("app.cli.suspended:suspended", "Look after mail that Zendesk suspended."),
    "alerts": ("app.cli.alerts:alerts", "See the alarms, and try out who is told of them."),
    "doctor": ("app.cli.doctor:doctor", "Check everything, and say how to mend what is wrong."),
    "size": ("app.cli.size:size", "Reckon what an installation needs."),
    "drill": ("app.cli.drill:drill", "Let faults strike a staging installation under load."),
    "demo": ("app.cli.demo:demo", "See it work: send sample emails through the whole of it."),
}


class MailroomGroup(click.Group):
    """Loads subcommands late; tells known errors in one sentence."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        try:
            return _load(cmd_name)
        except SettingsError as error:
            # Tables belong to a database from the start, and which one is a setting.
            use_defaults()
            return _for_help_alone(_load(cmd_name), error)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, (_, about) in COMMANDS.items()])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Settings, from the environment or a .env file"):
            formatter.write_dl(
                [(environment_name(name), _about_setting(name)) for name in Settings.model_fields]
            )

    def main(self, *args: Any, **kwargs: Any) -> Any:
        if "" not in sys.path:
            # As in the workers, a handler may be a file of the working folder.
            sys.path.insert(0, "")
        try:
            return super().main(*args, **kwargs)
        except MailroomError as error:
            say_lines(f"mailroom: {error}", is_error=True)
            sys.exit(1)


def _load(name: str) -> click.Command:
    module_name, _, variable = COMMANDS[name][0].partition(":")
    command: click.Command = getattr(importlib.import_module(module_name), variable)
    return command


def _for_help_alone(command: click.Command, error: SettingsError) -> click.Command:
    """The command, which ends in this error where it would do anything, as those below it."""

    def refuse(**_: Any) -> None:
        # A group is called before the command below it can show its help.
        if click.get_current_context().invoked_subcommand is None:
            raise error

    command.callback = refuse
    if isinstance(command, click.Group):
        for below in command.commands.values():
            _for_help_alone(below, error)
    return command


def _about_setting(name: str) -> str:
    field = Settings.model_fields[name]
    about = " ".join((field.description or "").split())
    default = field.get_default(call_default_factory=True)
    return about if default in ("", ()) else f"{about} [default: {default}]"


@click.group(cls=MailroomGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="mailroom")
@click.option(
    "--as",
    "acting_as",
    metavar="NAME",
    envvar="MAILROOM_AS",
    help="Who acts, for the audit log. [default: the account of this machine]",
)
def main(acting_as: str | None) -> None:
    """Mailroom takes inbound email from Zendesk's webhooks, stores it durably before it answers,
    and processes it in workers. See it work with `mailroom demo`; run it with `mailroom up`.
    """
    configure_default_logging()


if __name__ == "__main__":
    main()

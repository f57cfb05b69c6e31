"""Values of tables that pages show as they are: each is a message of the catalogues, so that
`translated` in a template, and `gettext` elsewhere, find it."""

from app.i18n.texts import N_

SHOWN = (
    # States of emails.
    *(N_("received"), N_("queued"), N_("processing"), N_("completed"), N_("failed")),
    # Of files and deliveries.
    *(N_("pending"), N_("kept"), N_("skipped"), N_("flagged"), N_("synced")),
    # Of bulk actions.
    *(N_("running"), N_("stopped"), N_("ended")),
    # Reasons of the quarantine.
    *(N_("signature"), N_("unreadable"), N_("invalid"), N_("too_large"), N_("media_type")),
    N_("unstorable"),
    # Kinds of alarms.
    *(N_("silence"), N_("suspended"), N_("zendesk"), N_("canary")),
    # Who acts, by what door, and with which result.
    *(N_("user"), N_("token"), N_("command"), N_("nobody"), N_("page"), N_("api")),
    *(N_("done"), N_("begun"), N_("nothing"), N_("refused")),
    # The two lines behind the webhook.
    *(N_("invocations"), N_("tickets")),
    # Roles, and the door of Piccolo Admin.
    *(N_("viewer"), N_("operator"), N_("admin")),
)

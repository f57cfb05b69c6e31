"""What the `piccolo` command reads: the engine and the apps."""

from piccolo.conf.apps import AppRegistry

from app.database.engine import DB
from app.database.migrations import serialise_piccolo_migrations

__all__ = ["APP_REGISTRY", "DB"]

# `piccolo migrations forwards` may run in several places at once, and Piccolo takes no lock.
serialise_piccolo_migrations()

APP_REGISTRY = AppRegistry(
    apps=[
        "app.piccolo_app",
        "piccolo.apps.user.piccolo_app",
        "piccolo_api.session_auth.piccolo_app",
        "piccolo_api.mfa.authenticator.piccolo_app",
        "piccolo_admin.piccolo_app",
    ]
)

"""Which migrations this code brings, without loading them."""

import os
import subprocess
import sys

from piccolo.apps.migrations.commands.base import BaseMigrationManager
from piccolo.apps.user.piccolo_app import APP_CONFIG as USER_APP
from piccolo_api.mfa.authenticator.piccolo_app import APP_CONFIG as SECOND_STEP_APP
from piccolo_api.session_auth.piccolo_app import APP_CONFIG as SESSION_APP

from app.database.schema_fit import known_migrations
from app.piccolo_app import APP_CONFIG


def test_what_is_known_of_the_migrations_is_what_piccolo_runs() -> None:
    assert known_migrations() == {
        (app.app_name, name)
        for app in (APP_CONFIG, USER_APP, SESSION_APP, SECOND_STEP_APP)
        for name in BaseMigrationManager().get_migration_modules(
            app.resolved_migrations_folder_path
        )
    }


def test_to_look_at_them_loads_nothing_that_runs_them() -> None:
    look = (
        "import sys; from app.database.schema_fit import known_migrations; known_migrations(); "
        "print(*{'black', 'piccolo.apps.migrations.commands', 'psycopg'} & sys.modules.keys())"
    )
    found = subprocess.run(
        [sys.executable, "-c", look],
        env={**os.environ, "DATABASE_URL": "postgresql://db.internal/mailroom"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.split() == []

"""Where a browser finds the pages of the desk, and what they are made of."""

import hashlib
from pathlib import Path

from app.settings import get_settings

FOLDER = Path(__file__).parent
STATIC = (FOLDER / "static", FOLDER.parent / "http" / "static")
STATIC_PATH = "/overview/files"
ADMIN_PATH = "/admin"
ROWS_PATH = "/rows"
QUARANTINE_PATH = "/quarantine"
LINT_PATH = "/lint"
SUSPENDED_PATH = "/suspended"
EMAILS_PATH = "/emails"
PROCESSING_PATH = "/processing"
BULK_PATH = "/bulk"
DELIVERIES_PATH = "/deliveries"
FILES_PATH = "/files"
WORKERS_PATH = "/workers"
LIVE_PATH = "/live"
AUDIT_PATH = "/audit"
PEOPLE_PATH = "/people"
ACCOUNT_PATH = "/account"
LANGUAGE_PATH = "/account/language"
SIGN_IN_PATH = "/sign-in"
CODE_PATH = "/sign-in/code"
PROVIDER_PATH = "/sign-in/oidc"
SECOND_STEP_PATH = "/account/second-step"


def address(path: str) -> str:
    """Where a browser finds this path of ours."""
    return get_settings().root_path + path


def admin_address() -> str:
    """Where a browser finds Piccolo Admin."""
    return address(f"{ADMIN_PATH}/")


def file_url(name: str) -> str:
    """Where a browser finds a style or script of the desk."""
    return address(f"{STATIC_PATH}/{name}?{_VERSIONS[name]}")


_VERSIONS = {
    file.name: hashlib.sha256(file.read_bytes()).hexdigest()[:12]
    for folder in STATIC
    for file in folder.iterdir()
}

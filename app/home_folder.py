"""A home folder for users that have none: containers run under any user id, often without a name.

Piccolo imports black, which asks for its user's cache as soon as it is imported, and fails.
"""

import os.path

if not os.path.isabs(os.path.expanduser("~")):  # noqa: PTH111, PTH117 - pathlib raises here
    os.environ["HOME"] = "/"

"""The one base class of the errors that Mailroom raises on purpose.

A message says what is wrong and what to do about it: it is shown to people as it stands.
"""


class MailroomError(Exception):
    """Something is wrong that a person can mend; the message says how."""

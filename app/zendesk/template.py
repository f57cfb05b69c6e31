"""The body of the trigger that `mailroom zendesk setup` makes, and docs/webhook.md shows.

Every text goes through `url_encode`, so that no quote, backslash or line break of a customer's can
break the JSON, and no escaping that Zendesk may do changes it. What stays bare Zendesk makes
itself: numbers, times, the addresses of files. Who answers need not be who asked, but somebody in
copy: the sender is the author of the comment, and the requester where Zendesk names none.
"""

from app.intake.encoded_texts import FIELD, PROBE_PLACEHOLDER

SENDER = "{{ticket.latest_comment.author.email | default: ticket.requester.email | url_encode}}"
SENDER_NAME = "{{ticket.latest_comment.author.name | default: ticket.requester.name | url_encode}}"

TEMPLATE = f"""\
{{
  "ticket_id": "{{{{ticket.id}}}}",
  "from_email": "{SENDER}",
  "from_name": "{SENDER_NAME}",
  "subject": "{{{{ticket.title | url_encode}}}}",
  "body_text": "{{{{ticket.latest_comment.value | url_encode}}}}",
  "received_at": "{{{{ticket.updated_at_with_timestamp}}}}",
  "attachments": [
    {{% for file in ticket.latest_comment.attachments %}}
    {{"filename": "{{{{file.filename | url_encode}}}}", "url": "{{{{file.url}}}}"}}
    {{% unless forloop.last %}},{{% endunless %}}
    {{% endfor %}}
  ],
  "{FIELD}": "{PROBE_PLACEHOLDER}"
}}
"""

"""The files of emails: fetched, kept, given out."""

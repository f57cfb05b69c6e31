"""The entries of `attempt_errors`, in SQL: what an email met with, bounded in number.

Whoever adds one does it by these expressions, so that no row grows without end.
"""

# An email that fails or is handed back again and again must not grow without end. Its first entries
# tell how it began, the newest how it stands.
MOST_ENTRIES = 50
FIRST_ENTRIES = 10
_NEWEST = MOST_ENTRIES - FIRST_ENTRIES - 2


def told(entry: str) -> str:
    """The attempt errors with one more entry, in SQL. The one after the first entries says how
    many were left out, where there are more than are kept."""
    marker = f"attempt_errors -> {FIRST_ENTRIES}"
    left_out = f"""COALESCE(({marker} ->> 'left_out')::int - 1, 0)
        + jsonb_array_length(attempt_errors) - {FIRST_ENTRIES + _NEWEST}"""
    return f"""CASE
        WHEN jsonb_array_length(attempt_errors) < {MOST_ENTRIES}
        THEN attempt_errors || jsonb_build_array({entry})
        ELSE jsonb_path_query_array(attempt_errors, '$[0 to {FIRST_ENTRIES - 1}]')
            || jsonb_build_array(jsonb_build_object(
                'at', attempt_errors -> -{_NEWEST + 1} -> 'at', 'attempt', 0,
                'error', format('left out here: %s entries', {left_out}), 'left_out', {left_out}))
            || jsonb_path_query_array(attempt_errors, '$[last-{_NEWEST - 1} to last]')
            || jsonb_build_array({entry})
        END"""


def noted(error: str) -> str:
    """The attempt errors with what happened to the email besides its attempts. `error` is SQL."""
    return told(f"jsonb_build_object('at', now(), 'attempt', 0, 'error', {error})")

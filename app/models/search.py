"""The tables of the search: the index of words, and what people saved. Only `app.search` writes
them. An entry goes with its email."""

from piccolo.columns import UUID, Column, Integer, SmallInt, Text, Timestamptz, Varchar
from piccolo.columns.defaults.timestamptz import TimestamptzNow
from piccolo.columns.defaults.uuid import UUID4
from piccolo.constraints import Unique
from piccolo.table import Table

from app.database.engine import DB


class TSVector(Column):
    """A `tsvector` of PostgreSQL; as text for Python.

    https://www.postgresql.org/docs/current/datatype-textsearch.html
    """

    value_type = str

    @property
    def column_type(self) -> str:
        return "TSVECTOR"


class SearchEntry(Table, tablename="search_entries", db=DB):
    """What an email is found by; `app.search.words` makes it."""

    email = UUID(primary_key=True, default=UUID4())
    received_at = Timestamptz(default=TimestamptzNow(), help_text="As the email has it")
    ended_at = Timestamptz(
        null=True, default=None, help_text="`completed_at` of the email when this was written"
    )
    words = TSVector(default="")


class SearchMark(Table, tablename="search_marks", db=DB):
    """How far the index is: one row."""

    id = SmallInt(primary_key=True, default=1)
    stored_until = Timestamptz(
        default=TimestamptzNow(), help_text="What was stored before has an entry"
    )
    ended_until = Timestamptz(
        default=TimestamptzNow(), help_text="What ended before has its result and error in it"
    )
    older_than = Timestamptz(
        null=True,
        default=None,
        help_text="Of what was there before the index, what was stored before this has none yet",
    )
    older_id = UUID(
        null=True,
        default=None,
        help_text="Nor has what was stored in that very moment and has a lower id",
    )


class SavedSearch(Table, tablename="saved_searches", db=DB):
    """A search that a person gave a name."""

    id = UUID(primary_key=True, default=UUID4())
    user_id = Integer(default=0, help_text="Whose it is: the id in `piccolo_user`")
    name = Varchar(length=60)
    search = Text(help_text="As it is typed")
    created_at = Timestamptz(default=TimestamptzNow())

    one_of_a_name = Unique(["user_id", "name"])

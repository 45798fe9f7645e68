"""Imports over HTTP."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints

from app.core.enums import ImportState
from app.core.validation import pattern
from app.schemas.bulk import SourceName
from app.schemas.types import Input, Line, Output, Username

MAX_MESSAGES = 100
"""The maximum number of errors, and of notes, of an import."""


class ImportQuery(Input):
    """How a source is imported."""

    source: Annotated[
        SourceName | None,
        Field(
            description="The name of the source. A record is the same as in an earlier import of "
            "the same source. By default the URL of the exported site; required for a ZIP file"
        ),
    ] = None
    author: Annotated[
        Username | None,
        Field(description="The author of all articles; editors may name others"),
    ] = None
    site: Annotated[
        Annotated[
            str,
            StringConstraints(
                max_length=200,
                pattern=pattern(
                    r"^https?://[!-~]+$",
                    "should be a URL that starts with http:// or https://, in ASCII without spaces",
                ),
            ),
        ]
        | None,
        Field(
            description="The URL of the old site, if the source does not contain it. Relative "
            "URLs become absolute with it"
        ),
    ] = None
    timezone: Annotated[
        Annotated[str, Line(100)] | None,
        Field(description="The time zone of dates without one, such as Europe/Berlin"),
    ] = None
    publish_restricted: Annotated[
        bool,
        Field(description="Publish what only some readers could read; otherwise it becomes drafts"),
    ] = False
    dry_run: Annotated[bool, Field(description="Report what would change, and change nothing")] = (
        False
    )


class ImportMessage(Output):
    """A message about a record."""

    line: int | str
    """The line of NDJSON, the path of a file, or the number of the record."""
    message: str


class ImportResponse(Output):
    """An import, its progress and its result.

    Its state is `receiving` or `running` until it has finished. `errors` and `notes` are complete
    then; they have the first 100 messages. The report has the messages of all records.

    `stopped` is the first record that was not written because of a limit; no later record was
    written. Its message says what to do. Written records stay, and the same import can be sent
    again.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": 7,
                    "state": "completed",
                    "format": "ndjson",
                    "source": "api",
                    "dry_run": False,
                    "bytes": 412,
                    "progress": 1,
                    "records": 3,
                    "created": 2,
                    "updated": 0,
                    "unchanged": 0,
                    "failed": 1,
                    "left_out": 0,
                    "stopped": None,
                    "message": None,
                    "remarks": [],
                    "errors": [{"line": 3, "message": "title: Field required"}],
                    "notes": [
                        {"line": 1, "message": "language: en instead of 'en-UK'"},
                    ],
                    "created_at": "2026-11-29T09:00:00Z",
                    "finished_at": "2026-11-29T09:00:01Z",
                }
            ]
        }
    )

    id: int
    state: ImportState
    format: str
    source: str | None
    dry_run: bool
    bytes: int
    """The size of the body."""
    progress: float
    """The part of the source that was read, from 0 to 1."""
    records: int
    """The number of records in the source, so far."""
    created: int
    updated: int
    unchanged: int
    failed: int
    left_out: int
    """Records of kinds that are never imported, such as menus."""
    stopped: ImportMessage | None
    message: str | None
    """Why the import ended early."""
    remarks: Sequence[str]
    """What concerns the source as a whole: what was left out, unknown authors, damages."""
    errors: Sequence[ImportMessage]
    notes: Sequence[ImportMessage]
    created_at: datetime
    finished_at: datetime | None

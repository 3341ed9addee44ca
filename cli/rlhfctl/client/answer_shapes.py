"""What annotation tools export of one task, with the answers of several people in it, as a row an answer.

Label Studio: JSON, https://labelstud.io/guide/task_format; its JSON_MIN and CSV have a row an answer already. Argilla: records as
JSON (`dataset.records.to_json`), and the columns of `dataset.records.to_datasets()`. In both the question is called `choice`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rlhf_api.conventions.annotations import Choice

_QUESTION = "choice"
#: Of Label Studio's tag Pairwise; what is shown first is A.
_SIDES = {"left": Choice.A, "right": Choice.B}

Row = Mapping[str, Any]


def rows_of(row: Row) -> Iterator[Row]:
    """The row itself where it is of no shape that is known here."""
    if isinstance(row.get("annotations"), list) and isinstance(row.get("data"), Mapping):
        yield from _label_studio(row)
    elif isinstance(row.get("responses"), Mapping):
        yield from _argilla(row)
    elif f"{_QUESTION}.responses" in row:
        yield from _argilla_columns(row)
    else:
        yield row


def _label_studio(task: Row) -> Iterator[Row]:
    """A task that was skipped has annotations without a result, or cancelled ones."""
    for annotation in task["annotations"]:
        if annotation.get("was_cancelled"):
            continue
        who = annotation.get("completed_by")
        annotator = who.get("email") or who.get("id") if isinstance(who, Mapping) else who
        for found in annotation.get("result") or []:
            if found.get("from_name") == _QUESTION:
                value = found.get("value") or {}
                choice = ", ".join(map(str, value.get("choices") or [])) or value.get("selected")
                yield _row(task["data"].get("pair_id"), annotator, _SIDES.get(str(choice), choice))


def _argilla(record: Row) -> Iterator[Row]:
    holders = (record, record.get("metadata") or {}, record.get("fields") or {})
    pair = next((holder["pair_id"] for holder in holders if "pair_id" in holder), record.get("id"))
    for response in record["responses"].get(_QUESTION) or []:
        if _counts(response.get("status")):
            yield _row(pair, response.get("user_id"), response.get("value"))


def _argilla_columns(record: Row) -> Iterator[Row]:
    pair = record.get("pair_id", record.get("id"))
    values = record[f"{_QUESTION}.responses"] or []
    users = record.get(f"{_QUESTION}.responses.users") or [None] * len(values)
    statuses = record.get(f"{_QUESTION}.responses.status") or [None] * len(values)
    for value, user, status in zip(values, users, statuses, strict=False):
        if _counts(status):
            yield _row(pair, user, value)


def _counts(status: object) -> bool:
    """Not what is a draft, or was discarded; records from before there was a status have none."""
    return status is None or str(status) == "submitted"


def _row(pair: object, annotator: object, choice: object) -> Row:
    return {"pair_id": pair, "annotator": annotator, "choice": choice}

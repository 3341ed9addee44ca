"""What people answered, from the answers that the store keeps: all that imported them, and none that came too late."""

from __future__ import annotations

import io

from rlhf_api import RLHFRun
from rlhf_api.conventions.annotations import COLUMNS, Choice, annotations_key, tally
from rlhf_store import NotFound, Store, StoreError, Unavailable

from .model import PeopleFigures


def people_figures(run: RLHFRun, store: Store, questions: dict[int, int], missing: list[str]) -> tuple[PeopleFigures, ...]:
    """By iteration, of those whose questions are sealed. `questions`: how many, by iteration; `missing` gets what cannot be read.

    Raises Unavailable.
    """
    human = run.spec.reward.human
    if human is None:
        return ()
    found = []
    for entry in sorted(run.spec.annotations, key=lambda entry: entry.iteration):
        if entry.iteration not in questions:
            continue
        answers = _answers(store, entry.digest, f"iteration {entry.iteration}, the answers of people", missing)
        if answers is not None:
            found.append(PeopleFigures(entry.iteration, questions[entry.iteration], tally(answers, human.annotators_per_pair)))
    return tuple(found)


def _answers(store: Store, digest: str, where: str, missing: list[str]) -> list[tuple[str, str, Choice]] | None:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        missing.append(f"{where}: pyarrow is not installed, which reads them")
        return None
    try:
        rows = pq.read_table(io.BytesIO(store.get(annotations_key(digest))), columns=[*COLUMNS]).to_pylist()
        return [(row["pair_id"], row["annotator"], Choice(row["choice"])) for row in rows]
    except Unavailable:
        raise  # The next would only make the reader wait again.
    except NotFound:
        missing.append(f"{where}: {annotations_key(digest)} is gone from the store")
    except (StoreError, pa.ArrowInvalid, ValueError) as error:
        missing.append(f"{where}: {error}")
    return None

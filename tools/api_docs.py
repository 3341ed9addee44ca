"""Write the generated tables of docs/api.md from the code: `python tools/api_docs.py`. With --check: exit 1 where they differ."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable

import pyarrow as pa
from generated import ROOT, table, write_or_check

from rlhf_api.metrics import Metric
from rlhf_api.validation.rules.not_available import NOT_AVAILABLE
from rlhf_api.words import STAGE_ARTIFACT, ConditionType, Phase, Reason, StageName
from rlhf_trainer.data import parquet
from rlhf_trainer.data.examples import EXAMPLES
from rlhfctl.exits import Exit

PAGE = ROOT / "docs" / "api.md"
_DOES = {
    StageName.PREFLIGHT: "finds everything that would stop the run later; resolves revisions; renders what sft and reward train on",
    StageName.RESOLVE: "looks one artifact up; booked on the stage that it resolves",
    StageName.SFT: "trains pi_0 on demonstrations",
    StageName.REWARD: "trains a Bradley-Terry reward model on preferences",
    StageName.JUDGE: "trains a Bradley-Terry judge on preferences, of a base or data of its own",
    StageName.SAMPLE: "n completions a prompt, with vLLM",
    StageName.ASK: "which pairs people are asked about, where they are the labeler",
    StageName.LABEL: "scores them and makes pairs",
    StageName.REFERENCE: "log-probs of the pairs under the reference",
    StageName.TRAIN: "preference optimisation, with DeepSpeed",
    StageName.EVALUATE: "an iterate on held-out prompts, judged and compared",
    StageName.BENCHMARK: "an iterate on the tasks of others; beside the chain, and left out if it fails, unless a gate reads it",
    StageName.FINALIZE: "names the best iterate, carries out retention",
}


def filled(page: str) -> str:
    """The page with what stands between its markers written anew. Raises KeyError for a marker of no table."""

    def fill(match: re.Match[str]) -> str:
        return f"<!-- generated: {match[1]} -->\n{TABLES[match[1]]()}<!-- end -->"

    return re.sub(r"<!-- generated: ([a-z-]+) -->\n.*?<!-- end -->", fill, page, flags=re.DOTALL)


def stages() -> str:
    rows = [(name.value, _DOES[name], STAGE_ARTIFACT[name].value if name in STAGE_ARTIFACT else "") for name in StageName]
    return table(("stage", "what it does", "artifact"), rows)


def metrics() -> str:
    return table(("metric", "unit", "definition"), [(metric.value, metric.unit, metric.definition) for metric in Metric])


def phases() -> str:
    rows = [("phase", Phase), ("condition", ConditionType), ("reason", Reason)]
    return table(("", "values"), [(name, ", ".join(member.value for member in words)) for name, words in rows])


def columns() -> str:
    schemas = {
        "samples": parquet.SAMPLES,
        "questions": parquet.QUESTIONS,
        "labels": parquet.LABELS,
        "reference-logps": parquet.REFERENCE_LOGPS,
        "evaluation": parquet.EVALUATION,
        "tokens": EXAMPLES,
    }
    rows = {kind: ", ".join(map(_column, schema)) for kind, schema in schemas.items()}
    for kind in ("samples", "evaluation"):
        rows[kind] += f"; where prompts of the run have tools, {_column(parquet.TOOLS)}"
    rows["samples"] += f"; where prompts.source names a column of answers, {_column(parquet.ANSWER)}"
    return table(("artifact", "columns"), list(rows.items()))


def exits() -> str:
    return table(("code", "meaning"), [(str(int(code)), code.meaning) for code in Exit])


def not_available() -> str:
    rows = [(f"`{'.'.join(map(str, entry.loc))}`", entry.what, entry.instead) for entry in NOT_AVAILABLE]
    return table(("field", "what", "until then"), rows)


TABLES: dict[str, Callable[[], str]] = {
    "stages": stages,
    "metrics": metrics,
    "phases": phases,
    "columns": columns,
    "exits": exits,
    "not-available": not_available,
}


def _column(field: pa.Field) -> str:
    return f"{field.name} *{_type(field.type)}*"


def _type(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return f"list of {_type(kind.value_type)}"
    if pa.types.is_struct(kind):
        return "{" + ", ".join(child.name for child in kind) + "}"
    return str(kind)


if __name__ == "__main__":
    sys.exit(write_or_check(PAGE, lambda: filled(PAGE.read_text(encoding="utf-8")), __doc__, "the code"))

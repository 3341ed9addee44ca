"""The public surface: a change here needs an ADR and a new format or API version."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from rlhf_api import RLHFRun, StageConfig, StageResult, metrics, words
from rlhf_api.base import Model
from rlhf_api.explain import FieldDoc, all_fields
from rlhf_api.reading.manifest import read_manifest
from rlhf_api.stage import PromptIdentity
from rlhf_api.validation import validate
from rlhf_trainer.data.parquet import EVALUATION, LABELS, QUESTIONS, REFERENCE_LOGPS, SAMPLES, with_tools
from support.golden import assert_golden
from support.manifests import manifest

GOLDEN = Path(__file__).parent / "golden"
EXAMPLE = Path(__file__).parents[2] / "examples" / "llama3-8b.yaml"


def test_the_words_are_frozen() -> None:
    lines = [f"{words.GROUP}/{words.VERSION} {words.KIND}"]
    for enum in (words.StageName, words.ArtifactKind, words.Phase, words.ConditionType, words.Reason):
        lines += ["", enum.__name__, *(f"  {member.value}" for member in enum)]
    lines += ["", "StageExit", *(f"  {member.value} {member.name}" for member in words.StageExit)]
    lines += ["", "STAGE_ARTIFACT", *(f"  {stage.value} {kind.value}" for stage, kind in words.STAGE_ARTIFACT.items())]
    assert_golden("\n".join(lines) + "\n", GOLDEN / "words.txt")


def test_the_metrics_are_frozen_with_their_units_and_definitions() -> None:
    lines = [f"{metric.value} [{metric.unit}] {metric.definition}" for metric in metrics.Metric]
    assert_golden("\n".join(lines) + "\n", GOLDEN / "metrics.txt")


def test_the_fields_are_frozen_with_their_types_defaults_and_bounds() -> None:
    assert_golden("".join(f"{line(field)}\n" for field in all_fields()), GOLDEN / "fields.txt")


@pytest.mark.parametrize("model", [StageConfig, StageResult])
def test_what_a_stage_is_told_and_what_it_answers_are_frozen(model: type[Model]) -> None:
    """Without words for people: those may change."""
    assert_golden(
        json.dumps(_without_words(model.model_json_schema(by_alias=True)), indent=1) + "\n", GOLDEN / f"{model.__name__}.json"
    )


def test_the_columns_of_the_data_artifacts_are_frozen() -> None:
    schemas = {
        "samples": SAMPLES,
        "questions": QUESTIONS,
        "labels": LABELS,
        "reference-logps": REFERENCE_LOGPS,
        "evaluation": EVALUATION,
    }
    lines = [f"{name} {field.name} {field.type}\n" for name, schema in schemas.items() for field in schema]
    assert_golden("".join(lines), GOLDEN / "columns.txt")


@pytest.mark.parametrize("schema", [SAMPLES, EVALUATION], ids=["samples", "evaluation"])
def test_a_column_of_tools_stands_behind_the_frozen_ones_of_a_run_whose_prompts_have_tools_alone(schema: pa.Schema) -> None:
    of = {identity: with_tools(schema, identity) for identity in PromptIdentity}
    assert of.pop(PromptIdentity.RENDERED_WITH_TOOLS) == schema.append(pa.field("tools", pa.string()))
    assert all(found == schema for found in of.values())


def _without_words(node: Any) -> Any:
    if isinstance(node, dict):
        # `description` as a property of an object would be a dict, not text.
        told = {key for key in ("description", "title") if isinstance(node.get(key), str)}
        return {key: _without_words(value) for key, value in node.items() if key not in told}
    return [_without_words(item) for item in node] if isinstance(node, list) else node


def line(field: FieldDoc) -> str:
    parts = [field.path, field.type]
    parts += ["required"] if field.required else []
    parts += [] if field.default is None else [f"default {json.dumps(field.default, ensure_ascii=False)}"]
    parts += ["|".join(field.values)] if field.values else []
    return "; ".join([*parts, *field.constraints])


def test_the_published_manifest_is_valid() -> None:
    """The paper's own run: its judge is pairwise."""
    checked = validate(read_manifest(EXAMPLE.read_text()).raw)
    assert [str(problem) for problem in checked.problems] == []
    assert checked.run is not None


def test_the_published_manifest_says_the_defaults() -> None:
    """What it writes out and could have left out is what the models would have filled in: the defaults are the paper's."""
    run = validate(read_manifest(EXAMPLE.read_text()).raw).run
    small = validate(manifest()).run
    assert run is not None
    assert small is not None
    for one, other in (
        (run.spec.train.loss, small.spec.train.loss),
        (run.spec.train.optimization, small.spec.train.optimization),
        (run.spec.train.data, small.spec.train.data),
        (run.spec.sample.mixture, small.spec.sample.mixture),
        (run.spec.label.pairing, small.spec.label.pairing),
        (run.spec.prompts.validation, small.spec.prompts.validation),
        (run.spec.evaluate.sampling, small.spec.evaluate.sampling),
        (run.spec.selection, small.spec.selection),
        (run.spec.retry, small.spec.retry),
        (run.spec.storage.retention, small.spec.storage.retention),
    ):
        assert one == other


def test_a_run_survives_the_way_over_the_wire() -> None:
    for raw in (manifest(), read_manifest(EXAMPLE.read_text()).raw):
        run = RLHFRun.model_validate(raw)
        assert RLHFRun.model_validate_json(json.dumps(run.to_wire())) == run


def test_a_manifest_equals_the_same_with_its_defaults_written_out() -> None:
    short = validate(manifest()).run
    assert short is not None
    written_out = short.to_wire()
    assert len(json.dumps(written_out)) > 3 * len(json.dumps(manifest()))
    assert validate(written_out).run == short


def test_the_wire_form_has_no_null() -> None:
    assert "null" not in json.dumps(RLHFRun.model_validate(read_manifest(EXAMPLE.read_text()).raw).to_wire())

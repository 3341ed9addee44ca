"""label and evaluate with a chat model that they read themselves: what it says becomes shares, one engine at a time."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlhf_api.resource.labeler import Labeler, LabelerType, LlmJudge
from rlhf_api.resource.model import ModelRef
from rlhf_api.resource.storage import Storage
from rlhf_api.resource.training import Label
from rlhf_api.stage import LabelWork, ModelInput
from rlhf_api.words import ArtifactKind, StageName
from rlhf_store import ArtifactWriter, open_artifact, open_store
from rlhf_trainer.data.parquet import SAMPLES
from rlhf_trainer.labelers.load import load_labeler
from rlhf_trainer.runtime.errors import ConfigurationProblem
from rlhf_trainer.stages import evaluate
from rlhf_trainer.stages.label import run
from support.stages import config_of, context_of
from support.tiny_models import save_decided_judge, save_opinionated_judge

pytestmark = pytest.mark.engine

TEXTS = ["one", "lion moon", "a tit", "wren"]
#: Short: what the model reads last decides the most.
PROMPT = "{prompt}|{responseA}|{responseB}"


def work_of(judge: Path, storage: Storage, folder: Path) -> LabelWork:
    rows = [
        {
            "prompt_id": f"p{prompt}",
            "prompt_ids": [1, 2],
            "messages": [{"role": "user", "content": f"question {prompt}"}],
            "completion_index": index,
            "completion_ids": [3, 2],
            "text": text,
            "logps": [-1.0, -1.0],
            "finish_reason": "stop",
            "iterate": 0,
            "temperature": 1.0,
            "template_hash": "0" * 16,
        }
        for prompt in range(2)
        for index, text in enumerate(TEXTS)
    ]
    file = folder / "samples.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema=SAMPLES), file)
    writer = ArtifactWriter(open_store(storage), ArtifactKind.SAMPLES, "a" * 64)
    writer.add_file(file, file.name)
    model = ModelRef(uri=f"file://{judge}")
    return LabelWork(
        samples=writer.seal(stage=StageName.SAMPLE, rows=len(rows)).ref,
        labeler=Labeler(type=LabelerType.JUDGE, judge=LlmJudge(model=model, prompt=PROMPT)),
        reward_model=ModelInput(source=model),
        label=Label(min_yield=0.0),
        completions_per_prompt=len(TEXTS),
    )


def test_labels_are_its_shares_and_its_questions_are_counted(storage: Storage, tmp_path: Path) -> None:
    work = work_of(save_opinionated_judge(tmp_path / "judge"), storage, tmp_path)
    result = run(context_of(config_of(work, storage), tmp_path / "scratch"))
    assert result.artifact is not None
    asked = 2 * len(TEXTS) * (len(TEXTS) - 1)
    assert (result.counts["judgeRequests"], result.counts["judgeAnswers"]) == (asked, asked)
    folder = open_artifact(open_store(storage), result.artifact).fetch(tmp_path / "labels")
    rows = [row for file in folder.rglob("*.parquet") for row in pq.read_table(file).to_pylist()]
    assert rows
    for row in rows:
        assert sum(row["scores"]) == pytest.approx(len(TEXTS) / 2)
        assert row["chosen_score"] > row["rejected_score"]


def test_one_that_gives_no_verdicts_is_found_by_the_evaluation_of_pi_0(storage: Storage, tmp_path: Path) -> None:
    work = work_of(save_decided_judge(tmp_path / "judge", says="[[D]]"), storage, tmp_path)
    context = context_of(config_of(work, storage), tmp_path / "scratch")
    judge = load_labeler(context, work.labeler, work.reward_model)
    with pytest.raises(ConfigurationProblem, match="about two harmless responses has no verdict"):
        evaluate._scores(context, judge, [], None)

"""Labelers score responses: the training reward and the judge are both one of these."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from rlhf_api.base import Count, DataKey, Model, NonNegative, ObjectName, Sha256, Share, WholeNumber, unique_by

from .compute import Compute, Optimization, PairwiseOptimization, RewardOptimization
from .data import DataSource
from .model import ModelRef


class LabelerType(StrEnum):
    BRADLEY_TERRY = "BradleyTerry"
    PAIRWISE = "Pairwise"
    MULTI_OBJECTIVE = "MultiObjective"
    RULE = "Rule"
    JUDGE = "Judge"
    HUMAN = "Human"

    @property
    def compares(self) -> bool:
        """It says which of two responses is better: its scores are relative, and have no mean."""
        return self in (LabelerType.PAIRWISE, LabelerType.JUDGE, LabelerType.HUMAN)


class PreferenceCleaning(Model):
    """What of the preferences is left out, over all data sets together, and counted by reason."""

    drop_duplicates: bool = False
    """Of pairs with the same prompt, chosen and rejected, as the model reads them, the first stays."""
    drop_contradictions: bool = False
    """Where one pair prefers A to B and another B to A, all pairs of the two go."""
    max_pairs_per_prompt: Count | None = None
    """Pairs of one prompt at most: a sample by what they hold, after the others are dropped."""


class RewardHeldOut(Model):
    """Pairs that the reward model is measured by and never trained on. Exactly one of the three."""

    fraction: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """A share of the prompts, by a hash of each: all pairs of a prompt are on one side."""
    size: Count | None = None
    """Pairs at least, of whole prompts, by the same hash."""
    data: DataSource | None = None
    """Preferences of their own; pairs of `train.data` that ask one of its prompts are not trained on."""


class PreferenceTraining(Model):
    """What the training of any model from preferences takes."""

    base: ModelRef | None = None
    """What it starts from; absent: pi_0."""
    data: Annotated[list[DataSource], Field(min_length=1, max_length=32), unique_by("name")]
    """Preferences: columns `chosen` and `rejected` (conversations that share their prompt), optionally scores."""
    optimization: Optimization
    """AdamW and its schedule."""
    max_length: Count
    """Longest sequence, in tokens of the model."""
    min_margin: NonNegative = 0.0
    """Pairs whose `chosen_score` - `rejected_score` is not above it are dropped and counted, where the data has scores."""
    cleaning: PreferenceCleaning | None = None
    """What else is left out; absent: nothing. Equal responses and equal scores always are."""
    held_out: RewardHeldOut | None = None
    """What the trained model is measured by: accuracy, calibration, by length and by subset; absent: nothing is kept out."""
    compute: Compute = Compute()


class RewardTraining(PreferenceTraining):
    """Train the Bradley-Terry model in this run, before iteration 1."""

    optimization: RewardOptimization = RewardOptimization()
    """AdamW and its schedule; the batch counts pairs."""
    max_length: Count = 4096
    """Longest conversation, in tokens of the reward model."""


class PairOrders(StrEnum):
    """In which orders a pairwise preference model is asked about the two responses of a pair when it is trained."""

    DRAWN = "Drawn"
    """One of the two, by a hash of the seed and the pair: as its authors draw theirs."""
    BOTH = "Both"
    """Each pair gives two questions."""


class PairwiseTraining(PreferenceTraining):
    """Train the pairwise preference model in this run, before iteration 1."""

    optimization: PairwiseOptimization = PairwiseOptimization()
    """AdamW and its schedule; the batch counts questions."""
    max_length: Count = 3072
    """Longest question, a prompt with two responses, in tokens of the model; what is longer is left out and counted."""
    orders: PairOrders = PairOrders.DRAWN
    """In which order the two responses of a pair are asked about; the loss is of the answer's token, A or B, alone."""


class BradleyTerry(Model):
    """A scalar head on the last real token. Exactly one of the two."""

    model: ModelRef | None = None
    """A trained reward model: a sequence classifier with one label."""
    train: RewardTraining | None = None


class Pairwise(Model):
    """A language model that answers A or B. Exactly one of the two."""

    model: ModelRef | None = None
    """A trained preference model."""
    train: PairwiseTraining | None = None


class ModelLabeler(Model):
    model: ModelRef
    """The model that scores."""


#: RE2's syntax, whose search takes time linear in the text: https://github.com/google/re2/wiki/Syntax
Pattern = Annotated[str, StringConstraints(min_length=1, max_length=1024)]


class RegexMode(StrEnum):
    SEARCH = "Search"
    """Anywhere in the response."""
    FULL_MATCH = "FullMatch"
    """The whole response."""


class Regex(Model):
    """1 where a response matches, else 0."""

    pattern: Pattern
    """In RE2's syntax: no look-around and no backreferences; a dot matches a line break only under (?s)."""
    mode: RegexMode = RegexMode.SEARCH
    """Search: anywhere in the response. FullMatch: all of it."""
    negate: bool = False
    """1 where it does not match."""


class ExactMatch(Model):
    """1 where a response is the row's reference answer, else 0; prompts.source.answerColumn names the column."""

    strip: bool = True
    """Blanks and line breaks around either do not count."""
    ignore_case: bool = False
    """Capitals and small letters are one."""


class NumericAnswer(Model):
    """1 where a number of a response is the row's reference answer, else 0; prompts.source.answerColumn names the column."""

    pattern: Pattern | None = None
    """Its first match's first group holds the response's number, as in `#### (.+)`; absent: the last number of the response."""
    answer_pattern: Pattern | None = None
    """The same of the reference answer; absent: all of it is the number."""
    tolerance: NonNegative = 0.0
    """The two may differ by so much."""


class JsonSchema(Model):
    """1 where a response is JSON that the schema accepts, else 0."""

    inline: Annotated[str, StringConstraints(min_length=2, max_length=32768)]
    """The schema's text, JSON Schema 2020-12; its patterns are RE2's, and it refers to nothing outside itself."""
    code_block: bool = False
    """Where a response has fenced code blocks, the last of them is read instead of all of it."""


class Rule(Model):
    """A function or a statement that scores (prompt messages, response text): no model. Exactly one of the members."""

    entry_point: (
        Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*$", max_length=512)] | None
    ) = None
    """`module:function` that stages can import; docs/rules.md says how to write one, and where it lies."""
    regex: Regex | None = None
    """Whether a response matches a pattern."""
    exact_match: ExactMatch | None = None
    """Whether a response is the reference answer."""
    numeric_answer: NumericAnswer | None = None
    """Whether a response's number is the reference answer."""
    json_schema: JsonSchema | None = None
    """Whether a response is JSON of a form."""

    @property
    def needs_answer(self) -> bool:
        """Of the prompt's row."""
        return self.exact_match is not None or self.numeric_answer is not None


class SecretKey(Model):
    """One key of a Secret in the run's namespace; the operator never reads it."""

    name: ObjectName
    """Name of the Secret."""
    key: DataKey = "OPENAI_API_KEY"
    """Key in it."""


class ApiKey(Model):
    """Whom the endpoint is asked as. A local run has the key in the environment variable OPENAI_API_KEY."""

    secret_ref: SecretKey


class JudgeEndpoint(Model):
    """A server with OpenAI's chat completions, such as `vllm serve`."""

    base_url: Annotated[str, StringConstraints(pattern=r"^https?://[^/?#@\s]+(/[^?#@\s]*)?$", max_length=1024)]
    """What stands before /chat/completions: https://api.openai.com/v1, http://judge.models:8000/v1."""
    model: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    """The model's name there."""
    api_key: ApiKey | None = None
    """Absent: no key is sent."""
    max_requests: Count | None = None
    """Requests of one stage, retries too; a stage that needs more ends as a configuration error. Absent: no bound."""
    timeout_seconds: Annotated[int, Field(ge=1, le=3600)] = 120
    """How long one answer is waited for."""
    retries: Annotated[WholeNumber, Field(le=20)] = 5
    """How often a request is repeated that timed out, or was answered with 408, 409, 429 or 5xx; waits double, up to a minute."""
    concurrency: Annotated[int, Field(ge=1, le=256)] = 8
    """Requests at a time, of each shard."""


class LlmJudge(Model):
    """A chat model that is asked which of two responses is better, in both orders. Exactly one of model and endpoint."""

    model: ModelRef | None = None
    """The chat model, read by the stage itself with vLLM, on the GPUs of label's and evaluate's pods, by sample.engine."""
    endpoint: JudgeEndpoint | None = None
    """Where a chat model is served."""
    prompt: Annotated[str, StringConstraints(max_length=8192)] | None = None
    """Instructions to it, in the place of the built-in ones; or, with {prompt}, {responseA} and {responseB} in it, all that it is
    asked. It must ask for [[A]], [[B]] or [[C]] then."""
    max_parse_failures: Share = 0.1
    """A larger share of answers without a verdict fails the stage, with the first of them; each counts as a tie."""


class Human(Model):
    """People who are asked which of two responses is better: `rlhfctl annotations` takes the questions out and the answers in."""

    instructions: Annotated[str, StringConstraints(min_length=1, max_length=8192)] | None = None
    """What annotators are told; it is exported with the questions."""
    pairs_per_prompt: Count = 1
    """Pairs of responses that are asked about, of each prompt; fewer where a prompt has fewer that differ."""
    annotators_per_pair: Count = 1
    """Answers, each of another annotator, that a pair needs before it counts; with fewer it is missing."""
    min_answered: Share = 1.0
    """Share of the pairs that must count before answers are imported."""


class Annotations(Model):
    """What people answered to the questions of one iteration."""

    iteration: Count
    """The iteration whose questions they are."""
    digest: Sha256
    """SHA-256 of annotations/<digest>.parquet in the run's store."""


class Labeler(Model):
    """A union: `type` and exactly the member it names."""

    type: LabelerType
    """Which kind of labeler; the member of that name configures it."""
    bradley_terry: BradleyTerry | None = None
    """A Bradley-Terry reward model: a score for each response."""
    pairwise: Pairwise | None = None
    """A pairwise preference model: which of two responses is better, asked in both orders."""
    multi_objective: ModelLabeler | None = None
    """A reward model with several rewards and a gate over them, published as RLHFlow/ArmoRM-Llama3-8B-v0.1 is."""
    rule: Rule | None = None
    """A Python function, or what is said of right responses here."""
    judge: LlmJudge | None = None
    """A chat model that is asked."""
    human: Human | None = None
    """People who are asked; each iteration waits for what they answer."""

    @property
    def training(self) -> RewardTraining | PairwiseTraining | None:
        """None: the run trains no model for it."""
        holder = self.bradley_terry or self.pairwise
        return None if holder is None else holder.train

    @property
    def trained_member(self) -> str:
        """The member that holds `training`, by its name in manifests."""
        return "pairwise" if self.pairwise is not None else "bradleyTerry"

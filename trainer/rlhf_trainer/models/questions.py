"""By what a prompt is known, and whether what is asked is a conversation at all."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from rlhf_api.stage import HeldOutInput, PromptIdentity
from rlhf_trainer.data.held_out import HeldOutPrompts
from rlhf_trainer.data.messages import Message, Tools
from rlhf_trainer.data.prompts import Identify, load_prompt_sets, prompt_id, require_no_tools
from rlhf_trainer.data.rows import Unusable, shown
from rlhf_trainer.runtime.context import StageContext

from .chat import Chat
from .folder import model_folder
from .templates import TemplateRefusal
from .vocabulary import Vocabulary, vocabulary_of

#: Names of functions and parameters that a message tells.
_NAMES_TOLD = 4
#: How the turns of well-known templates begin: text that begins so was rendered by one of them.
_OPENINGS = (
    "<|im_start|>",
    "<|begin_of_text|>",
    "<|start_header_id|>",
    "<start_of_turn>",
    "<bos>",
    "<s>",
    "[INST]",
    "<|user|>",
    "<|system|>",
    "<\uff5cbegin\u2581of\u2581sentence\uff5c>",
    "<|START_OF_TURN_TOKEN|>",
    "<|start|>",
)


def identify_by(identity: PromptIdentity, chat: Chat) -> Identify:
    """Rendered: the first 16 hex digits of the SHA-256 of the text that the policy reads, so that prompts which differ in what the
    template trims are one; a prompt that the template refuses, or that is templated already, is Unusable. RenderedWithTools: the
    same, with its tools in the text. Messages: of what is written in the row, as runs that began before that have it.
    """
    if identity is PromptIdentity.MESSAGES:
        return prompt_id

    def identify(messages: Sequence[Message], tools: Tools = None) -> str:
        if identity is PromptIdentity.RENDERED:
            require_no_tools(tools)
        require_untemplated(messages)
        try:
            text = chat.asked(messages, tools)
            chat.require_known_prompt(messages, tools)
            if tools and (lost := chat.tools_left_out(messages, tools)):
                raise Unusable(
                    "toolsNotRendered",
                    f"of its tools, the chat template leaves out {listed(lost)}; set policy.chatTemplate to one that writes them",
                )
        except TemplateRefusal as refusal:
            raise Unusable(refusal.kind, str(refusal)) from refusal
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    return identify


def listed(names: Sequence[str]) -> str:
    """The first of them, for messages."""
    more = f" and {len(names) - _NAMES_TOLD} more" if len(names) > _NAMES_TOLD else ""
    return f"{', '.join(map(shown, names[:_NAMES_TOLD]))}{more}"


def held_out_prompts(context: StageContext, held: HeldOutInput | None, own: Vocabulary) -> HeldOutPrompts | None:
    """What a training may not see; None where its work does not say. `own`: of the model that the stage starts from."""
    if held is None:
        return None
    chat = own.chat if held.policy is None else vocabulary_of(held.policy, model_folder(context, held.policy.model)).chat
    identify = identify_by(held.identity, chat)
    scratch, storage = context.scratch / "inputs", context.config.storage
    sets = load_prompt_sets(held.prompts, held.iterations, scratch, storage, held.source_revisions, identify=identify)
    return HeldOutPrompts(sets, identify)


def require_untemplated(messages: Sequence[Message]) -> None:
    """Raises Unusable for a turn that holds what a chat template made: the template would be applied twice."""
    for message in messages:
        if message["content"].lstrip().startswith(_OPENINGS):
            raise Unusable(
                "alreadyTemplated",
                f"{shown(message['content'])} is the output of a chat template; name the column that has the conversation itself",
            )

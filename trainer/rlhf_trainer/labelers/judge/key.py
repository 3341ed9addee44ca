"""The key of an endpoint: where it comes from, and how it is kept out of everything that is written."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from urllib.parse import quote

from rlhf_api.conventions.mounts import api_key_variable
from rlhf_api.resource.labeler import JudgeEndpoint
from rlhf_trainer.runtime.errors import ConfigurationProblem

#: Of a local run, which knows no Secrets.
OWN_VARIABLE = "OPENAI_API_KEY"
_HIDDEN = "(the key)"
#: What is sent where the manifest names no key: the client wants one. A key of the environment is never sent unasked.
_NONE = "none"


@dataclass(frozen=True)
class Key:
    """What is sent, and what a person may be told of it."""

    value: str = field(repr=False)
    told: str
    """Whence it is: `key OPENAI_API_KEY of Secret judge`."""

    @property
    def is_given(self) -> bool:
        return self.value != _NONE

    def hidden(self, text: str) -> str:
        """The text without the key, in whatever way an endpoint writes it; before anything is cut off, for a half is too much."""
        if not self.is_given:
            return text
        for form in (self.value, json.dumps(self.value)[1:-1], quote(self.value, safe="")):
            text = text.replace(form, _HIDDEN)
        return text


def key_of(endpoint: JudgeEndpoint) -> Key:
    """As the pod has it; else of this machine's environment. Raises ConfigurationProblem."""
    if endpoint.api_key is None:
        return Key(_NONE, "no key; give apiKey where it asks for one")
    secret = endpoint.api_key.secret_ref
    named = f"key {secret.key} of Secret {secret.name}"
    value = (os.environ.get(api_key_variable(secret)) or os.environ.get(OWN_VARIABLE) or "").strip()
    if not value:
        raise ConfigurationProblem(
            f"There is no key for {endpoint.base_url}: {named} is empty. On this machine, set the environment variable "
            f"{OWN_VARIABLE} to it."
        )
    if not all("!" <= letter <= "~" for letter in value):
        raise ConfigurationProblem(
            f"The key for {endpoint.base_url} ({named}; on this machine {OWN_VARIABLE}) holds blanks or letters that no header can "
            "have. Write the key alone."
        )
    return Key(value, f"{named}; on this machine {OWN_VARIABLE}")

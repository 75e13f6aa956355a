"""Forms of text that a specification accepts: the pattern for machines, the words for people.

Errors, `viper explain` and the CRDs' rules say the words. Patterns mean the same to Rust and to Go.
"""

from __future__ import annotations

#: RFC 1123 label, short enough for a suffix in child names.
NAME = r"^[a-z0-9]([-a-z0-9]{0,48}[a-z0-9])?$"
#: Longest name.
NAME_LENGTH = 50
#: Names of most Kubernetes objects (RFC 1123 subdomain).
OBJECT_NAME = r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$"
#: Names of labels and extended resources: an optional DNS prefix and a name.
QUALIFIED_NAME = r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
#: A Kubernetes quantity without a sign, that a float holds: an exponent has two digits.
QUANTITY = r"^([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][-+]?[0-9]{1,2})?$"
VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"
DATA_KEY = r"^[-._a-zA-Z0-9]+$"
ABSOLUTE_PATH = r"^/[^:]+$"
IMAGE = r"^[^\s]+$"
DEVICE = r"^(cpu|cuda)(:[0-9]{1,3})?$"
ALIAS = r"^[A-Za-z][\w-]*$"
MODEL = r"^[^/:]+$"
#: Models, and servers whose model is named by the checkpoint where none is named, behind an endpoint.
ENDPOINT = r"^openai:https?://[^\s/#?@]+(/[^\s#?@]*)?#[^\s]+$"
SERVER = r"^openai:https?://[^\s/#?@]+(/[^\s#?@]*)?(#[^\s]+)?$"
JUDGE = r"^(rules|openai:https?://[^\s#?@]+#[^\s]+)$"

WORDS = {
    NAME: f"at most {NAME_LENGTH} lower-case letters, digits and '-', beginning and ending with a letter or digit",
    OBJECT_NAME: "lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit",
    QUALIFIED_NAME: "letters, digits, '-', '_' and '.', after a DNS prefix and '/' if any, as in nvidia.com/gpu",
    QUANTITY: "a whole number, or a string such as 500m, 1.5 or 64Gi",
    VARIABLE: "letters, digits and '_', not beginning with a digit",
    DATA_KEY: "letters, digits, '-', '_' and '.'",
    ABSOLUTE_PATH: "an absolute path without ':'",
    IMAGE: "an image reference without spaces",
    DEVICE: "cpu, cuda or cuda:<number>",
    ALIAS: "letters, digits, '_' and '-', beginning with a letter",
    MODEL: "a name without '/' and ':'",
    ENDPOINT: "openai:https://host/v1#model-name, the key in the environment variable OPENAI_API_KEY",
    SERVER: "openai:https://host/v1 or openai:https://host/v1#model-name, the key in the environment variable "
    "OPENAI_API_KEY",
    JUDGE: "rules, or openai:https://host/v1#model-name",
}

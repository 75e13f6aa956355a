"""Forms of text that a specification accepts: the pattern for machines, the words for people.

Errors, `viper explain` and the CRDs' rules say the words. Patterns mean the same to Python, to Rust and to Go: no
classes that are ASCII to one and Unicode to another, and nothing looks ahead.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo
from pydantic_core import CoreSchema, core_schema

from viper.extensions import Kind, added, written

#: Validation context for what a program has stored: there, a field that is not known is a later release's, and a text
#: of a form that is refused today was taken by an earlier one.
STORED = {"stored": True}
#: Where a JSON schema has the forms of a field.
FORMS = "x-viper-forms"


@dataclass(frozen=True)
class Form:
    """What a text has to look like, for `viper.spec.base.setting(forms=…)`; what is stored is read whatever it says.

    `pattern`: what the whole text must match, or with `refuses` must not match. `says`: the words for it, after the
    field's path. `when`: what the text begins with where the form applies to it; empty: always.
    """

    pattern: str
    says: str
    refuses: bool = False
    when: str = ""

    def fits(self, text: str) -> bool:
        """Whether a text has this form, or is none of those that it is about."""
        if self.when and not re.match(self.when, text):
            return True
        return (re.fullmatch(self.pattern, text) is not None) is not self.refuses

    def check(self, value: Any, info: ValidationInfo) -> Any:
        """Raises `ValueError` for a text of another form."""
        if isinstance(value, str) and info.context != STORED and not self.fits(value):
            raise ValueError(self.says)
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema: dict[str, Any] = handler(core)
        return {**schema, FORMS: [*schema.get(FORMS, ()), self]}


#: RFC 1123 label, short enough for a suffix in child names.
NAME = r"^[a-z0-9]([-a-z0-9]{0,48}[a-z0-9])?$"
#: Longest name.
NAME_LENGTH = 50
#: A Kubernetes quantity without a sign, that a float holds: an exponent has two digits.
QUANTITY = r"^([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][-+]?[0-9]{1,2})?$"
VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"
DATA_KEY = r"^[-._a-zA-Z0-9]+$"
ABSOLUTE_PATH = r"^/[^:]+$"
DEVICE = r"^(cpu|cuda)(:[0-9]{1,3})?$"

WORDS = {
    NAME: f"at most {NAME_LENGTH} lower-case letters, digits and '-', beginning and ending with a letter or digit",
    QUANTITY: "a whole number, or a string such as 500m, 1.5 or 64Gi",
    VARIABLE: "letters, digits and '_', not beginning with a digit",
    DATA_KEY: "letters, digits, '-', '_' and '.'",
    ABSOLUTE_PATH: "an absolute path without ':'",
    DEVICE: "cpu, cuda or cuda:<number>",
}

# ---- texts ---------------------------------------------------------------------------------------------------------

_CONTROLS = r"\x00-\x1f\x7f-\x9f"
_QUOTES = r"\"'`\\"

#: A line: a database, a file or a command is told it as it stands.
LINE = Form(rf"[^{_CONTROLS}]*", "must not hold line breaks, tabs or other control characters; remove them")
#: Text for a model.
TEXT = Form(
    r"[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*", "must not hold control characters besides tabs and line breaks; remove them"
)
#: Text for a program.
NO_NUL = Form(r"[^\x00]*", "must not hold control characters that no program takes (NUL); remove them")
#: A key of Hydra, a name of a folder or of an engine's plug-in.
WORD = Form(
    r"[A-Za-z0-9][A-Za-z0-9_.-]*", "must be letters, digits, '_', '-' and '.', beginning with a letter or digit"
)

# ---- names in the registry -------------------------------------------------------------------------------------------

#: Of MLflow's rules (`mlflow.utils.validation`) and of its filters, where a quote ends a name; `models:/name@alias`.
MODEL = Form(
    rf"[^ {_CONTROLS}{_QUOTES}/:@?#%]([^{_CONTROLS}{_QUOTES}/:@?#%]*[^ {_CONTROLS}{_QUOTES}/:@?#%])?",
    "must be a name without '/', ':', '@', '?', '#', '%', quotes, backslashes and control characters, and without "
    "blanks at its ends",
)
NO_PATH = Form(r"\.|\.\..*", "must not be '.' and not begin with '..', which MLflow takes for a path", refuses=True)
ALIAS = Form(r"[A-Za-z][A-Za-z0-9_-]*", "must be letters, digits, '_' and '-', beginning with a letter")
#: MLflow has `latest` point at the newest version, held or not, and reads `v2` as version 2; it sets neither.
NOT_RESERVED = Form(
    r"(?i:latest|v[0-9]+)",
    "must not be latest, or v and a number: MLflow keeps these for versions, and never sets them; use another word, "
    "such as generator",
    refuses=True,
)

# ---- names in Kubernetes ---------------------------------------------------------------------------------------------

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_QUALIFIED = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"

#: Names of most Kubernetes objects (RFC 1123 subdomain).
OBJECT_NAME = Form(
    _SUBDOMAIN,
    "must be lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit, as must what is "
    "between two dots",
)
#: Names of labels: an optional DNS prefix and a name.
QUALIFIED_NAME = Form(
    rf"({_SUBDOMAIN}/)?{_QUALIFIED}",
    "must be letters, digits, '-', '_' and '.', at most 63, after a DNS prefix and '/' if any, as in nvidia.com/gpu",
)
#: Of a taint; empty: every taint.
TAINT_KEY = replace(QUALIFIED_NAME, when=".")
LABEL_VALUE = Form(
    rf"({_QUALIFIED})?",
    "must be at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit",
)
#: What `gpus` can count: neither cpu, memory nor anything of Kubernetes' own.
EXTENDED_RESOURCE = Form(
    rf"{_SUBDOMAIN}/{_QUALIFIED}",
    "must be the extended resource of a device plugin, with its DNS prefix, such as nvidia.com/gpu",
)
NOT_NATIVE = Form(
    r"(.*\.)?kubernetes\.io/.*|requests\..*",
    "must be the extended resource of a device plugin, such as nvidia.com/gpu; kubernetes.io and requests. are "
    "Kubernetes' own",
    refuses=True,
)
IMAGE = Form(
    r"([A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?(:[0-9]{1,5})?/)?[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*"
    r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@[a-z0-9]+:[0-9a-fA-F]+)?",
    "must be an image reference without spaces, scheme and credentials: [registry/]name[:tag][@digest], the name in "
    "lower case; secrets for the registry are named by imagePullSecrets",
)
OWN_FOLDER = Form(
    r"/+|/+(work|tmp|proc|sys|dev|dev/+shm|etc)/*",
    "must not be a folder that the pod needs itself (/, /work, /tmp, /dev/shm); use another one, such as /models",
    refuses=True,
)  #: Of the pod: the kernel would find one of those by another name.
STRAIGHT = Form(
    r"(.*/)?\.\.?(/.*)?", "must not have '/./' or '/../', which lead elsewhere; write the path itself", refuses=True
)

# ---- URIs and paths --------------------------------------------------------------------------------------------------

_ENVIRONMENT = "they come from the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, OPENAI_API_KEY)"
_SECRETS = "(?i:[^=&#?;]*(amz|sig|token|key|secret|passw|pwd|auth|credential|session)[^=&#?;]*)"
_DOMAIN = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?"
_PORT = r"(:0*(6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[1-9][0-9]{0,3}))?"
_IPV6 = r"\[[0-9A-Fa-f:.]+\]"
_HOST = rf"([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?|{_IPV6}){_PORT}"
#: No scheme in front of the first slash.
_PATH = r"[^:/]+(/.*)?|/.*"
_STORED_FOLDER = r"file:.*|s3:.*"
_HUB = r"hf://[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+(@[^/@]+)?(/.+)?"
_REGISTERED = r"models:/[^/@:]+(@[A-Za-z][A-Za-z0-9_-]*|/[0-9]{1,18})"
_MODEL_DIRECTORY = rf"{_STORED_FOLDER}|{_HUB}|{_REGISTERED}"


def _or_of(kind: Kind) -> str:
    """The alternative for URIs of extensions, behind others."""
    return "".join(f"|{uris.pattern}" for uris in added(kind))


def _places(before: str = "") -> tuple[Form, ...]:
    """What holds for every URI and path, whichever a field takes; `before`: a pattern of what stands in front."""
    file, s3 = rf"{before}file:", rf"{before}s3:"
    return (
        Form(
            rf".*://[^/?#]*(@|%40).*|.*://[^/?#:@]*:[^?#]*(@|%40).*|.*[?&;#]{_SECRETS}=.*",
            f"must not hold credentials: {_ENVIRONMENT}",
            refuses=True,
        ),
        LINE,
        Form(r" .*|.* ", "must not begin or end with a blank; remove it", refuses=True),
        Form(
            rf"[^{_QUOTES}]*",
            "must not hold quotes or backslashes; rename what it names, or write %27, %22 and %5C after file:///",
        ),
        Form(rf"{file}///.*[^/].*", "must be absolute: write file:///absolute/path", when=file),
        Form(
            rf"{file}///([^?#%]|%[0-9A-Fa-f][0-9A-Fa-f])*",
            "must be percent-encoded: '?' is %3F, '#' is %23 and '%' is %25 after file:///",
            when=file,
        ),
        Form(rf"{file}///.*%([01].|7[fF]).*", "must not hold control characters; rename what it names", True, file),
        Form(
            rf"{s3}//{_DOMAIN}(\.{_DOMAIN})*(/[^?#]*)?(\?endpoint=https?://{_HOST}/?)?",
            "must be s3://bucket/prefix or s3://bucket/prefix?endpoint=http://host:9000; a bucket has 3 to 63 "
            "lower-case letters, digits, '-' and '.'",
            when=s3,
        ),
        Form(
            rf"{s3}//([^/?#]{{1,2}}|[^/?#]{{64,}}|[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+|xn--[^/?#]*|[^/?#]*-s3alias|[^/?#]*--ol-s3)([/?].*)?",
            "must name a bucket of 3 to 63 lower-case letters, digits, '-' and '.', which is no IP address",
            True,
            s3,
        ),
        Form(
            rf"{s3}//[^/?#]+/([^?#]*/)?(\.|\.\.|\.viper-[^/?#]*|[^/?#]{{256,}})(/[^?#]*)?(\?.*)?|{s3}//[^?#]*//[^?#]*(\?.*)?",
            "must not have '//', '/./', '/../', names of more than 255 characters or names that begin with .viper- in "
            "its prefix",
            True,
            s3,
        ),
        Form(
            rf"{before}models:/[^@]*@{NOT_RESERVED.pattern}",
            f"must name an alias of the registry that is set by people: {NOT_RESERVED.says}",
            refuses=True,
        ),
    )


_ANY = _places()
#: What stands before the number of a pool that says in its URI how many images it has.
COUNTED = "^[a-z0-9-]+:[^/].*[?&]count="
#: Pools of images.
POOL = (
    *_ANY,
    Form(
        rf"{_PATH}|{_STORED_FOLDER}{_or_of('pools')}",
        "must be a folder, file:///folder, s3://bucket/prefix or "
        + " or ".join(f"{uris.form}, {uris.limits}" if uris.limits else uris.form for uris in added("pools")),
    ),
)
#: Files of rows; question sets and data sets of benchmarks are empty where there are none.
ROWS = (*_ANY, Form(rf"{_PATH}|{_STORED_FOLDER}", "must be a file, file:///file or s3://bucket/file"))
QUESTIONS = (
    *_ANY,
    Form(
        rf"|{_PATH}|{_STORED_FOLDER}{_or_of('questions')}",
        f"must be a JSONL file, file:///file, s3://bucket/file or {written('questions')}",
    ),
)
DATASETS = (
    *_ANY,
    Form(rf"|{_PATH}|{_STORED_FOLDER}", "must be a directory, file:///directory, s3://bucket/prefix or hub"),
)
_DIRECTORIES = "file:///directory, s3://bucket/prefix, hf://org/name@revision or models:/name@alias"
#: Model directories.
WEIGHTS = (*_ANY, Form(_MODEL_DIRECTORY + _or_of("models"), f"must be {_DIRECTORIES}, or {written('models')}"))
LORA = (*_ANY, Form(rf"{_PATH}|{_MODEL_DIRECTORY}", f"must be a directory, {_DIRECTORIES}"))
#: Of a URL: any host, for those that are written in other alphabets.
_AUTHORITY = rf"([^ /#?@%:\[\]]+|{_IPV6}){_PORT}"
#: Models, and servers whose model is named by the checkpoint where none is named, behind an endpoint.
_ADDRESS = rf"openai:https?://{_AUTHORITY}(/[^ #?@]*)?"
_KEY = "the key in the environment variable OPENAI_API_KEY"
ENDPOINT = Form(rf"{_ADDRESS}#[^ ?]+", f"must be openai:https://host/v1#model-name, {_KEY}", when="openai:")
SERVER = Form(
    rf"{_ADDRESS}(#[^ ?]+)?",
    f"must be openai:https://host/v1 or openai:https://host/v1#model-name, {_KEY}",
    when="openai:",
)
ROLE = (
    ENDPOINT,
    *_ANY,
    Form(
        rf"generator|base|openai:.*|{_MODEL_DIRECTORY}{_or_of('models')}",
        f"must be generator, base, {_DIRECTORIES}, or openai:https://host/v1#model-name",
    ),
)
JUDGE = (
    LINE,
    Form(
        rf"rules|{_ADDRESS}#[^ ?]+",
        f"must be rules, or openai:https://host/v1#model-name, {_KEY}",
    ),
)
#: Engines: a name, a name and the place of its model, or `module:Class`.
ENGINE = (
    *_places(r"([^:]*:)?"),
    Form(
        r"[A-Za-z0-9_][A-Za-z0-9_.-]*(:.+)?",
        "must be the name of an engine, name:directory-of-its-model or module:Class",
    ),
)

"""Rules of the API server in CEL, and the expressions that several of them consist of: names, forms, quantities."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from viper.spec.forms import Form
from viper.spec.pods import BYTES_OF, DIVIDED, LEAST_BYTES, THOUSANDTHS, TOO_SMALL, UNKNOWN


@dataclass(frozen=True)
class Rule:
    """A CEL rule. `message` is CEL too when `expression` is true: it may then name values."""

    rule: str
    message: str
    expression: bool = False
    field: str = ""

    def dump(self) -> dict[str, Any]:
        """An item of `x-kubernetes-validations`."""
        said = {"messageExpression" if self.expression else "message": self.message}
        # `message` is what remains when the expression fails.
        path = {"fieldPath": f".{self.field}"} if self.field else {}
        return {"rule": self.rule, **said, **path}


def listed(names: Iterable[str]) -> str:
    return "[" + ", ".join(f"'{n}'" for n in names) + "]"


def unique(field: str, noun: str) -> Rule:
    return Rule(
        f"!has(self.{field}) || self.{field}.all(a, self.{field}.exists_one(b, b.name == a.name))",
        f"{field} names {noun} twice; keep one of them",
        field=field,
    )


def _matches(text: str, pattern: str) -> str:
    """Whether the whole of a text matches."""
    written = f"^(?:{pattern})$".replace("\\", "\\\\").replace("'", "\\'")
    return f"{text}.matches('{written}')"


def form_rule(form: Form, field: str = "") -> Rule:
    """A form as a rule of the text itself, or of the field of an object."""
    text = f"self.{field}" if field else "self"
    rule = f"{'!' if form.refuses else ''}{_matches(text, form.pattern)}"
    if form.when:
        rule = f"!{_matches(text, f'{form.when}.*')} || {rule}"
    return Rule(f"!has({text}) || {rule}" if field else rule, form.says, field=field)


def key_rule(form: Form) -> Rule:
    """The form of a map's keys, as far as the API server lets it be said: it takes them to be long, and a pattern costs
    with its length. Kubernetes sees to the rest when it is asked whether it takes the Job."""
    ends = "['-', '.', '/', '_'].exists(c, key.startsWith(c) || key.endsWith(c))"
    return Rule(rf"self.all(key, !key.matches('[^-./\\w]') && !{ends})", f"its keys {form.says}")


def _quantity(value: str) -> str:
    """A whole number or a string as a quantity: the API server bounds what strings may cost."""
    return f"(type({value}) == int ? quantity('0').add(int({value})) : quantity({value}))"


def at_least(value: str, least: str) -> str:
    """Whether a quantity is not too small. Long ones are large, and some too large to be written out (`9e99999999`)."""
    return f"((type({value}) != int && {value}.size() > 8) || {_quantity(value)}.compareTo(quantity('{least}')) >= 0)"


def _thousandths(value: str) -> str:
    return " || ".join(f"{value}.endsWith('{suffix}')" for suffix in THOUSANDTHS)


def _parts(value: str) -> str:
    """Whether a quantity is less than a whole."""
    return f"{_thousandths(value)} || {value}.startsWith('0.') || {value}.startsWith('.')"


def _bytes(value: str, *, none: bool = False) -> str:
    """Whether it is a number of bytes that can be meant (`viper.spec.pods.too_small`); `none`: or 0."""
    enough = at_least(value, LEAST_BYTES)
    if none:
        enough = f"({enough} || {_quantity(value)}.compareTo(quantity('0')) == 0)"
    return f"((type({value}) == int || !({_thousandths(value)})) && {enough})"


def at(field: str, name: str) -> str:
    return f"self.{field}['{name}']"


#: Whether the resource `k` is Kubernetes' own. The API server bounds what an expression may cost, and takes keys and
#: quantities for long: these rules look at their ends, and leave the rest of it to the models and to the Job's check.
_HUGE = "k.startsWith('hugepages-') && ['Ki', 'Mi', 'Gi'].exists(u, k.endsWith(u))"
NATIVE = f"k in {listed(('cpu', *BYTES_OF))} || ({_HUGE})"


def taken(field: str) -> tuple[Rule, ...]:
    """What Kubernetes takes of a container, and what a container can start with."""
    return (
        Rule(f"self.{field}.all(k, {NATIVE} || k.contains('/'))", f"{field} names what {UNKNOWN}", field=field),
        Rule(f"!self.{field}.exists(k, k.contains('kubernetes.io/'))", f"{field} names what {UNKNOWN}", field=field),
        Rule(
            f"self.{field}.all(k, {NATIVE} || type(self.{field}[k]) == int || !({_parts(f'self.{field}[k]')}))",
            f"{field} of a device {DIVIDED}",
            field=field,
        ),
        *(
            Rule(
                f"!('{name}' in self.{field}) || {_bytes(at(field, name), none=field == 'requests')}",
                f"{field}.{name} {TOO_SMALL}",
                field=field,
            )
            for name in BYTES_OF
        ),
    )


def size(field: str) -> Rule:
    return Rule(f"!has(self.{field}) || {_bytes(f'self.{field}')}", TOO_SMALL, field=field)


def fits(resource: str) -> Rule:
    """Request against limit."""
    return Rule(
        f"!('{resource}' in self.requests && '{resource}' in self.limits) || "
        f"{_quantity(at('requests', resource))}.compareTo({_quantity(at('limits', resource))}) <= 0",
        f"requests.{resource} is more than limits.{resource}; lower the request or raise the limit",
        field="requests",
    )

"""When two short answers are the same answer: spelling is put aside, what a number, a sign or a unit means is not."""

from __future__ import annotations

import re
import unicodedata

from viper.text import normal

_STOPS = ".,;:!?。！？…、،؛؟।"
_PAIRS = {'"': '"', "'": "'", "`": "`", "“": "”", "‘": "’", "«": "»", "„": "“", "*": "*", "_": "_"}
_PAIRS |= {"‹": "›", "‚": "‘", "「": "」", "『": "』", "《": "》"}
_QUOTES = "\"'`“”‘’«»„‹›‚「」『』《》"
#: What shows nothing: soft hyphens, blanks without width, marks of the direction of writing. Not the signs of
#: mathematics that do not show (U+2061 to U+2064), and not what joins letters and emoji.
_UNSEEN = re.compile("[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]")
_BRACKETS = {"(": ")", "[": "]"}
#: Dashes that stand for a minus sign in front of a number or a symbol, and those within words, ranges and dates.
_MINUS = re.compile(
    r"(?:^|(?<=[\s(\[{,;=<>≤≥≈~±^/*:|\"'“‘]))[‐‑‒–—―](?=[.,]?\d|[∞√$€£¥\\(]|[^\W\d_](?![^\W\d_]))|(?<=\w)[‐‑‒–](?=\w)"
)
_BEFORE_SIGN = re.compile(r"(?<=\d) (?=[%‰°])")
#: Where case carries meaning: LaTeX, and units that differ in nothing else from a commoner one (mW and MW).
_CASED = re.compile(
    r"\\[A-Za-z]+|\$(?=\S)[^$]*(?<=\S)\$(?!\d)"
    r"|(?<=\d) ?(?:[MGTSH]|m(?:Hz|W|J|Pa|T|K|S|Sv)|M(?:V|N|A|eV|Ω|m|g)|N[mM]|[KMGT]b)(?![^\W_])"
)
_PIECES = re.compile(r"[,;]")
_WORD = re.compile(r"(?<![\\A-Za-z])[^\W\d_]{3,}")
_NAMES_OF_NUMBERS = frozenset({"inf", "infinity", "infty", "sqrt", "sin", "cos", "tan", "log", "exp", "nan", "frac"})
_PASSES = 4


def normalise(answer: str) -> str:
    """The form in which answers are compared; a second pass changes nothing.

    Case, width, white space, and quotes, brackets and stops around the answer do not count. Signs, decimal points,
    exponents (`x²` is `x^2`, not `x2`), fractions, brackets of intervals, factorials, feet and inches, LaTeX and
    letters of choices do: numbers that differ never become equal. An answer of nothing but stops or brackets is itself:
    empty is only what says nothing, as an answer that was not given.
    """
    text = " ".join(_UNSEEN.sub("", answer).split())
    for _ in range(_PASSES):
        folded = _folded(normal("NFKC", _spelled_out(text)).replace("⁄", "/").replace("−", "-"))
        made = _stripped(folded) or folded
        if made == text:
            break
        text = made
    return text


def _spelled_out(text: str) -> str:
    """Digits that NFKC would set beside others (`10²` → `102`, `1½` → `11⁄2`) as what they mean."""
    if text.isascii():
        return text
    made: list[str] = []
    raised = apart = False
    for character in text:
        kind, parts = _decomposed(character)
        before = made[-1][-1] if made else ""
        if kind == "super":
            made.append(parts if raised else f"^{parts}")
            raised, apart = True, False
            continue
        raised = False
        if kind == "sub":
            made.append(f"_{parts}" if before.isdigit() else parts)
        elif kind == "number":
            made.append(f" {parts}" if before.isalnum() else parts)
        elif kind == "square" and before.isalnum():
            made.append(f" {parts}")
        else:
            made.append(f" {parts}" if apart and parts[:1].isalnum() else parts)
        apart = kind == "number"
    return "".join(made)


def _decomposed(character: str) -> tuple[str, str]:
    """What kind of compatibility character it is, empty for any other, and what it stands for."""
    if character.isascii() or not (decomposition := unicodedata.decomposition(character)).startswith("<"):
        return "", character
    tag, *codes = decomposition.split()
    plain = unicodedata.normalize("NFKC", character)
    if tag in ("<super>", "<sub>"):
        return (tag[1:-1] if plain in "0123456789+−=()" else ""), plain.replace("−", "-")
    if tag == "<square>":
        return "square", _spelled_out("".join(chr(int(code, 16)) for code in codes))
    if unicodedata.category(character) in ("No", "Nl"):
        return "number", plain.replace("⁄", "/")
    return "", character


def _folded(text: str) -> str:
    """Case folded where case means nothing; a dash that is a minus sign is one; `5 %` is `5%`."""
    text = _BEFORE_SIGN.sub("", _MINUS.sub("-", text))
    made, begin = [], 0
    for cased in _CASED.finditer(text):
        made += [normal("NFKC", text[begin : cased.start()].casefold()), cased[0]]
        begin = cased.end()
    return " ".join("".join([*made, normal("NFKC", text[begin:].casefold())]).split())


def _stripped(text: str) -> str:
    """Without what stands around an answer and says nothing."""
    partner, interval = _partners(text), _is_interval(text)
    begin, end = 0, len(text)
    led = trailed = -1  # where stops have been looked at already
    while begin < end:
        first, last = text[begin], text[end - 1]
        lone_opening = not interval and first in "([" and last not in ")]"
        if first == " ":
            begin += 1
        elif last == " ":
            end -= 1
        elif begin != led:
            begin = led = _leading_stops(text, begin, end)
        elif end != trailed:
            end = trailed = _trailing_stops(text, begin, end)
        elif end - begin > 1 and (_PAIRS.get(first) == last or (not interval and partner.get(begin) == end - 1)):
            begin, end = begin + 1, end - 1
        elif _idle_opening(text[begin : begin + 3], end - begin) or (lone_opening and begin not in partner):
            begin += 1
        else:
            lone_closing = not interval and last in ")]" and first not in "(["
            if not _idle_closing(text[max(begin, end - 2) : end]) and not (lone_closing and end - 1 not in partner):
                break
            end -= 1
    return text[begin:end]


def _idle_opening(start: str, length: int) -> bool:
    """Whether a quote, or a star as bullet, in front says nothing: `'90s` and `*5` keep theirs."""
    if start[0] in _QUOTES:
        return not start[1:2].isdigit()
    return start[0] == "*" and length > 2 and start[1] == " " and start[2].isalpha()


def _idle_closing(finish: str) -> bool:
    """Whether a quote at the end says nothing: feet and inches keep theirs."""
    return finish[-1] in _QUOTES and not finish[:-1].isdigit()


def _leading_stops(text: str, begin: int, end: int) -> int:
    """Where the answer begins after stops; `.5` begins with its point."""
    place = begin
    while place < end and text[place] in _STOPS:
        place += 1
    return begin if text[place : min(place + 1, end)].isdigit() else place


def _trailing_stops(text: str, begin: int, end: int) -> int:
    """Where the answer ends before stops; a factorial and the dots of `0.333…` belong to the number before them."""
    place = end
    while place > begin and text[place - 1] in _STOPS:
        place -= 1
    if place in (begin, end) or not text[place - 1].isdigit():
        return place
    kept = place
    while kept < end and text[kept] == "!":
        kept += 1
    if kept == place and text[place : place + 2] == "..":
        while kept < end and text[kept] == ".":
            kept += 1
    return kept


def _partners(text: str) -> dict[int, int]:
    """Places of brackets that belong together, each to the other's."""
    found: dict[int, int] = {}
    opened: list[int] = []
    for place, character in enumerate(text):
        if character in _BRACKETS:
            opened.append(place)
        elif character in ")]" and opened and _BRACKETS[text[opened[-1]]] == character:
            found[place] = opened.pop()
            found[found[place]] = place
    return found


def _is_interval(text: str) -> bool:
    """Whether commas stand between numbers or symbols, so that brackets say which ends belong to it."""
    if not _PIECES.search(text):
        return False
    pieces = [piece.strip(" ()[]{}") for piece in _PIECES.split(text)]
    return all(" " not in p and not set(_WORD.findall(p)) - _NAMES_OF_NUMBERS for p in pieces)

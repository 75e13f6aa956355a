"""Whether an item of a list of flaws says that there is none: `N/A.`, `None`, `There are no flaws in the caption.`

A list that is to be empty is written so by models that do not like to leave one empty. A sentence says that there is no
flaw when it has words for that and none that says anything else: "None of the windows is open." and "No dog is in the
image." name something, and are flaws.
"""

from __future__ import annotations

import re
import unicodedata

#: Longest text that can say it, in characters.
MAX_CHARACTERS = 400
_WORD = re.compile(r"[^\W_]+")
_CLAUSE = re.compile(r"[.,;:!?\n()–—]+")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_BARE = frozenset(
    {
        *("none", "n a", "na", "nil", "null", "nothing", "no", "empty", "undefined", "not applicable", "not available"),
        *("not any", "not needed", "not required", "not necessary", "error free", "correct", "accurate", "ok", "okay"),
        *("all good", "looks good", "all correct", "all accurate", "everything is correct", "everything is accurate"),
        # The models' other languages.
        *("无", "無", "没有", "沒有", "なし", "特になし", "ありません", "없음", "없습니다", "нет", "отсутствуют"),
        *("aucun", "aucune", "rien", "ninguno", "ninguna", "nada", "nessuno", "nessuna", "nenhum", "nenhuma"),
        *("keine", "keiner", "keines", "nichts", "geen", "ingen", "inga", "brak", "yok", "không", "không có"),
    }
)
#: "No (obvious …) flaws (were found)" in Chinese, which sets no blanks.
_CHINESE = re.compile(
    "(?:未|没有?|沒有?|并?无|並?無)(?:发现|發現|检测到|檢測到|有)?(?:任何|明显|明顯|显著|顯著|重大|其他|其它|的|需要)*"
    "(?:缺陷|错误|錯誤|问题|問題|瑕疵|差异|差異|遗漏|遺漏|不一致|修改|改进|改進)(?:之处|之處|的地方)?"
)
#: A number in front of an item.
_NUMBERED = re.compile(r"\s*[(\[]?\d{1,2}[.):、\]]+\s*(?=\D)")
#: What is denied, in the singular; the plurals are made below.
_FLAW = _words(
    "flaw error mistake issue problem omission imperfection misstatement misrepresentation hallucination correction "
    "refinement contradiction change revision improvement difference concern deviation"
)
_FLAWS = frozenset(
    [form for word in _FLAW for form in (word, f"{word}s")]
    + [stem + end for stem in ("inaccurac", "discrepanc", "inconsistenc") for end in ("y", "ies")]
    + ["mismatch", "mismatches"]
)
_NEGATIONS = frozenset({"no", "zero", "0", "without", "free"})
#: Kinds of flaws that may stand between a negation and what it denies.
_KINDS = _words(
    "significant major minor obvious apparent notable noticeable visible factual real actual such other further more "
    "additional remaining clear evident substantial serious important specific particular relevant identifiable "
    "discernible detectable visual descriptive of from or and nor any whatsoever"
)
#: Words that may stand around and say nothing themselves.
_AROUND = _words(
    "a an the this that these there is are was were be been has have had contain contains contained i we can could do "
    "does did not find see found seen identify identified detect detected note noted observed spotted reported present "
    "exist exists in of with within from to for and or nor at all as far it its so therefore thus caption captions "
    "description image images picture pictures photo text between both two given provided original here my me needed "
    "required necessary describes described reflects captures represents matches match accurately correctly perfectly "
    "faithfully fully completely entirely already appears appear seems scene content contents captures reconstructed "
    "reconstruction comprehensive whatsoever need needs be"
)
_FOUND = _words("found identified detected noted observed spotted reported")
_TO_DO = _words(
    "missing wrong incorrect inaccurate report list add correct fix change refine note improve "
    "added corrected fixed changed refined improved"
)
_PERFECT = _words("perfect flawless faultless")
_RIGHT = _words("accurate correct complete")
_WELL = _words("accurately correctly perfectly faithfully matches")
_SUBJECT = _words("caption captions description")


def says_none(item: str) -> bool:
    """Whether an item of a list of flaws says that there is none; text without a letter or digit says so too."""
    if len(item) > MAX_CHARACTERS:
        return False
    text = unicodedata.normalize("NFKC", item).casefold().replace("’", "'").replace("n't", " not")
    text = _NUMBERED.sub("", text, count=1) if _NUMBERED.match(text) else text
    said = " ".join(_WORD.findall(text))
    if said in {"", *_BARE} or _CHINESE.fullmatch(said):
        return True
    head, colon, rest = text.partition(":")
    if colon and all(w in _AROUND | _FLAWS or w.isdigit() for w in _WORD.findall(head)) and rest.strip():
        text = rest
    clauses = [words for clause in _CLAUSE.split(text) if (words := _WORD.findall(clause))]
    denied = [_denies(words) for words in clauses]
    return any(denied) and all(d or _AROUND.issuperset(words) for d, words in zip(denied, clauses, strict=True))


def _denies(words: list[str]) -> bool:
    said = set(words)
    if said & _FLAWS and words[0] not in ("none", "nothing"):
        return said <= _AROUND | _FLAWS | _KINDS | _NEGATIONS and _all_denied(words)
    right = said & _RIGHT or said & _WELL
    return (
        " ".join(words) in _BARE
        or (words[0] == "none" and said - {"none"} <= _AROUND | _FLAWS)
        or ("nothing" in said and bool(said & (_TO_DO | _FOUND)) and said - {"nothing"} <= _AROUND | _TO_DO)
        or ("not" not in said and bool(said & _PERFECT) and said <= _AROUND | _PERFECT)
        or ("not" not in said and bool(right and said & _SUBJECT) and said <= _AROUND | _RIGHT)
    )


def _all_denied(words: list[str]) -> bool:
    """Whether a negation stands before each word for a flaw, with nothing but kinds of flaws in between."""
    reach, negated = False, False
    for word in words:
        if word in _NEGATIONS:
            reach = True
        elif word == "not":
            negated = True
        elif word == "any" and negated:
            reach = True
        elif word in _FLAWS:
            if not reach:
                return False
        elif word not in _KINDS:
            reach = False
    return True

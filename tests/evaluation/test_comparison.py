"""What makes one short answer another stays when answers are compared."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from viper.evaluation.comparison import normalise
from viper.tasks.text import comparable

#: Answers of which each is another one than every other in its row.
DIFFERENT = [
    ("-5", "5", "+5", "#5", "5!", "5%", "5°", "$5", "5'", '5"', "5...", "0.5", ".5", ",5", "5/1"),
    ("-0.5 m.", "0.5 m", "0.5", "-0.5", "0.5 mm", "0,5 m", "05 m"),
    ("–7", "7", "+7", "~7", "≈7", "±7", ">7", "<7", "≥7", "√7", "7²", "7^", "7k"),
    ("A. red", "B. red", "red", "C) red"),
    ("A", "B", "C", "A or B", "AB"),
    ("$\\boxed{3}$ or $\\boxed{4}$", "$\\boxed{3}$", "$\\boxed{4}$", "3}$ or $\\boxed{4"),
    ("$^{}_{92}U$", "$^{}_{93}U$", "{92}U", "92U", "U"),
    ("1e-4", "1e4", "1e+4", "1e-40", "1-4", "14"),
    ("(0, 1]", "[0, 1)", "(0, 1)", "[0, 1]", "0, 1", "]0, 1["),
    ("(-∞, 0)", "(-∞, 0]", "[-∞, 0]", "-∞, 0"),
    ("(a, b)", "[a, b]", "(b, a)"),
    ("[1.5;2]", "(1.5;2)", "1.5;2"),
    ("(2, 3)", "(3, 2)", "(23)"),
    ("x^2", "x2", "x^{2}", "2x", "x^-2", "x"),
    ("x²", "x2", "x³"),
    ("10²", "102", "10₂", "10 2", "10^3"),
    ("10⁻³", "10-3", "10³", "103"),
    ("3.5", "35", "3,5", "3 5", "3:5", "3/5", "3-5", "-3.5"),
    ("1,000", "1.000", "1000.5", "1"),
    ("1½", "11/2", "½", "1⁄2½", "1 2"),
    ("①②", "12 12", "21"),
    ("5 m", "5 cm", "5 km", "5 M", "5"),
    ("5 mW", "5 MW", "5 W"),
    ("5 mHz", "5 MHz", "5 Hz"),
    ("5 Mb", "5 MB"),
    ("5 Nm", "5 nm", "5 NM"),
    ("5 mT", "5 MT"),
    ("5 mK", "5 MK"),
    ("5 mS", "5 ms"),
    ("5 mSv", "5 MSv"),
    ("2\u20633", "23"),
    ("5‰", "5%", "5"),
    ("3–5", "3–-5", "35", "3 5"),
    ("1.5×10⁻³", "1.5×10³", "1.5×103"),
    ("–5", "5", "5–"),
    ("–√2", "√2"),
    ("–(5)", "5"),
    ("–$5", "$5"),
    ("–x", "x"),
    ("﹣5", "5"),
    ("0x1F", "1F", "01F"),
    ("〈1, 2〉", "1, 2", "(1, 2)"),
    ("\\left(0,1\\right]", "\\left[0,1\\right)", "0,1"),
    ("\\text{red}", "red"),
    ("12:30:05", "12:3005", "123005"),
    ("5 a.m.", "5 p.m.", "5 m"),
    ("3 T", "3 t"),
    ("5 ft", "5 in", "5'", '5"'),
    ("\\Delta", "\\delta"),
    ("$X$", "$x$"),
    ("\\frac{1}{2}", "\\frac{2}{1}", "\\frac{12}{}"),
    ("0.333…", "0.333", "0.33"),
    ("10:30", "1030", "10.30"),
    ("2020-01-02", "20200102", "2020-02-01"),
    ("not red", "red"),
    ("∞", "-∞", ""),
    ("", "0", "none"),
    ("+", "-", "="),
    ("", ".", "?", "!", "()", "[]", "…", "«»", '"'),
]
#: Answers that are the same one.
SAME = [
    ("Red.", "red", " RED ", "“red”", "**Red**", "(red)", "'red'", "red!", "* red", "`red`", "[red]", "red,", '"red'),
    ("-5", "–5", "−5", "－5", " -5 ", "-5.", "“-5”", "**-5**", "(-5)", "-5;", '"-5."'),
    ("5", "５", "5.", "(5)", "((5))", "[5]", "5,", "5 .", "*5*", "'5'"),
    ("B", "(B)", "b", "B)", "B.", "“B”", "(b)."),
    ("x²", "x^2", "X²", "x² ."),
    ("½", "1/2", "1⁄2"),
    ("1½", "1 1/2"),
    ("1e4", "1E4", "１Ｅ４"),
    ("5 km", "5 KM", "5  Km", "５ km."),
    ("(0, 1]", " (0, 1] .", "(0, 1]."),
    ("Straße", "STRASSE"),
    ("red, blue", "(Red, blue)", "Red, blue."),
    ("top left", " top   Left\n"),
    ("H₂O", "H2O"),
    ("5 m²", "5 ㎡", "5 m^2"),
    ("5 MHz", "5 mhz"),
    ("3 cats", "3 Cats"),
    (".5", " .5.", "(.5)"),
    ("", " ", "\u200b", "\n"),
    ("?", " ? ", "？"),
    ("5", "\u200b5", "5\u200b", "\ufeff5", "\u200e5", "5\u2060.", "\u20665\u2069"),
    ("-5", "\u200e-5", "-\u20605", "﹣5", "‑5", "(\u200b–5)"),
    ("red", "「red」", "『Red』。", "《red》", "‹red›", "‚red‘", "red、", "red।", "red؟", "red\u00ad"),
    ("3-5", "3–5", "3−5", "3‑5", "3‐5"),
    ("top-left", "Top–left", "top‑left."),
    ("2020-01-02", "2020–01–02", "2020‐01‐02"),
    ("-x", "–x", "−x"),
    ("-√2", "–√2"),
    ("-π", "–π"),
    ("-$5", "–$5"),
    ("5%", "5 %", "５％", "5 %."),
    ("-5 °C", "-5°C", "–5 ℃"),
]


@pytest.mark.parametrize("answers", DIFFERENT, ids=lambda answers: answers[0])
def test_answers_that_mean_something_else_stay_apart(answers: tuple[str, ...]) -> None:
    made = {answer: normalise(answer) for answer in answers}
    assert [pair for pair in itertools.combinations(answers, 2) if made[pair[0]] == made[pair[1]]] == []


@pytest.mark.parametrize("answers", SAME, ids=lambda answers: answers[0])
def test_answers_that_only_look_different_are_the_same(answers: tuple[str, ...]) -> None:
    assert {normalise(answer) for answer in answers} == {normalise(answers[0])}


@st.composite
def numbers(draw: st.DrawFn) -> tuple[Fraction, str]:
    """A number and a way in which people write it."""
    sign = draw(st.sampled_from(["", "", "-", "+"]))
    factor = -1 if sign == "-" else 1
    whole, part = draw(st.integers(0, 10**6)), draw(st.integers(0, 999))
    power = draw(st.integers(-9, 9))
    ways = {
        "integer": (Fraction(whole), str(whole)),
        "decimal": (whole + Fraction(part, 1000), f"{whole}.{part:03d}"),
        "point": (Fraction(part, 1000), f".{part:03d}"),
        "power": (Fraction(whole) * Fraction(10) ** power, f"{whole}e{power}"),
        "fraction": (Fraction(whole, part + 1), f"{whole}/{part + 1}"),
        "half": (whole + Fraction(1, 2), f"{whole}½"),
        "squared": (Fraction(whole) ** 2, f"{whole}²"),
        "raised": (Fraction(1, whole + 1), f"{whole + 1}⁻¹"),
    }
    value, text = ways[draw(st.sampled_from(sorted(ways)))]
    return factor * value, sign + text


DRESSES = ["{}", "{}.", " {} ", "“{}”", "({})", "**{}**", "[{}].", "'{}',", "{}\n", "*{}*", "`{}`"]


@given(numbers(), numbers(), st.sampled_from(DRESSES), st.sampled_from(DRESSES))
@example((Fraction(-5), "-5"), (Fraction(5), "5"), "{}", "{}.")
def test_numbers_that_differ_never_become_equal(
    one: tuple[Fraction, str], other: tuple[Fraction, str], dress: str, another: str
) -> None:
    if one[0] != other[0]:
        assert normalise(dress.format(one[1])) != normalise(another.format(other[1]))


@given(numbers(), st.sampled_from(DRESSES))
def test_a_number_is_the_same_however_it_is_set_off(number: tuple[Fraction, str], dress: str) -> None:
    assert normalise(dress.format(number[1])) == normalise(number[1])


@given(
    st.text(alphabet=st.sampled_from("-–−+5.,!()[]{}\"'*_ ½²₂①^$\\aBMm…∞「」、\u200b√"), max_size=30)
    | st.text(max_size=60)
)
def test_a_second_pass_changes_nothing(answer: str) -> None:
    assert normalise(normalise(answer)) == normalise(answer)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("The ball is red.", "the ball  is RED", True),
        ("At top-left, a ring!", "At top left a ring", True),
        ("It shows -5.", "It shows 5.", False),
        ("It shows –5 °C", "It shows 5 °C", False),
        ("It is 3.5 m", "It is 35 m", False),
        ("It is 3.5 m", "It is 3 5 m", False),
        ("It is .5 m.", "It is 5 m.", False),
        ("x^2", "x2", False),
        ("from (0, 1]", "from [0, 1)", False),
        ("50% off", "50 off", False),
        ("a well-known man", "a well known man", True),
    ],
)
def test_flaws_and_instructions_are_told_apart_by_their_numbers(one: str, other: str, same: bool) -> None:
    assert (comparable(one) == comparable(other)) is same

from __future__ import annotations

import numpy as np
import pytest

from copl_core.features import FEATURE_NAMES, FEATURE_WORDS, measure, measure_many

PLAIN = "The sky is blue. It scatters short waves."


def of(text: str, name: str) -> float:
    return float(measure(text)[FEATURE_NAMES.index(name)])


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("length", PLAIN + " And so on, at some length."),
        ("sentences", PLAIN + " Yes. No. Perhaps."),
        ("sentence_length", "The sky is blue because it scatters the short waves of the light of the sun"),
        ("word_length", "Atmospheric scattering predominates."),
        ("lines", PLAIN.replace(". ", ".\n")),
        ("lists", "- one\n- two\n1. three"),
        ("headings", "# Sky\n" + PLAIN),
        ("code", "Run `sky`. " + PLAIN),
        ("bold", "**The sky** is blue."),
        ("questions", "Why is the sky blue?"),
        ("exclamations", "The sky is blue!"),
        ("hedging", "Perhaps the sky might be blue."),
        ("certainty", "The sky is definitely always blue."),
        ("second_person", "You see your sky."),
        ("first_person", "I see my sky."),
        ("warmth", "Thanks, dear friend."),
        ("digits", "The sky is 450 nm blue."),
        ("examples", "Colours, for example blue, e.g. at noon."),
        ("steps", "First look up, then look down."),
        ("contrast", "The sky is blue, but not always."),
        ("reasons", "It is blue because waves scatter."),
        ("refusal", "I'm sorry, I can't say."),
        ("contractions", "It's blue, isn't it"),
        ("abstract_words", "The appearance is an illustration of refraction."),
        ("variety", PLAIN + " Dust makes sunsets red."),
        ("punctuation", "Blue, grey, red; black: all."),
        ("quotes", 'It is "blue".'),
        ("capitals", "THE SKY IS BLUE."),
        ("other_script", "небо"),
        ("ends_open", "The sky is blue and"),
    ],
)
def test_each_feature_grows_with_what_it_is_named_after(name, more):
    assert of(more, name) > of(PLAIN, name)


def test_every_feature_is_tested_and_has_words_for_both_ends():
    tested = {case[0] for case in test_each_feature_grows_with_what_it_is_named_after.pytestmark[0].args[1]}
    assert tested == set(FEATURE_NAMES) == set(FEATURE_WORDS)
    assert all(more and less and more != less for more, less in FEATURE_WORDS.values())


@pytest.mark.parametrize("text", ["", " ", "\n\n", "?", "1", "ß", "a" * 50_000, "😀" * 9, "\u0000", "``` unclosed"])
def test_any_text_measures_finite(text):
    assert np.isfinite(measure(text)).all()


def test_many_texts_measure_as_each_alone_and_the_same_each_time():
    texts = [PLAIN, "Other."]
    np.testing.assert_array_equal(measure_many(texts), np.stack([measure(text) for text in texts]))
    assert measure_many([]).shape == (0, len(FEATURE_NAMES))


def test_padding_space_changes_nothing():
    np.testing.assert_array_equal(measure(PLAIN), measure(f"  {PLAIN}\n"))

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from copl_core import features_1
from copl_core.features import FEATURE_NAMES, FEATURE_WORDS, LENGTH_FEATURES, measure, measure_many

PLAIN = "The sky is blue. It scatters the short waves."


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


STYLE = [i for i, name in enumerate(FEATURE_NAMES) if name not in LENGTH_FEATURES]
PIECES = st.lists(
    st.sampled_from(
        [
            "I'm sorry, but maybe you can't.",
            "- one",
            "1. two\n2. three",
            "# Head",
            "**Bold**",
            "`code`",
            "```\nx = 1\n```",
        ]
        + [
            'He wrote "go."',
            "Why?",
            "Oh no!",
            "450",
            "e.g. this",
            "First, then; finally (so)",
            "cut",
            "небо",
            " ",
            "\n",
        ]
    )
)


@given(st.one_of(st.text(max_size=200), PIECES.map(" ".join), PIECES.map("\n".join)))
def test_a_text_that_is_written_down_twice_has_the_same_style(text):
    once, twice = measure(text), measure(text + "\n\n" + text)
    np.testing.assert_allclose(twice[STYLE], once[STYLE], atol=1e-6)


def test_only_length_grows_with_length():
    whole = PLAIN + " Why so? Perhaps it's dust:\n- a mote\n- another"
    for times in (2, 5, 20):
        grown = measure("\n\n".join([whole] * times)) - measure(whole)
        assert {FEATURE_NAMES[i] for i in np.flatnonzero(np.abs(grown) > 1e-6)} == set(LENGTH_FEATURES)


def test_a_vocabulary_is_as_varied_in_a_long_text_as_in_a_short_one_by_the_same_writer():
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefghij"), 5)) for _ in range(60)]
    means = [np.mean([of(" ".join(rng.choice(words, n)) + ".", "variety") for _ in range(400)]) for n in (10, 40, 160)]
    assert max(means) - min(means) < 0.01


def test_a_short_answer_is_not_called_repetitive_and_a_repetitive_one_is():
    assert of("Python.", "variety") > 0.9 > 0.6 > of("The cat " * 10, "variety")


def test_texts_of_snapshots_of_the_first_version_are_measured_as_they_were():
    """Figures printed by version 0.1."""
    old = features_1.measure_many(["Python.", "The cat " * 10, PLAIN])
    variety, punctuation = FEATURE_NAMES.index("variety"), FEATURE_NAMES.index("punctuation")
    np.testing.assert_allclose(old[:2, variety], [0.2, 0.0894427], atol=1e-6)
    assert old.shape == (3, len(FEATURE_NAMES)) and features_1.measure_many([]).shape == (0, len(FEATURE_NAMES))
    np.testing.assert_allclose(features_1.measure_many(["a, b, c"])[0, punctuation], np.log1p(2), atol=1e-6)

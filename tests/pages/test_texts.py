"""What is shown is what was written: hostile and ordinary texts, as HTML."""

from __future__ import annotations

import re
from html import unescape
from xml.etree import ElementTree

import pytest

from copl_core.records import CoplError
from copl_core.study_settings import TEXT_FORMATS, AssignmentSettings
from copl_core.turns import Turn, text_of
from pages.texts import EMPTY, _cut, literal, plain, shown_answer, to_html


def words(html: str) -> str:
    """The text of a piece of HTML, its own line breaks between blocks removed."""
    return unescape(re.sub(r"<[^>]+>", "", re.sub(r"(?<=>)\n", "", html)))


# Shown in Markdown exactly as it was written, character by character.
AS_WRITTEN = [
    "Grey on the window\nsmall drums along the gutter\nthe street smells of stone",
    "Rain falls on the roof,\n  and again,\n    and again,\nuntil I sleep.",
    "Run ls --all -> see <- here, x >= 3, a -- b, and :smile: :red[alert] :material/home: at 10:30:45.",
    "Type echo $HOME, then $5 and $10, or $HOME/$USER.",
    "\\(a_1\\) and \\[ x^2 \\] and $\\int_0^1 x^2\\,dx$ and \\alpha \\{ \\} \\\\ C:\\new \\\\server\\share",
    "2*3*4, x**2 + y**2, snake_case_name, __init__, a_b_c, ~tilde~, f(*args, **kwargs)",
    "<script>document.title='owned'</script><img src=x onerror=\"alert(1)\"> <b>3</b><br>done <!-- x -->",
    "&lt;b&gt; &amp; &copy; &#42;",
    "[click](javascript:alert(1)) [data](data:text/html,x) <https://example.org> [1]: https://example.org",
    "[1]: https://example.org\n[text][1]",
    "A title\n=====\n(c) (tm) ... 'quoted' \"twice\"",
    "line one \\\nline two",
    "a\tb    c",
]


@pytest.mark.parametrize("text", AS_WRITTEN)
@pytest.mark.parametrize("text_format", ["markdown", "plain"])
def test_every_character_is_shown_as_it_was_written(text, text_format):
    html = to_html(text, text_format)
    assert words(html) == text
    assert not re.search(r"<(?!/?(?:div|p|span)\b)", html), "no element besides a paragraph"


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("`echo $HOME`", "<code>echo $HOME</code>"),
        ("```bash\necho $HOME\n```", "<code>echo $HOME\n</code></pre>"),
        ("```python\nx[1:2]\n```\nWhat?", '<pre dir="ltr" tabindex="0" data-info="python"><code>x[1:2]\n</code>'),
        ("    four = 4", "<code>four = 4\n</code>"),
        ("| a |\n|---|\n| 1 |\n\nSum it.", "<td><span class=\"as-written\">1</span></td>"),
        ("> quoted\n> twice\n\nReply.", '<blockquote dir="ltr">'),
        ("- a\n- b", '<li><span class="as-written">b</span></li>'),
        ("7. a\n9. b", '<li value="9">'),
        ("1) a", '<ol dir="ltr" class="bracket">'),
        ("# Big\nsmall", '<h4 dir="ltr"><span class="as-written">Big</span></h4>'),
        ("**bold** and *thin* and ~~gone~~", "<strong>bold</strong> and <em>thin</em> and <s>gone</s>"),
        ("这是**粗体**文字", "<strong>粗体</strong>"),
        ("\\*no\\* \\$5", "*no* $5"),
        ("ما هي؟\n\n1. أولاً", '<ol dir="rtl">'),
        ("العيد (Eid)", '<p dir="rtl">'),
        ("2026: עיר", '<p dir="rtl">'),
        ("English, then עיר", '<p dir="ltr">'),
        ("Human: Hello\n\nAssistant: ```x```", '<div class="role">Assistant:</div><p dir="ltr">'),
    ],
)  # fmt: skip
def test_markdown_is_set(text, html):
    assert html in to_html(text)


def test_a_picture_is_a_link_and_is_not_loaded():
    html = to_html("![a pixel](http://example.org/pixel.png) ![](data:image/png;base64,AAAA)")
    assert "<img" not in html and "src=" not in html
    assert (
        'href="http://example.org/pixel.png" target="_blank" rel="noopener noreferrer">[picture: a pixel]</a>' in html
    )


HOSTS = ("pictures.example.org", "cdn.example.org:8443")


@pytest.mark.parametrize(
    "address",
    ["https://pictures.example.org/a.png", "https://Pictures.Example.org", "https://cdn.example.org:8443/a?b=1&c=2"],
)
def test_a_picture_of_a_host_that_the_study_names_is_shown(address):
    (picture,) = re.findall("<img[^>]*>", to_html(f'![a <b> "cat"]({address})', hosts=HOSTS))
    assert ElementTree.fromstring(picture.replace(">", "/>")).attrib == {"src": address, "alt": 'a <b> "cat"'}
    assert "<img" not in to_html(f"![]({address})") and "<img" not in to_html(f"![]({address})", "plain", hosts=HOSTS)


@pytest.mark.parametrize(
    "address",
    [
        "http://pictures.example.org/a.png",
        "https://pictures.example.org.evil.example/a.png",
        "https://pictures.example.org@evil.example/a.png",
        "https://evil.example/https://pictures.example.org/a.png",
        "https://pictures.example.org:8443/a.png",
        "https://cdn.example.org/a.png",
        "https:\\\\pictures.example.org/a.png",
        "//pictures.example.org/a.png",
        "data:image/png;base64,AAAA",
    ],
)
def test_a_picture_of_any_other_address_is_not_loaded(address):
    assert "<img" not in to_html(f"![a cat]({address})", hosts=HOSTS)


@pytest.mark.parametrize(
    "host",
    ["*", "*.example.org", "https://a.org", "a.org/path", "a.org;", "a.org 'self'", "localhost", "127.0.0.1", "[::1]",
     "a.org:0", "a..org", "-a.org", "data:", "'self'", "", "a." * 130 + "org", "bücher.example"],
)  # fmt: skip
def test_what_is_no_name_of_a_host_is_refused(host):
    with pytest.raises(CoplError, match="Pictures would be shown of"):
        AssignmentSettings(picture_hosts=(host,))


def test_hosts_are_kept_in_one_form_and_are_few():
    assert AssignmentSettings(picture_hosts=["B.org", "a.org:8443", "b.org"]).picture_hosts == ("a.org:8443", "b.org")
    assert AssignmentSettings.of({"picture_hosts": ["a.org"]}).picture_hosts == ("a.org",)
    assert AssignmentSettings.of({"overlap": 3}).picture_hosts == (), "studies of earlier versions"
    with pytest.raises(CoplError, match="11 hosts; name 10 at most"):
        AssignmentSettings(picture_hosts=tuple(f"a{n}.org" for n in range(11)))


def test_a_link_tells_its_target_nothing():
    assert to_html('[x](http://example.org "title")').count('target="_blank" rel="noopener noreferrer">x</a>') == 1


# ---- formulas


FORMULAS = ["\\(a_1\\)", "$\\frac{1}{3}$", "$x$", "$$x^2$$", "\\[ x = 1 \\]", "$$\nx = 1\n- y\n$$"]
FORMULAS += ["\\begin{align}\nx &= 1\n\\end{align}"]
NO_FORMULAS = ["Soup is $5, stew is $10.", "between $5 and 10$", "$HOME/$USER", "`$x$`", "\\$5 or \\$6.", "$ 5 $", "$$"]


@pytest.mark.parametrize("tex", FORMULAS)
def test_formulas_are_set_only_where_the_study_says_so(tex):
    assert 'data-mathml="&lt;math' in to_html(f"{tex}", "formulas")
    assert words(to_html(tex, "formulas")) == tex, "what is shown until the browser has set it"
    for other in ("markdown", "plain"):
        assert "mathml" not in to_html(tex, other)


@pytest.mark.parametrize("text", NO_FORMULAS)
def test_prices_and_variables_are_no_formulas(text):
    assert "formula" not in to_html(text, "formulas")


@pytest.mark.parametrize(
    "tex", ["\\href{javascript:alert(1)}{x}", "\\text{<script>alert(1)</script>}", "\\style{x}{y}"]
)
def test_a_formula_carries_nothing_that_links_or_runs(tex):
    html = to_html(f"\\({tex}\\)", "formulas")
    assert "href=" not in html and "<script" not in unescape(html).replace(tex, "")
    drawn = re.search(r'data-mathml="([^"]*)"', html)
    if drawn:
        math = ElementTree.fromstring(unescape(drawn[1]))
        assert not {"href", "style", "onclick"} & {name for one in math.iter() for name in one.attrib}


# ---- titles, sizes, settings


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("**Bold** and *it*, with `code`", "Bold and it, with code"),
        ("# Title\n\n- one\n- two **x**\n\n3. a", "Title • one • two x 3. a"),
        ("2*3*4, __init__, x**2 and snake_case", "2*3*4, __init__, x**2 and snake_case"),
        ("| a | b |\n|---|---|\n| 1 | 2 |", "a b 1 2"),
        ("[words](http://a.b) ![bird](http://x/y.png)", "words [picture: bird]"),
        ("<b>x</b> &amp; y", "<b>x</b> &amp; y"),
    ],
)
def test_a_line_has_the_words_that_are_shown_without_the_signs_of_markdown(text, line):
    assert plain(text) == line
    assert plain(text, "plain") == " ".join(text.split())


def test_a_title_is_shown_literally():
    assert literal("a\nb  c") == "a b c"
    assert literal("*a* `b` $5 [c](d) #e") == "\\*a\\* \\`b\\` \\$5 \\[c\\]\\(d\\) \\#e"
    for changed in (
        "a <- b",
        "a -> b",
        "a <-> b",
        "a -- b",
        "a >= b",
        "a <= b",
        ":smile:",
        ":red[x]",
        ":material/home:",
    ):
        assert "\u2060" in literal(changed), "an invisible sign keeps streamlit from changing it"
    assert "\u2060" not in literal("at 10:30, well-known, a-b")


@pytest.mark.parametrize(
    "text", ["[" * 20_000, "![" * 10_000, "*a " * 6_000, "$x" * 9_000, "\n\\[" * 6_000, "x" * 100_000]
)
def test_a_text_that_is_hard_to_read_is_still_drawn(text):
    for text_format in TEXT_FORMATS:
        assert len(words(to_html(text, text_format))) >= len(text.strip()) - text.count("\n")


def test_a_format_that_does_not_exist_is_refused_in_a_sentence():
    with pytest.raises(CoplError, match="'latex'; choose one of markdown, plain, formulas"):
        AssignmentSettings(text_format="latex")
    assert AssignmentSettings.of({"overlap": 3}).text_format == "markdown", "studies of earlier versions"


def test_a_conversation_is_drawn_as_its_turns():
    turns = [Turn("system", "Be *brief*."), Turn("user", "Hello"), Turn("assistant", "Hi"), Turn("user", "[user]\nBye")]
    for text_format, brief in (("markdown", "<em>brief</em>"), ("plain", "*brief*")):
        html = to_html(text_of(turns), text_format)
        assert re.findall(r'class="role">([^<]+)<', html) == ["System:", "User:", "Assistant:", "User:"]
        assert brief in html and html.count("[user]") == 1 and "[system]" not in html


@pytest.mark.parametrize("text", ["", " \n\t ", "\u200b\u00a0"])
def test_an_answer_of_which_nothing_is_seen_is_said_to_be_empty(text):
    assert shown_answer(text) == EMPTY and shown_answer(f"{text}.") == f"{text}."


@pytest.mark.parametrize(
    ("line", "cut"),
    [
        ("one two three", "one two three"),
        ("one two three four", "one two three…"),
        ("one two, three four", "one two…"),
        ("one two three, four", "one two three…"),
        ("one twothreefourfive", "one twothreef…"),
        ("onetwothreefourfive", "onetwothreefo…"),
    ],
)
def test_a_line_that_is_too_long_ends_with_a_whole_word_where_there_is_one(line, cut):
    assert _cut(line, 14) == cut and len(cut) <= 14

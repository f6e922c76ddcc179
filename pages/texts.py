"""Stored texts on screen: what is shown is what was written.

Streamlit's Markdown joins lines, drops backslashes, loads pictures, and turns ``<-``, ``:smile:`` and ``$`` into other
things.  So a text becomes HTML here, and neither Streamlit nor the browser interprets it again.  Where CommonMark would
change or hide written characters that people mean as they stand, the characters stay: single line breaks and
indentation, HTML, entities, ``\\(`` and ``\\[``, ``2*3*4`` and ``x**2``, ``__init__``, the numbers of lists, reference
lines, underlined headings.  Pictures are links; those of hosts that an owner of the study has named are shown.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from functools import lru_cache
from html import escape
from xml.etree import ElementTree

import streamlit as st
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_block import StateBlock
from markdown_it.rules_core import StateCore
from markdown_it.rules_inline import StateInline
from markdown_it.rules_inline.state_inline import Delimiter
from markdown_it.token import Token

from copl_core.study import labelling
from copl_core.study_settings import AssignmentSettings
from copl_core.turns import title_of, turns_of

# One look on light and dark pages: every colour is mixed from the colour of the text.
STYLE = """<style>
.copl-text { overflow-wrap: anywhere; line-height: 1.6; --line: color-mix(in srgb, currentColor 22%, transparent);
  --tint: color-mix(in srgb, currentColor 6%, transparent); }
.copl-text.question { font-size: 1.06rem; line-height: 1.45; }
.copl-text.question, .copl-text.question :is(p, li) { font-weight: 600; }
.copl-text > :first-child { margin-top: 0; }
.copl-text > :last-child { margin-bottom: 0; }
.copl-text .as-written, .copl-text.plain { white-space: pre-wrap; }
.copl-text.plain, .copl-text :is(p, li, h4, h5, h6, td, th) { unicode-bidi: plaintext; text-align: start; }
.copl-text p { margin: 0 0 .8em; }
.copl-text :is(h4, h5, h6) { font-family: inherit; font-weight: 650; margin: 1em 0 .4em; padding: 0; line-height: 1.3; }
.copl-text h4 { font-size: 1.2em; } .copl-text h5 { font-size: 1.08em; } .copl-text h6 { font-size: 1em; }
.copl-text :is(ul, ol) { margin: 0 0 .8em; padding: 0; padding-inline-start: 1.9em; }
.copl-text li { margin: .15em 0; } .copl-text li > p { margin-bottom: .4em; }
.copl-text li > :is(ul, ol) { margin-bottom: .2em; }
@counter-style copl-bracket { system: extends decimal; suffix: ") "; }
.copl-text ol.bracket { list-style: copl-bracket; }
.copl-text blockquote { margin: 0 0 .8em; padding: .1em 0; padding-inline-start: .9em;
  border-inline-start: 3px solid var(--line); }
.copl-text blockquote > :last-child { margin-bottom: 0; }
.copl-text code { font-size: .87em; font-weight: 400; background: var(--tint); color: inherit; padding: .1em .3em;
  border-radius: 3px; white-space: pre-wrap; unicode-bidi: isolate; }
.copl-text pre { margin: 0 0 .8em; padding: .7em .9em; background: var(--tint); border-radius: 4px; overflow-x: auto;
  border: 1px solid var(--line); }
.copl-text pre code { background: none; padding: 0; white-space: pre; overflow-wrap: normal; font-size: .85em; }
.copl-text pre[data-info]::before { content: attr(data-info); display: block; font-size: .75em; opacity: .75; }
.copl-text .table { overflow-x: auto; margin: 0 0 .8em; }
.copl-text table { border-collapse: collapse; }
.copl-text :is(td, th) { border: 1px solid var(--line); padding: .25em .6em; vertical-align: top; }
.copl-text th { font-weight: 650; }
.copl-text hr { border: 0; border-top: 1px solid var(--line); margin: 1em 0; }
.copl-text a { color: light-dark(#005f94, #7cc0ea); text-decoration: underline; }
.copl-text .formula { white-space: pre-wrap; } .copl-text .formula math { font-weight: 400; }
.copl-text div.formula { margin: 0 0 .8em; text-align: center; overflow-x: auto; }
.copl-text img { max-width: 100%; max-height: 28rem; vertical-align: middle; }
.copl-text .turn { margin: 0 0 .8em; } .copl-text .role { font-weight: 600; }
.copl-text .turn + .turn { border-top: 1px solid var(--line); padding-top: .6em; }
</style>"""
_MATHML = frozenset(
    "math mrow mi mn mo mtext mspace msup msub msubsup mfrac msqrt mroot munder mover munderover mtable mtr mtd mstyle "
    "mpadded mphantom mfenced menclose mmultiscripts mprescripts none".split()
)
_MATHML_ATTRIBUTES = frozenset(
    "display displaystyle scriptlevel mathvariant stretchy fence form separator accent accentunder linethickness width "
    "height depth lspace rspace minsize maxsize movablelimits symmetric largeop columnalign rowspacing columnspacing "
    "columnlines rowlines notation open close separators".split()
)
EMPTY = "(empty answer)"
_KEPT = 1_000  # texts whose HTML is kept
_LINES = 5_000  # short lines that are kept
_MARKED = 12  # characters read of a text for each one shown on a line: enough for its signs
_MARKS = re.compile(r"[\\`*_~#>|\[$]|^\s*(?:[-+]|\d+[.)])\s", re.MULTILINE)  # without them a text is its own words
_LONG = 20_000  # characters from which a text is shown as plain text: Markdown of that size is a file, not an answer
_MOST_BRACKETS = 500  # with more of them, links are not looked for: the search takes the square of their number
_PICTURE = re.compile(r"https://([A-Za-z0-9.-]+(?::\d+)?)(?:[/?#][!-~]*)?")  # its host, without a user before it
_ROLE = re.compile(r"^(System|Human|User|Assistant)(:)[ \t]*", re.MULTILINE)


# ---- drawing


def draw_prompt(text: str) -> None:
    """Draw a question."""
    _draw(text, "question")


def draw_response(text: str) -> None:
    """Draw an answer."""
    _draw(shown_answer(text), "")


def draw_words(text: str) -> None:
    """Draw what a person wrote into a field, such as a report."""
    st.html(to_html(text, "plain", "question"))


def draw_markdown(text: str) -> None:
    """Draw what the owner wrote in Markdown, such as guidelines, however the study's own texts are set."""
    st.html(to_html(text, "markdown", hosts=_settings().picture_hosts))


def response_html(text: str) -> str:
    """An answer as the study sets its texts, for a place that is already on the page."""
    return _as_set(shown_answer(text))


def shown_answer(text: str) -> str:
    """An answer, or that there is nothing to see of it: a blank box looks like a page that has not loaded."""
    return text if any(unicodedata.category(one)[0] not in "ZC" for one in text) else EMPTY


def _draw(text: str, kind: str) -> None:
    st.html(_as_set(text, kind))


def _as_set(text: str, kind: str = "") -> str:
    settings = _settings()
    return to_html(text, settings.text_format, kind, settings.picture_hosts)


def _settings() -> AssignmentSettings:
    return labelling.assignment_settings(st.session_state["session"])


def literal(text: str) -> str:
    """Streamlit Markdown that shows a stored text as it was written, on one line: for titles, captions and names."""
    line = re.sub(r"([\\`*_{}\[\]()#+\-.!|~<>$&])", r"\\\1", " ".join(text.split()))
    line = re.sub(r":(?=[a-z+\-\\])", ":\u2060", line)  # an invisible joiner: neither an icon nor a colour
    return re.sub(r"(?<!\S)(?=(?:\\?[<>~-]){1,2}(?:\\?[>=-])(?!\S))", "\u2060", line)  # nor an arrow


def brief(text: str, most: int = 90) -> str:
    """The beginning of a text on one line, for tables and titles: the words that ``draw_response`` shows, without
    the signs of Markdown; of a conversation, those of its last question.
    """
    return briefs([text], most)[0]


def briefs(texts: Iterable[str], most: int = 90) -> list[str]:
    """``brief`` of each text; how the study sets its texts is looked up once."""
    text_format = _settings().text_format
    lines = (plain(title_of(shown_answer(text))[: _MARKED * most], text_format) for text in texts)
    return [_cut(line, most) for line in lines]


def _cut(line: str, most: int) -> str:
    """At most so many characters of a line, which ends with a whole word unless that word is very long."""
    if len(line) <= most:
        return line
    words = line[:most].rpartition(" ")[0]
    return (words if len(words) > most // 2 else line[: most - 1]).rstrip(" .,;:–—-") + "…"


@lru_cache(_LINES)
def plain(text: str, text_format: str = "markdown") -> str:
    """The words of a text as ``to_html`` shows them, on one line."""
    if text_format == "plain" or not _MARKS.search(text) or text.count("[") > _MOST_BRACKETS:
        return " ".join(text.split())
    return " ".join(" ".join(map(_words, _parser(text_format == "formulas", True).parse(text))).split())


def _words(token: Token) -> str:
    """What is read of a token of the parser, and of those within it."""
    if token.type == "inline":
        return "".join(map(_words, token.children or ()))
    if token.type == "list_item_open":
        return f"{token.info}{token.markup}" if token.info else "•"
    if token.type == "image":
        return f"[picture: {token.content or 'without a description'}]"
    if token.type.startswith("formula"):
        return token.markup
    return " " if token.type in ("softbreak", "hardbreak") else token.content


# ---- text to HTML


@lru_cache(_KEPT)
def to_html(text: str, text_format: str = "markdown", kind: str = "", hosts: tuple[str, ...] = ()) -> str:
    """Safe HTML that shows a text as it was written: no scripts, no markup of the text's own.

    Args:
        text_format: "markdown", "plain" or "formulas": Markdown and TeX: ``\\(…\\)``, ``\\[…\\]``, ``$…$``, ``$$…$$``.
        kind: a further class of the outer element, such as "question".
        hosts: whose pictures are shown; others are links.
    """
    if text_format == "plain" or len(text) > _LONG:
        body = "".join(_turn(escape, *turn) for turn in _stored_turns(text)) or escape(text)
        return f'<div class="{_classes("plain", kind)}" dir="auto">{body}</div>'
    parser = _parser(text_format == "formulas", text.count("[") <= _MOST_BRACKETS)
    turns = _turns(text)

    def render(words: str) -> str:
        return parser.render(words, {"hosts": hosts})

    body = "".join(_turn(render, *turn) for turn in turns) if turns else render(text)
    return f'<div class="{_classes(kind)}">{body}</div>'


def _classes(*names: str) -> str:
    return " ".join(filter(None, ("copl-text", *names)))


def _turns(text: str) -> list[tuple[str, str]]:
    """(role with its colon, words) of each turn of a conversation; empty for any other text."""
    if turns := _stored_turns(text):
        return turns
    starts = [found for found in _ROLE.finditer(text) if found.start() == 0 or text[: found.start()].endswith("\n\n")]
    if len(starts) < 2 or starts[0].start() > 0:
        return []
    ends = [found.start() for found in starts[1:]] + [len(text)]
    return [(found[1] + found[2], text[found.end() : end].strip("\n")) for found, end in zip(starts, ends, strict=True)]


def _stored_turns(text: str) -> list[tuple[str, str]]:
    """(role with its colon, words) of each turn of a prompt that is stored as a conversation."""
    return [(f"{turn.role.capitalize()}:", turn.text) for turn in turns_of(text)]


def _turn(render: Callable[[str], str], role: str, words: str) -> str:
    return f'<div class="turn"><div class="role">{role}</div>{render(words)}</div>'


class _Renderer(RendererHTML):
    """Markdown-it's renderer, with lines and spaces as they were written."""

    def renderInline(self, tokens, options, env) -> str:
        return f'<span class="as-written">{super().renderInline(tokens, options, env)}</span>'

    def softbreak(self, tokens, index, options, env) -> str:
        return "\n"

    hardbreak = softbreak

    def fence(self, tokens, index, options, env) -> str:
        info = tokens[index].info.strip()
        named = f' data-info="{escape(info)}"' if info else ""
        return f'<pre dir="ltr" tabindex="0"{named}><code>{escape(tokens[index].content)}</code></pre>\n'

    def code_block(self, tokens, index, options, env) -> str:
        return f'<pre dir="ltr" tabindex="0"><code>{escape(tokens[index].content)}</code></pre>\n'

    def table_open(self, tokens, index, options, env) -> str:
        return f'<div class="table" tabindex="0" dir="{tokens[index].attrGet("dir") or "auto"}"><table>\n'

    def table_close(self, tokens, index, options, env) -> str:
        return "</table></div>\n"

    def image(self, tokens, index, options, env) -> str:
        """The picture where its host is named; else a link to it, which loads nothing."""
        address, words = str(tokens[index].attrs["src"]), escape(tokens[index].content or "without a description")
        if (host := _PICTURE.fullmatch(address)) and host[1].lower() in env.get("hosts", ()):
            return f'<img src="{escape(address)}" alt="{escape(tokens[index].content)}">'
        if not address.startswith(("http://", "https://")):
            return f"[picture: {words}]"
        return f'<a href="{escape(address)}" target="_blank" rel="noopener noreferrer">[picture: {words}]</a>'

    def formula(self, tokens, index, options, env) -> str:
        return _formula(tokens[index], "span")

    def formula_block(self, tokens, index, options, env) -> str:
        return _formula(tokens[index], "div") + "\n"


@lru_cache(4)
def _parser(formulas: bool, links: bool) -> MarkdownIt:
    parser = MarkdownIt(
        "js-default", {"html": False, "linkify": False, "typographer": False}, renderer_cls=_Renderer
    ).disable(["lheading", "reference", "entity", "autolink", "linkify", "replacements", "smartquotes"])
    parser.inline.ruler.at("newline", _newline)
    parser.inline.ruler.at("escape", _escaped)
    parser.inline.ruler.at("emphasis", _emphasis)
    parser.core.ruler.push("finish", _finish)
    if not links:
        parser.disable(["link", "image"])
    if formulas:
        parser.inline.ruler.before("escape", "formula", _inline_formula)
        parser.block.ruler.before(
            "fence", "formula_block", _block_formula, {"alt": ["paragraph", "blockquote", "list"]}
        )
    return parser


# ---- rules of the inline parser


def _newline(state: StateInline, silent: bool) -> bool:
    """A line break is a line break, and the next line keeps its indentation."""
    if state.src[state.pos] != "\n":
        return False
    if not silent:
        state.push("softbreak", "br", 0)
    state.pos += 1
    return True


def _escaped(state: StateInline, silent: bool) -> bool:
    """A backslash goes where it protects a sign of Markdown; before anything else it was meant, and stays."""
    if state.src[state.pos] != "\\":
        return False
    following = state.src[state.pos + 1 : state.pos + 2]
    if not following or following not in "`*_#+-.|~<>$\\()[]{}":
        return False
    if not silent:
        state.pending += ("\\" if following in "\\()[]{}" else "") + following
    state.pos += 2
    return True


_DUNDER = re.compile(r"__[a-z0-9]+(?:_[a-z0-9]+)*__(?!\w)")


def _emphasis(state: StateInline, silent: bool) -> bool:
    """Emphasis, but not inside of a word or a product (``2*3*4``, ``x**2``), nor around names like ``__init__``."""
    marker, start = state.src[state.pos], state.pos
    if silent or marker not in "*_":
        return False
    if name := _DUNDER.match(state.src, start):
        state.pending += name[0]
        state.pos = name.end()
        return True
    found = state.scanDelims(start, marker == "*")
    around = state.src[start - 1 : start] + state.src[start + found.length : start + found.length + 1]
    within = len(around) == 2 and around.isascii() and around.isalnum()
    for _ in range(found.length):
        token = state.push("text", "", 0)
        token.content = marker
        state.delimiters.append(
            Delimiter(
                marker=ord(marker),
                length=found.length,
                token=len(state.tokens) - 1,
                end=-1,
                open=found.can_open and not within,
                close=found.can_close,
            )
        )
    state.pos += found.length
    return True


# ---- what the tokens still need

_DIRECTED = frozenset(
    f"{name}_open"
    for name in ("paragraph", "heading", "bullet_list", "ordered_list", "blockquote", "table", "th", "td")
)


def _finish(state: StateCore) -> None:
    """Writing directions, small headings, the written numbers of lists, links that tell their target nothing."""
    for index, token in enumerate(state.tokens):
        if token.type in _DIRECTED and (direction := _direction(_content(state.tokens, index))):
            token.attrSet("dir", direction)
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1]) + 3)}"
        elif token.type == "ordered_list_open" and token.markup == ")":
            token.attrSet("class", "bracket")
        elif token.type == "list_item_open" and token.info:
            token.attrSet("value", token.info)
        for child in token.children or ():
            if child.type == "link_open":
                child.attrs = {"href": child.attrs["href"], "target": "_blank", "rel": "noopener noreferrer"}


def _content(tokens, index: int) -> str:
    """The first text in a block that tells the block's direction; empty without one."""
    for number in range(index + 1, len(tokens)):
        token = tokens[number]
        if token.nesting == -1 and token.level == tokens[index].level:
            return ""
        if token.type == "inline" and _direction(token.content):
            return token.content
    return ""


def _direction(text: str) -> str:
    """ "rtl" or "ltr" by the first letter with a direction; empty without one."""
    for letter in text:
        kind = unicodedata.bidirectional(letter)
        if kind in ("L", "R", "AL"):
            return "ltr" if kind == "L" else "rtl"
    return ""


# ---- formulas


_INLINE = re.compile(
    r"\$\$(?P<a>(?:\\.|[^$\\]){1,2000}?)\$\$|\\\[(?P<b>.{1,2000}?)\\\]|\\\((?P<c>.{1,1000}?)\\\)"
    r"|(?<![\w$\\])\$(?![\s$])(?P<d>(?:\\.|[^$\\`\n]){1,400}?)(?<!\s)\$(?![\w$])",
    re.DOTALL,
)
_WORDS = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3,}")  # that are no command
_MOST_LINES = 100  # of a formula
_BLOCKS = (("$$", "$$"), ("\\[", "\\]"))
_ENVIRONMENT = re.compile(r"\\begin\{((?:equation|align|gather|multline)\*?)\}")


def _inline_formula(state: StateInline, silent: bool) -> bool:
    if state.src[state.pos] not in "$\\" or not (found := _INLINE.match(state.src, state.pos)):
        return False
    if found["d"] and _WORDS.search(found["d"]) and not re.search(r"[\\^_=]", found["d"]):
        return False  # two prices, with words between them
    if not silent:
        token = state.push("formula", "", 0)
        token.content, token.markup = next(filter(None, found.groups())), found[0]
        token.meta = {"display": "block" if found["a"] or found["b"] else "inline"}
    state.pos = found.end()
    return True


def _block_formula(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """A formula that stands on lines of its own; its lines are no lists, quotations or headings."""
    if state.is_code_block(start):
        return False
    first = state.src[state.bMarks[start] + state.tShift[start] : state.eMarks[start]]
    opening, closing = _marks(first)
    if not opening:
        return False
    last = _closing_line(state, closing, start, end, len(opening))
    if last is None:
        return False
    if not silent:
        whole = state.getLines(start, last + 1, state.sCount[start], False).strip()
        token = state.push("formula_block", "", 0)
        token.content = whole if opening.startswith("\\begin") else whole[len(opening) : -len(closing)]
        token.markup, token.meta, token.map = whole, {"display": "block"}, [start, last + 1]
        state.line = last + 1
    return True


def _closing_line(state: StateBlock, closing: str, start: int, end: int, opened: int) -> int | None:
    """The line that ends with the closing mark; the first line does so only after its opening mark."""
    for line in range(start, min(end, start + _MOST_LINES)):
        begin = state.bMarks[line] + state.tShift[line] + (opened if line == start else 0)
        if state.src[begin : state.eMarks[line]].rstrip().endswith(closing):
            return line
    return None


def _marks(line: str) -> tuple[str, str]:
    """The opening and closing marks of a block of TeX that begins on this line; empty for another line."""
    if environment := _ENVIRONMENT.match(line):
        return environment[0], f"\\end{{{environment[1]}}}"
    return next((marks for marks in _BLOCKS if line.startswith(marks[0])), ("", ""))


def _formula(token, tag: str) -> str:
    source = escape(token.markup)
    mathml = _mathml(token.content.strip(), token.meta["display"])
    drawn = f' data-mathml="{escape(mathml)}"' if mathml else ""
    return f'<{tag} class="formula" dir="ltr" title="{source}"{drawn}>{source}</{tag}>'


def _mathml(tex: str, display: str) -> str:
    """MathML without anything that links, loads or runs; empty where the TeX cannot be read."""
    from latex2mathml.converter import convert  # imported here: most studies have no formulas

    try:
        root = ElementTree.fromstring(convert(tex, display=display))
    except Exception:  # the converter raises errors of many kinds; the source is then shown as it was written
        return ""
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        if element.tag not in _MATHML:
            return ""
        element.attrib = {name: value for name, value in element.attrib.items() if name in _MATHML_ATTRIBUTES}
    return ElementTree.tostring(root, encoding="unicode")

"""HTML: the text of a page, as a document. Needs inscriptis.

Indents, columns of tables and styles are left out: a small page could make them of any width.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ...types import Job, Rejection
from ..encoding import Utf8, decoded
from ..errors import NotInstalled, Unfit, one_line
from ..reading import Reading
from ..stream import Stream
from .document import one

try:
    import lxml.etree
    import lxml.html
    from inscriptis.css_profiles import CSS_PROFILES
    from inscriptis.html_engine import Inscriptis
    from inscriptis.html_properties import Display
    from inscriptis.model.config import ParserConfig
    from inscriptis.model.html_element import HtmlElement
    from inscriptis.model.tag import CustomHtmlTagHandlerMapping
except ImportError:
    raise NotInstalled(
        "reading .html needs Python 3.11 and inscriptis:"
        ' pip install "vector-embed-cache-client[html]"'
    ) from None

_BLOCK = {name: HtmlElement(display=Display.block) for name in ("ul", "ol", "tr", "table")}
_CELLS = {name: lambda state, _: state.tags[-1].write(" ") for name in ("td", "th")}
_PLAIN = CustomHtmlTagHandlerMapping(
    {"table": None, "tr": None, **_CELLS}, {"table": None, "td": None, "th": None}
)
_CONFIG = ParserConfig(css=CSS_PROFILES["strict"] | _BLOCK, custom_html_tag_handler_mapping=_PLAIN)
_CHARSET = re.compile(rb"""<meta[^>]{0,200}charset=["']?([\w-]{1,40})""", re.IGNORECASE)


def read(stream: Stream, reading: Reading) -> Iterator[Job | Rejection]:
    """The job or the rejection of the page. Raises CorpusError."""
    return one(stream, Utf8(stream, reading.encoding), reading, _text)


def _text(page: bytes) -> str:
    """The text of a page. Raises Unfit."""
    try:
        said = decoded(page)
    except Unfit:
        charset = _CHARSET.search(page)
        if charset is None:
            raise
        try:
            said = page.decode(charset[1].decode())
        except (LookupError, UnicodeError) as error:
            raise Unfit(f"not in the encoding that it names: {one_line(error)}") from None
    try:
        # Of bytes, so that a declaration of XML does not matter.
        parser = lxml.html.HTMLParser(encoding="utf-8")
        tree = lxml.html.document_fromstring(said.encode(), parser)
        for element in tree.iter(lxml.etree.Element):
            element.attrib.clear()
        return str(Inscriptis(tree, _CONFIG).get_text())
    except (lxml.etree.LxmlError, ValueError, AssertionError, RecursionError) as error:
        raise Unfit(f"no text is found in the page: {one_line(error)}") from None

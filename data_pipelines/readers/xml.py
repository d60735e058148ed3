"""XML files, such as Pascal VOC's annotations, without what makes XML dangerous."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from trustsweep.data_pipelines.problems import BadFile
from trustsweep.data_pipelines.readers.files import checked_size

#: An element takes up to 50 times its text in memory.
MAX_XML_BYTES = 2**22
_MAX_DEPTH = 256


def read_xml(path: Path) -> Element:
    """The root element.

    Raises `BadFile` for a file that is missing, larger than `MAX_XML_BYTES`, not well formed (with
    the line), nested more than 256 deep, or with a document type or entities, which no published
    annotation needs and which can fetch other files or grow without bound.
    """
    from defusedxml import ElementTree
    from defusedxml.common import DefusedXmlException

    checked_size(path, MAX_XML_BYTES)
    try:
        root: Element = ElementTree.fromstring(path.read_bytes(), forbid_dtd=True)
    except ParseError as error:
        line, _ = error.position
        # The error's text may quote the document.
        raise BadFile(path, f"line {line}: not well-formed XML. Correct it.") from None
    except DefusedXmlException as error:
        raise BadFile(
            path, "has a document type or entities, which are not read. Remove them."
        ) from error
    except (ValueError, LookupError) as error:
        raise BadFile(path, "in an encoding that is not known. Convert it to UTF-8.") from error
    if _too_deep(root):
        raise BadFile(path, f"nested more than {_MAX_DEPTH} deep. Is this an annotation?")
    return root


def _too_deep(root: Element) -> bool:
    level = [root]
    for _ in range(_MAX_DEPTH):
        level = [child for element in level for child in element]
        if not level:
            return False
    return True

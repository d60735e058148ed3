"""XML: well-formed trees alone, and nothing that expands or fetches."""

from xml.etree import ElementTree

import pytest

from trustsweep.data_pipelines.problems import BadFile
from trustsweep.data_pipelines.readers.xml import MAX_XML_BYTES, read_xml


def test_real_annotations_agree_with_the_standard_library(real_data):
    files = sorted((real_data / "BCCD_Dataset").rglob("*.xml"))
    assert len(files) == 120
    for file in files:
        oracle = ElementTree.parse(file).getroot()
        assert ElementTree.tostring(read_xml(file)) == ElementTree.tostring(oracle)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "iso-8859-1"])
def test_declared_encodings_are_read(tmp_path, encoding):
    declared = encoding.removesuffix("-sig")
    text = f'<?xml version="1.0" encoding="{declared}"?><a>größer</a>'
    (tmp_path / "a.xml").write_bytes(text.encode(encoding))
    assert read_xml(tmp_path / "a.xml").text == "größer"


LAUGHS = "".join(f'<!ENTITY l{i + 1} "{f"&l{i};" * 10}">' for i in range(9))


@pytest.mark.parametrize(
    "document",
    [
        f'<!DOCTYPE a [<!ENTITY l0 "ha">{LAUGHS}]><a>&l9;</a>',
        '<!DOCTYPE a [<!ENTITY file SYSTEM "file:///etc/hostname">]><a>&file;</a>',
        '<!DOCTYPE a SYSTEM "http://localhost:9/a.dtd"><a/>',
        '<!DOCTYPE a [<!ENTITY % b "c"> %b;]><a/>',
        "<!DOCTYPE a><a/>",
    ],
)
def test_document_types_and_entities_are_refused(tmp_path, document):
    (tmp_path / "a.xml").write_text(document)
    with pytest.raises(BadFile, match="a document type or entities"):
        read_xml(tmp_path / "a.xml")


@pytest.mark.parametrize(
    ("document", "line"), [("<a>\n<b>\n</a>", 3), ("<a>\n", 2), ("text", 1), ("<a/>\n<b/>", 2)]
)
def test_the_line_of_a_mistake_is_named(tmp_path, document, line):
    (tmp_path / "a.xml").write_text(document)
    with pytest.raises(BadFile, match=f"line {line}: not well-formed XML"):
        read_xml(tmp_path / "a.xml")


def test_messages_quote_no_content(tmp_path):
    (tmp_path / "a.xml").write_text("<a>&SecretName;</a>")
    with pytest.raises(BadFile) as raised:
        read_xml(tmp_path / "a.xml")
    assert "Secret" not in str(raised.value)


def test_unknown_encodings_are_named(tmp_path):
    (tmp_path / "a.xml").write_text('<?xml version="1.0" encoding="klingon"?><a/>')
    with pytest.raises(BadFile, match=r"encoding|not well-formed"):
        read_xml(tmp_path / "a.xml")


@pytest.mark.parametrize(("depth", "accepted"), [(200, True), (257, False), (200_000, False)])
def test_depth_is_bounded(tmp_path, depth, accepted):
    (tmp_path / "a.xml").write_text("<a>" * depth + "</a>" * depth)
    if accepted:
        assert sum(1 for _ in read_xml(tmp_path / "a.xml").iter()) == depth
        return
    with pytest.raises(BadFile, match="nested more than 256 deep"):
        read_xml(tmp_path / "a.xml")


def test_large_and_missing_files_are_not_read(tmp_path):
    (tmp_path / "a.xml").write_bytes(b"<a>" + b" " * MAX_XML_BYTES + b"</a>")
    with pytest.raises(BadFile, match="larger than 4,194,304 bytes"):
        read_xml(tmp_path / "a.xml")
    with pytest.raises(BadFile, match="no such file"):
        read_xml(tmp_path / "none.xml")

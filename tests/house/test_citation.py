"CITATION.cff says what settings.ini and references.bib say."
import re

import pytest
import yaml
from conftest import ROOT
from nbrun import settings

CFF = yaml.safe_load((ROOT/"CITATION.cff").read_text(encoding="utf-8"))
BIB = (ROOT/"nbs/references.bib").read_text(encoding="utf-8")

def field(entry, name): return re.search(rf"{name}\s*=\s*\{{(.*)\}}", re.search(rf"@\w+\{{{entry},(.*?)^\}}", BIB, re.S | re.M)[1])[1]

def test_the_work():
    assert CFF["cff-version"] == "1.2.0" and CFF["message"] and CFF["type"] == "software"
    assert (str(CFF["version"]), CFF["repository-code"], CFF["authors"][0]["name"]) == tuple(settings()[k] for k in ("version", "git_url", "author"))
    assert CFF["license"] == "Apache-2.0" and "Apache License" in (ROOT/"LICENSE").read_text()

@pytest.mark.parametrize("i,entry", [(0, "gen2gen"), (1, "rethinking")])
def test_the_papers(i, entry):
    paper = CFF["references"][i]
    assert " and ".join(f"{o['family-names']}, {o['given-names']}" for o in paper["authors"]) == field(entry, "author")
    assert (paper["title"], str(paper["year"]), paper["url"]) == tuple(field(entry, k) for k in ("title", "year", "url"))
    assert paper["identifiers"][0]["value"] == field(entry, "journal")

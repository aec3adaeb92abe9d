"The page of troubles quotes messages that the library has, and the log of situations names tests that are there."
import ast, re

import nbformat
import pytest
from conftest import ROOT

def rows(page):
    "First columns of the page's tables of messages, and all text"
    return "\n".join(c.source for c in nbformat.read(ROOT/"nbs"/page, 4).cells if c.cell_type == "markdown")

def literals():
    "Every string of the library, with parts that are filled in as …"
    found = []
    for f in (ROOT/"gen2gen").glob("*.py"):
        for node in ast.walk(ast.parse(f.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr): found.append("".join(o.value if isinstance(o, ast.Constant) else "…" for o in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str): found.append(node.value)
    return "\n".join(found)

SAID = literals()
MESSAGES = [m for line in rows("98_troubles.ipynb").splitlines() if re.match(r"\| `", line) for m in re.findall(r"`([^`]*…[^`]*)`", line.split(" | ")[0])]

@pytest.mark.parametrize("message", MESSAGES)
def test_the_message_exists(message):
    "Each part between two … stands in a string of the library"
    for part in filter(None, (o.strip() for o in message.split("…"))): assert part in SAID, part

def test_there_are_messages(): assert len(MESSAGES) > 30

def test_the_tests_of_the_log_exist():
    there = {m for f in (ROOT/"tests").rglob("test_*.py") for m in re.findall(r"^def (test_\w+)", f.read_text(encoding="utf-8"), re.M)}
    assert set(re.findall(r"`(test_\w+)`", rows("99_situations.ipynb"))) - there == set()

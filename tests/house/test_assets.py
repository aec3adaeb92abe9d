"Script and style of the player: files that parse, that can stand in a page, and that a person can read."
import re, shutil, subprocess
import pytest
from conftest import ROOT

FILES = sorted((ROOT/'gen2gen/assets').iterdir())
SCRIPTS = [f for f in FILES if f.suffix == '.js']

def test_they_are_there():
    assert [f.name for f in FILES] == ['navigator.css', 'navigator.js', 'player.css', 'player.js']

@pytest.mark.parametrize('path', SCRIPTS, ids=lambda p: p.name)
def test_scripts_parse(path):
    if shutil.which('node') is None: pytest.skip('no node on PATH')
    done = subprocess.run(['node', '--check', path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

@pytest.mark.parametrize('path', FILES, ids=lambda p: p.name)
def test_they_stand_in_a_page(path):
    "Nothing closes the tag around them, nothing is fetched"
    assert not re.search(r'</(?:script|style)|https?://|@import|url\(', path.read_text(encoding='utf-8'))

@pytest.mark.parametrize('path', FILES, ids=lambda p: p.name)
def test_lines_are_short(path):
    assert [i for i, line in enumerate(path.read_text(encoding='utf-8').splitlines(), 1) if len(line) > 110] == []

"""Run the notebooks through papermill, honouring nbdev's directives.

As a command, `python tests/nbrun.py [--slow] [NOTEBOOK...]` executes notebooks in place, so that their stored outputs are current;
with `--slow` also the cells that measure."""
import re, sys, tempfile
from configparser import ConfigParser
from pathlib import Path
import nbformat, papermill

ROOT = Path(__file__).resolve().parents[1]

def settings():
    "The project's settings.ini"
    ini = ConfigParser(delimiters=['='])
    ini.read(ROOT/'settings.ini', encoding='utf-8')
    return ini['DEFAULT']

def notebooks():
    "Every notebook that is published"
    return sorted(p for p in (ROOT/'nbs').rglob('*.ipynb') if not any(part[0] in '_.' for part in p.relative_to(ROOT/'nbs').parts))

def directives(source):
    "The `#|` lines at the head of a cell, as a dict"
    found = {}
    for line in filter(str.strip, source.splitlines()):
        m = re.match(r'#\s*\|\s*(\S+?):?(?:\s+(.*))?$', line)
        if not m: break
        found[m[1]] = (m[2] or '').strip()
    return found

def skipped(cell, but=()):
    "Whether nbdev would not run this cell in a test, for another reason than the flags in `but`"
    d = directives(cell.source)
    return cell.cell_type == 'code' and (d.get('eval', '').lower() == 'false' or bool(d.keys() & set(settings()['tst_flags'].split())-set(but)))

def run(path, out, params=None, timeout=900, but=()):
    "Execute the notebook `path` into the file `out`; cells that nbdev skips are left out"
    nb = nbformat.read(path, 4)
    for cell in (c for c in nb.cells if skipped(c, but)): cell.metadata['tags'] = [*cell.metadata.get('tags', []), 'skip-execution']
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)/path.name  # papermill copies a notebook given as an object into the output's metadata, but not one given as a path
        nbformat.write(nb, copy)
        return papermill.execute_notebook(copy, out, parameters=params or {}, cwd=path.parent, kernel_name='python3', progress_bar=False,
                                          request_save_on_cell_execute=False, execution_timeout=timeout)

def refresh(path, but=()):
    "Execute a notebook in place with its own parameters; cells that nbdev skips keep their outputs"
    nb = nbformat.read(path, 4)
    with tempfile.TemporaryDirectory() as folder: fresh = run(path, Path(folder)/path.name, timeout=None, but=but)
    for cell, new in zip(nb.cells, fresh.cells, strict=True):
        if cell.cell_type == 'code' and not skipped(cell, but): cell.outputs, cell.execution_count = new.outputs, new.execution_count
    nbformat.write(nb, path)

if __name__ == '__main__':
    paths = [a for a in sys.argv[1:] if a != '--slow']
    for path in map(Path, paths or notebooks()):
        print(path.name, flush=True)
        refresh(path.resolve(), ('slow',) if '--slow' in sys.argv else ())

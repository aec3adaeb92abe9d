"""Run the notebooks through papermill, honouring nbdev's directives.

    python tests/nbrun.py [NOTEBOOK...]          # execute in place, so that stored outputs are current
    python tests/nbrun.py --slow [NOTEBOOK...]   # with the cells that measure
    python tests/nbrun.py --once [NOTEBOOK...]   # execute nothing, only store each picture once"""
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
    def hidden(path): return any(part[0] in '_.' for part in path.relative_to(ROOT/'nbs').parts)
    return sorted(p for p in (ROOT/'nbs').rglob('*.ipynb') if not hidden(p))

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
    if cell.cell_type != 'code': return False
    found, flags = directives(cell.source), {*settings()['tst_flags'].split()}-{*but}
    return found.get('eval', '').lower() == 'false' or bool(found.keys() & flags)

def run(path, out, params=None, timeout=900, but=()):
    "Execute the notebook `path` into the file `out`; cells that nbdev skips are left out"
    nb = nbformat.read(path, 4)
    for cell in nb.cells:
        if skipped(cell, but): cell.metadata['tags'] = [*cell.metadata.get('tags', []), 'skip-execution']
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)/path.name  # papermill copies a notebook given as an object into the output's metadata
        nbformat.write(nb, copy)
        return papermill.execute_notebook(
            copy, out, parameters=params or {}, cwd=path.parent, kernel_name='python3', progress_bar=False,
            request_save_on_cell_execute=False, execution_timeout=timeout)

def store_once(nb):
    "Keep one form of each picture: IPython stores Pillow's twice, as PNG and as JPEG"
    for output in (o for c in nb.cells for o in c.get('outputs', [])):
        data = output.get('data', {})
        if not data.keys() >= {'image/png', 'image/jpeg'}: continue
        # JPEG saves much on photographs. On flat colours and thin lines it saves little, and it blurs them.
        photograph = len(data['image/png']) > max(30_000, 2*len(data['image/jpeg']))
        del data['image/png' if photograph else 'image/jpeg']
    return nb

def refresh(path, but=()):
    "Execute a notebook in place with its own parameters; cells that nbdev skips keep their outputs"
    nb = nbformat.read(path, 4)
    with tempfile.TemporaryDirectory() as folder: fresh = run(path, Path(folder)/path.name, timeout=None, but=but)
    for cell, new in zip(nb.cells, fresh.cells, strict=True):
        if cell.cell_type != 'code' or skipped(cell, but): continue
        cell.outputs, cell.execution_count = new.outputs, new.execution_count
    nbformat.write(store_once(nb), path)

def main(*args):
    "The command"
    options = {a for a in args if a.startswith('--')}
    for path in map(Path, [a for a in args if a not in options] or notebooks()):
        print(path.name, flush=True)
        if '--once' in options: nbformat.write(store_once(nbformat.read(path, 4)), path)
        else: refresh(path.resolve(), ('slow',) if '--slow' in options else ())

if __name__ == '__main__': main(*sys.argv[1:])

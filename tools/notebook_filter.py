"""A notebook in, the notebook of its page out: JSON on standard input and output, as Quarto's `ipynb-filters` want it.

nbdev's own filter does the work. What follows it undoes one flaw: nbdev turns backticked names into links, even inside
the code of a signature, where a link is noise.

    python tools/notebook_filter.py < nbs/01_pairs.ipynb   # one notebook
    python tools/notebook_filter.py --many < LIST          # many; a line is a notebook, a tab, the file to write"""
import importlib, json, os, re, sys
from contextlib import redirect_stdout
from pathlib import Path
from nbdev.cli import nbdev_filter

CODE = re.compile(r'^(`{3,}|~{3,})[^\n]*\n.*?^\1[ \t]*$|`[^`\n]+`', re.M | re.S)
HEAVY = 'torch diffusers peft accelerate pandas matplotlib.pyplot skimage torchmetrics transformers ipywidgets'.split()

def plain_signatures(
    cell: dict, # A filtered cell, changed in place
) -> None:
    "Undo links inside the code of Markdown outputs"
    def unlinked(code): return re.sub(r'\[`([^`]+)`\]\(http[^)]*\)', r'\1', code[0])
    for output in cell.get('outputs', []):
        data = output.get('data', {})
        if 'text/markdown' in data: data['text/markdown'] = [CODE.sub(unlinked, ''.join(data['text/markdown']))]

def filter_notebook(
    text: str, # A notebook's JSON
) -> str: # The JSON of its page
    "Run nbdev's filter and mend its signatures; what the filter prints is dropped"
    with open(os.devnull, 'w', encoding='utf-8') as nowhere, redirect_stdout(nowhere):
        nb = json.loads(nbdev_filter(text, printit=False))
    for cell in nb['cells']: plain_signatures(cell)
    return json.dumps(nb, ensure_ascii=False)

def write_whole(
    path: Path, # Where to write
    text: str, # What
) -> None:
    "Write a file under another name first, so that it is never seen half"
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f'.{os.getpid()}')
    part.write_text(text, encoding='utf-8')
    part.replace(path)

def filter_many(
    todo: list, # Pairs: a notebook, the file to write
) -> None:
    "Filter many notebooks, each in a fork of one process that has imported what is slow to import"
    for name in HEAVY:
        try: importlib.import_module(name)
        except ImportError: pass
    for nb, out in todo:
        if os.fork(): os.wait()
        else:
            os.chdir(Path(nb).parent)
            write_whole(Path(out), filter_notebook(Path(nb).read_text(encoding='utf-8')))
            os._exit(0)  # the parent's buffers are not this process's to flush

if __name__ == '__main__':
    told = sys.stdin.read()
    if '--many' in sys.argv: filter_many([line.split('\t') for line in told.splitlines()])
    else: print(filter_notebook(told))

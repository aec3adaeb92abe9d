"The rules of the house: what a notebook looks like, and what the repository may hold."
import ast, io, os, re, subprocess, sys, tokenize
import nbformat, pytest
from conftest import ROOT
from nbrun import directives, notebooks

MB = 1 << 20
CAPTION = re.compile(r'#\s*\|\s*(?:fig|tbl)-(?:cap|alt)')
STRINGS = {tokenize.STRING, getattr(tokenize, 'FSTRING_MIDDLE', tokenize.STRING)}
WIDGET = 'application/vnd.jupyter.widget-view+json'
per_notebook = pytest.mark.parametrize('path', notebooks(), ids=lambda p: p.name)
def read(path): return nbformat.read(path, 4)

def tracked(*globs):
    "Files that git holds or would take"
    listed = subprocess.run(['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard', *globs], cwd=ROOT,
                            capture_output=True, text=True, check=True).stdout
    return [ROOT/f for f in listed.split('\0') if f and (ROOT/f).is_file()]

def code_cells(nb): return [c for c in nb.cells if c.cell_type == 'code']
def exported(cell): return bool({'export', 'exporti', 'exports'} & directives(cell.source).keys())
def tree(cell):
    "The cell's syntax; magics and shell lines count as nothing"
    return ast.parse('\n'.join('pass' if l.lstrip()[:1] in ('%', '!') else l for l in cell.source.splitlines()))
def imports(node): return isinstance(node, (ast.Import, ast.ImportFrom))
def only_imports(cell): return bool(tree(cell).body) and all(map(imports, tree(cell).body))
def asserts(cell):
    calls = {n.func.id for n in ast.walk(tree(cell)) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    return any(isinstance(n, ast.Assert) for n in ast.walk(tree(cell))) or any(c.startswith('test_') for c in calls)
def drawn(cell):
    "Whether a picture is stored in the cell, and whether something that a page shows in a picture's place is"
    kinds = {mime for o in cell.outputs for mime in o.get('data', {})}
    return any(k.startswith('image/') for k in kinds), bool(kinds & {'text/html', 'text/markdown', WIDGET})

@per_notebook
def test_order(path):
    "Raw cell with the page's name, title with one line of description, module name, imports"
    nb = read(path)
    first, title = nb.cells[:2]
    assert first.cell_type == 'raw' and (path.name == 'index.ipynb' or 'output-file: ' in first.source)
    headed = title.cell_type == 'markdown' and re.match(r'# [^\n]+\n\n> [^\n]+', title.source)
    assert headed, 'the second cell is "# Title" and a "> description"'
    flags = [directives(c.source) for c in code_cells(nb)]
    if any(map(exported, code_cells(nb))): assert 'default_exp' in flags[0], 'the first code cell names the module'
    tags = [c for c in nb.cells if 'parameters' in c.metadata.get('tags', [])]
    assert len(tags) <= 1 and not any(map(exported, tags)), 'one parameters cell at most, and not an exported one'
    assert nb.metadata.get('kernelspec', {}).get('name') == 'python3'

@per_notebook
def test_imports_stand_alone(path):
    "nbdev's filter runs every cell that imports: it holds nothing else. An exported function may import"
    for c in code_cells(read(path)):
        nodes = tree(c).body if exported(c) else list(ast.walk(tree(c)))
        if any(map(imports, nodes)): assert only_imports(c), f'imports and other code in one cell:\n{c.source}'

@per_notebook
def test_exports_are_asserted(path):
    "Within three cells of an exported definition something is asserted"
    cells = code_cells(read(path))
    for i, c in enumerate(cells):
        defines = [n for n in tree(c).body if isinstance(n, (ast.FunctionDef, ast.ClassDef))]
        if not exported(c) or not any(not n.name.startswith('_') for n in defines): continue
        nearby = [d for d in cells[i+1:] if not exported(d)][:3]
        assert any(map(asserts, nearby)), f'nothing asserts {defines[0].name} within three cells'

@per_notebook
def test_exports_are_documented(path):
    "Public functions have a docstring of one line and a comment for each parameter; a family comments shared ones once"
    commented = {'self', 'cls'}
    for c in filter(exported, code_cells(read(path))):
        for f in (n for n in tree(c).body if isinstance(n, ast.FunctionDef) and not n.name.startswith('_')):
            doc = ast.get_docstring(f)
            assert doc and '\n' not in doc, f'{f.name} needs a docstring of one line'
            for a in [*f.args.args, *f.args.kwonlyargs]:
                if '#' in c.source.splitlines()[a.lineno-1]: commented.add(a.arg)
                assert a.arg in commented, f'{f.name}: the parameter {a.arg} needs a comment'

@per_notebook
def test_lines(path):
    "Lines of code are at most 120 characters wide, but for text, and exported cells have one statement a line"
    for c in code_cells(read(path)):
        source = '\n'.join('pass' if l.lstrip()[:1] in ('%', '!') else l for l in c.source.splitlines())
        tokens = [*tokenize.generate_tokens(io.StringIO(source).readline)]
        spans = [range(t.start[0], t.end[0]+1) for t in tokens if t.type in STRINGS and t.start[0] < t.end[0]]
        text = {n for span in spans for n in span}
        lines = [(n, l) for n, l in enumerate(source.splitlines(), 1) if len(l) > 120 and not CAPTION.match(l)]
        wide = [l for n, l in lines if n not in text]
        assert not wide, f'wider than 120 characters: {wide[0]}'
        semicolon = (tokenize.OP, ';') in {t[:2] for t in tokens}
        assert not (exported(c) and semicolon), f'two statements on one line:\n{source}'

@per_notebook
def test_figures(path):
    "Every picture has a label and a caption and is cited in the text; every reference has its label"
    nb = read(path)
    text = '\n'.join(c.source for c in nb.cells if c.cell_type == 'markdown')
    text = re.sub(r'`[^`\n]+`|^```.*?^```', '', text, flags=re.M | re.S)
    cited, labels = set(re.findall(r'@(fig-[\w-]+)', text)), re.findall(r'\{[^}\n]*#(fig-[\w-]+)', text)
    for c in code_cells(nb):
        d, (picture, page) = directives(c.source), drawn(c)
        named = d.get('label', '').startswith('fig-')
        if named: labels.append(d['label'])
        if named: assert picture or page, f'a label, and nothing drawn under it:\n{c.source}'
        if picture and 'hide' not in d:
            assert named and d.get('fig-cap'), f'a picture without label or caption:\n{c.source}'
    assert len(labels) == len(set(labels)), f'a label stands twice: {sorted(labels)}'
    assert cited == set(labels), f'cited but absent: {cited - set(labels)}; never cited: {set(labels) - cited}'

@per_notebook
def test_outputs(path):
    "Stored outputs hold no error, no warning, no path of a machine"
    nb = read(path)
    assert path.stat().st_size <= MB, 'a notebook of over 1 MB'
    for c in code_cells(nb):
        for o in c.outputs:
            assert o.output_type != 'error', f'a stored error:\n{c.source}'
            assert o.get('name') != 'stderr' or 'Warning' not in o.text, f'a stored warning:\n{o.text}'
            forms = [mime for mime in o.get('data', {}) if mime.startswith('image/')]
            assert len(forms) <= 1, f'a picture stored as {forms}: run python tests/nbrun.py --once {path.name}'

def test_weights_and_media_are_small():
    sizes = {f.relative_to(ROOT): f.stat().st_size for f in tracked()}
    assert {str(f): s for f, s in sizes.items() if s > (20 if f.suffix == '.safetensors' else 2)*MB} == {}
    assert sum(s for f, s in sizes.items() if f.parts[0] == 'nbs') <= 30*MB

def test_no_paths_and_no_stubs():
    "Nothing names a folder of the machine it was written on, and nothing is left to be done"
    path = re.compile(r'/(?:ho' r'me|ro' r'ot|wo' r'rk|opt|Users)/[\w.-]+|/tm' r'p/\w')
    stub = re.compile(r'\b(?:TO' r'DO|FIX' r'ME|XX' r'X|NotImplemented' r'Error)\b')
    written = [f'*.{suffix}' for suffix in 'py ipynb md yml yaml ini toml css js svg json csv'.split()]
    for f in tracked(*written, 'Makefile', '.ci/run'):
        text = re.sub(r'"image/\w+": "[^"]*"', '', f.read_text(encoding='utf-8'))
        found = [m[0] for m in (*path.finditer(text), *stub.finditer(text))]
        assert not found, f'{f.relative_to(ROOT)}: {found[:3]}'

def test_pages_have_addresses_of_their_own():
    "Two pages with one output file would overwrite each other"
    addresses = [re.search(r'output-file: (\S+)', read(path).cells[0].source) for path in notebooks()]
    addresses = [found[1] for found in addresses if found]
    assert len(addresses) == len(set(addresses)), sorted(addresses)

def test_no_notebook_is_forgotten():
    "The site's sidebar lists every notebook, and nothing that does not exist"
    listed = re.findall(r'nbs/[\w-]+\.ipynb', (ROOT/'_quarto.yml').read_text().split('contents:', 1)[1])
    assert sorted(listed) == sorted(str(p.relative_to(ROOT)) for p in notebooks())

def test_ruff():
    "What ruff can check: pyproject.toml says which rules, and which files do not keep them yet"
    try: import ruff
    except ImportError: (pytest.fail if os.environ.get('CI') else pytest.skip)('no ruff: pip install ruff')
    folders = ['gen2gen', 'tests', 'tools', 'setup.py']
    command = [sys.executable, '-m', ruff.__name__, 'check', '--no-cache', '--output-format', 'concise', *folders]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]

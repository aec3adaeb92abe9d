"""The documentation site and the README, made from the notebooks.

    python tools/docs.py site              # into `output-dir` of _quarto.yml
    python tools/docs.py readme [--check]  # README.md from nbs/index.ipynb

Quarto publishes the notebooks. It needs a binary of its own, which you need not install to write documentation or
to test it: this tool reads the same `_quarto.yml`, runs the same notebook filter, understands the part of Quarto's
Markdown that the notebooks use, and leaves the layout to smalldocs. What it makes needs no network: formulas become
MathML, and no font or script is fetched.

| step | function | what leaves it |
|---|---|---|
| filter | `filtered` | the notebook with hidden cells gone and API tables in |
| captions, numbers, citations | `captioned`, `crossref`, `cite` | Markdown in which every reference is a link |
| stage | `stage` | a small project under `_proc/` that holds only Markdown |
| lay out | smalldocs | HTML |
| finish | `finish` | HTML with MathML, and nothing that asks another machine |"""
import base64, hashlib, html, json, os, re, shlex, shutil, subprocess, sys, tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import typer, yaml
from notebook_filter import write_whole
from references import cite, crossref, prose, read_bib

FILTER = Path(__file__).with_name('notebook_filter.py')
PICTURES = {'image/png': 'png', 'image/jpeg': 'jpg', 'image/svg+xml': 'svg', 'image/gif': 'gif'} # and their suffixes
WIDGET = 'application/vnd.jupyter.widget-view+json'
REDIRECT = ('<!doctype html><title>gen2gen</title><meta http-equiv="refresh" content="0; url=nbs/index.html">'
            '<a href="nbs/index.html">gen2gen</a>')

# ---- The filter. It takes seconds a page, and what it makes depends on few files: it is kept under their hash.

def digest(
    nb: Path, # A notebook of the project
    root: Path, # The project's folder
) -> str: # 16 hexadecimal digits
    "What a filtered notebook depends on: itself, the exported modules, the settings, the filter"
    files = [nb, root/'settings.ini', root/'_quarto.yml', FILTER, *sorted((root/'gen2gen').glob('*.py'))]
    return hashlib.sha256(b'\0'.join(f.read_bytes() for f in files if f.exists())).hexdigest()[:16]

def kept_at(
    nb: Path, # A notebook of the project
    root: Path, # The project's folder
) -> Path: # A file under `_proc/cache`
    "Where the filtered notebook is kept"
    return root/'_proc/cache'/f'{nb.stem}-{digest(nb, root)}.json'

def joined(
    text: str, # A notebook's JSON
) -> dict: # The notebook
    "Read a notebook, each source one string: a file may hold it as a list of lines"
    nb = json.loads(text)
    for cell in nb['cells']: cell['source'] = ''.join(cell['source'])
    return nb

def filtered(
    nb: Path, # A notebook of the project
    root: Path, # The project's folder, where `_proc/cache` keeps results
    filters: list = (str(FILTER),), # Commands, in order; RuntimeError with the command's own words if one fails
) -> dict: # The notebook after Quarto's `ipynb-filters`
    "Run the notebook filters on one notebook as Quarto does: from its folder, a `.py` file with Python"
    if (kept := kept_at(nb, root)).exists(): return joined(kept.read_text(encoding='utf-8'))
    text, path = nb.read_text(encoding='utf-8'), os.pathsep.join([str(Path(sys.executable).parent), os.environ['PATH']])
    for command in filters:
        words = shlex.split(command)
        if words[0].endswith('.py'): words = [sys.executable, *words]
        done = subprocess.run(words, input=text, cwd=nb.parent, capture_output=True, text=True, check=False,
                              env={**os.environ, 'IN_TEST': '1', 'PATH': path})
        if done.returncode: raise RuntimeError(f'{command} failed on {nb.name}:\n{done.stderr[-2000:]}')
        text = done.stdout
    write_whole(kept, text)
    return joined(text)

def prefilter(
    nbs: list, # Notebooks of the project
    root: Path, # The project's folder, where `_proc/cache` keeps results
) -> None:
    "Fill the cache of `filtered` for many notebooks; one that fails is left to `filtered`, which says why"
    todo = [f'{nb}\t{kept}' for nb in nbs if not (kept := kept_at(nb, root)).exists()]
    if not todo: return
    subprocess.run([sys.executable, str(FILTER), '--many'], input='\n'.join(todo), text=True, cwd=root, check=False,
                   stderr=subprocess.DEVNULL, env={**os.environ, 'IN_TEST': '1'})

# ---- A notebook becomes one page of Markdown.

def option(
    cell: dict, # Of a notebook
    name: str, # Such as `label`
) -> str | None: # Its value, without quotes
    "The value of a cell's `#|` option"
    found = re.search(rf'^#\| *{name}: *["\']?(.*?)["\']? *$', cell['source'], re.M)
    return found[1] if found else None

def inline(
    data: dict, # An output of a cell
) -> str | None: # HTML
    "A drawn picture as an `<img>` that holds it"
    for mime in ('image/png', 'image/jpeg'):
        if mime in data:
            encoded = ''.join(data[mime]).strip()
            return f'<img class="img-fluid" src="data:{mime};base64,{encoded}">'
    return None

def captioned(
    nb: dict, # A filtered notebook
) -> dict: # The same object, changed
    "Caption HTML outputs as Quarto does, and drop outputs that need a kernel"
    for cell in (c for c in nb['cells'] if c['cell_type'] == 'code'):
        cell['outputs'] = [o for o in cell['outputs'] if WIDGET not in o.get('data', {})]
        shown = [o['data'] for o in cell['outputs'] if 'data' in o]
        pictures = [d for d in shown if PICTURES.keys() & d.keys()]
        pages = [d for d in shown if 'text/html' in d]
        for data in pictures[:-1]: # of several pictures, smalldocs would caption each
            if image := inline(data): data['text/html'] = image
        if (caption := option(cell, 'fig-cap')) and pages and not pictures:
            body, caption = ''.join(pages[-1]['text/html']), html.escape(caption)
            pages[-1]['text/html'] = f'<figure class="figure">{body}<figcaption>{caption}</figcaption></figure>'
    return nb

def page(
    nb: dict, # A filtered notebook
    bib: dict, # From `read_bib`
) -> tuple: # Front matter, and Markdown with every reference resolved
    "Turn a notebook into one page"
    from smalldocs.notebook import to_markdown
    front, body = to_markdown(json.dumps(captioned(nb)))
    # The first heading is the title. Left in the text it would take the anchor of a class of the same name.
    if m := re.match(r'\s*# ([^\n]+)\n', body): front, body = {**front, 'title': m[1].strip()}, body[m.end():]
    return front, cite(crossref(body), bib)

# ---- smalldocs builds what lies in a folder, so the pages are written into one. Whatever it warns about is a fault.

def rename(
    text: str, # Markdown or YAML that names notebooks
    names: dict, # Notebook's file name -> page's file name without its suffix
    site: str, # Address of the published pages; links to it become local
) -> str: # The same with pages in the place of notebooks
    "Point links at pages"
    text = re.sub(r'\b([\w-]+\.ipynb)\b', lambda m: names[m[1]] + '.qmd' if m[1] in names else m[0], text)
    return text.replace(site, '')

def staged_config(
    text: str, # `_quarto.yml`, its notebooks already renamed
    out: Path, # Where the site goes
) -> dict: # Configuration of the staged project
    "What smalldocs is told: everything but what belongs to the notebooks"
    config = yaml.safe_load(text)
    for key in ('ipynb-filters', 'execute', 'bibliography'): config.pop(key, None)
    config['format']['html'].pop('html-math-method', None)
    config['project'].update({'output-dir': str(out), 'render': ['nbs/*.qmd']})
    return config

def pages_of(
    root: Path, # The project's folder
    quarto: dict, # `_quarto.yml`
) -> dict: # File name of a notebook -> front matter and Markdown
    "Every notebook as a page; those that are not in the cache are filtered side by side"
    sources = sorted(p for p in (root/'nbs').glob('*.ipynb') if p.name[0] not in '_.')
    filters = quarto['ipynb-filters']
    if [Path(f).name for f in filters] == [FILTER.name]: prefilter(sources, root)
    with ThreadPoolExecutor(os.cpu_count()) as pool: nbs = [*pool.map(lambda p: filtered(p, root, filters), sources)]
    bib, pages = read_bib(root/quarto['bibliography']), {}
    for source, nb in zip(sources, nbs, strict=True):
        try: pages[source.name] = page(nb, bib)
        except ValueError as e: raise ValueError(f'{source.name}: {e}') from None
    return pages

def stage(
    root: Path, # The project's folder
    out: Path, # Where the site goes
    to: Path, # Where the staged project goes, an empty folder
) -> None:
    "Write the project as Markdown pages that need no notebook, filter or bibliography"
    text = (root/'_quarto.yml').read_text(encoding='utf-8')
    quarto = yaml.safe_load(text)
    pages = pages_of(root, quarto)
    names = {source: Path(front.get('output-file', Path(source).stem)).stem for source, (front, _) in pages.items()}
    site = quarto['website'].get('site-url', '').rstrip('/') + '/nbs/'
    shutil.copytree(root/'nbs', to/'nbs', ignore=shutil.ignore_patterns('*.ipynb', '.*', '_*'))
    for source, (front, body) in pages.items():
        kept = {k: v for k, v in front.items() if k not in ('output-file', 'aliases')}
        head = f'---\n{yaml.safe_dump(kept)}---\n\n' if kept else ''
        body = prose(lambda s: rename(s, names, site), body)
        (to/'nbs'/f'{names[source]}.qmd').write_text(head + body, encoding='utf-8')
    (to/'_quarto.yml').write_text(yaml.safe_dump(staged_config(rename(text, names, site), out)), encoding='utf-8')

# ---- The site.

def mathml(
    text: str, # A page's HTML, formulas as TeX in `<span class="math …">`, or in `$…$` inside captions
) -> str: # HTML with formulas as MathML
    "Replace TeX by MathML, which browsers lay out without a script"
    from latex2mathml.converter import convert
    def span(m): return convert(html.unescape(m[2]), display='block' if m[1] == 'display' else 'inline')
    def caption(m):
        tex = re.sub(r'\$([^$]+)\$', lambda t: convert(html.unescape(t[1])), m[0])
        return re.sub(r'`([^`]+)`', r'<code>\1</code>', tex)
    text = re.sub(r'<span class="math (inline|display)">\\[(\[](.*?)\\[)\]]</span>', span, text, flags=re.S)
    text = re.sub(r'<figcaption>.*?</figcaption>', caption, text, flags=re.S)
    return re.sub(r'<(link|script)[^>]*/npm/katex[^>]*>(</script>)?', '', text)

def finish(
    out: Path, # A built site, changed in place
) -> None:
    "Formulas to MathML, no web fonts, and a way from the root to the first page"
    for p in out.rglob('*.html'): p.write_text(mathml(p.read_text(encoding='utf-8')), encoding='utf-8')
    for p in out.glob('site_libs/themes/*.css'):
        plain = re.sub(r'@import\s*(?:url\([^)]*\)|"[^"]*")[^;]*;', '', p.read_text(encoding='utf-8'))
        p.write_text(plain, encoding='utf-8')
    (out/'index.html').write_text(REDIRECT, encoding='utf-8')

def build(
    root: Path = Path('.'), # The project's folder, with `_quarto.yml` and `nbs/`
    out: Path | None = None, # Where the site goes; default: `output-dir` of `_quarto.yml`, where Quarto would put it
) -> int: # Number of pages; ValueError that lists what smalldocs warned of
    "Build the site; builds may run at the same time, for each stages in a folder of its own"
    from smalldocs.config import load
    from smalldocs.site import Site
    root = Path(root).resolve()
    quarto = yaml.safe_load((root/'_quarto.yml').read_text(encoding='utf-8'))
    out = Path(out or root/quarto['project']['output-dir']).resolve()
    (root/'_proc').mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix='site-', dir=root/'_proc') as staged:
        stage(root, out, Path(staged))
        site = Site(load(Path(staged)), quiet=True)
        pages = site.build()
    if site.warnings: raise ValueError('\n'.join(['the site has faults:', *site.warnings]))
    finish(out)
    return pages

# ---- The README is `index.ipynb` for a reader on a code host.

def github(
    text: str, # Quarto's Markdown, from a notebook in `nbs/`
) -> str: # GitHub's Markdown, for a file beside `nbs/`
    "Rewrite what GitHub reads otherwise: callouts, captions, references, and where files lie"
    def alert(m):
        quoted = [f'> {line}'.rstrip() for line in m[2].strip().splitlines()]
        return '\n'.join([f'> [!{m[1].upper()}]', *quoted])
    text = re.sub(r'^:{3,} *\{\.callout-(\w+)[^}]*\}\n(.*?)^:{3,}$', alert, text, flags=re.M | re.S)
    text = re.sub(r'!\[(Figure \d+: [^\]]*)\](\([^)]*\))\{[^}]*\}', r'![\1]\2\n\n*\1*', text)
    text = re.sub(r'\[((?:Figure|Table|Equation)\xa0\d+)\]\(#[^)]*\)', r'\1', text)
    text = re.sub(r'^(:{3,}.*|\[\(\d+\)\]\{\.equation-number\})\n', '', text, flags=re.M)
    text = re.sub(r'(\]\()(?=media/|results/|[\w-]+\.ipynb)', r'\1nbs/', text)
    return re.sub(r'(src=")(?=media/)', r'\1nbs/', text)

def figures(
    cell: dict, # Of a notebook
) -> list: # At most one: file name, caption, bytes
    "The labelled picture that a cell drew: a README cannot show what is inside a notebook, so it becomes a file"
    label, caption = option(cell, 'label'), option(cell, 'fig-cap')
    drawn = [(mime, d[mime]) for o in cell.get('outputs', []) for d in [o.get('data', {})]
             for mime in ('image/jpeg', 'image/png') if mime in d]
    if not (drawn and label and caption): return []
    mime, picture = drawn[-1]
    return [(f'{label}.{PICTURES[mime]}', caption, base64.b64decode(''.join(picture)))]

def cell_text(
    cell: dict, # Of a filtered notebook
) -> str: # Markdown
    "One cell for the README: its text, or its code and what it printed"
    if cell['cell_type'] != 'code': return cell['source'] if cell['cell_type'] == 'markdown' else ''
    options, code = re.match(r'((?:#\|[^\n]*\n?)*)(.*)', cell['source'], re.S).groups()
    data = [o.get('data') or {'text/plain': o.get('text', '')} for o in cell['outputs']]
    shown = [d for d in data if not ({*PICTURES, WIDGET}) & d.keys()]
    blocks = [] if 'echo: false' in options or not code.strip() else [f'```python\n{code.strip()}\n```']
    for d in shown:
        text = ''.join(d.get('text/markdown') or d.get('text/plain', '')).rstrip()
        if text: blocks.append(text if 'text/markdown' in d else f'```\n{text}\n```')
    blocks += [f'![{caption}](media/{name}){{#{Path(name).stem}}}' for name, caption, _ in figures(cell)]
    return '\n\n'.join(blocks)

def readme(
    root: Path = Path('.'), # The project's folder
) -> str: # The text of README.md
    "Make the README from `nbs/index.ipynb`; it has no list of references, so citations link to the works"
    root = Path(root).resolve()
    quarto = yaml.safe_load((root/'_quarto.yml').read_text(encoding='utf-8'))
    nb = filtered(root/'nbs/index.ipynb', root, quarto['ipynb-filters'])
    body = '\n\n'.join(t.strip() for t in map(cell_text, nb['cells']) if t.strip())
    body = cite(crossref(body), read_bib(root/quarto['bibliography']), listed=False)
    return '<!-- Made from nbs/index.ipynb: edit that. -->\n\n' + prose(github, body) + '\n'

# ---- Commands.

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help='Make the site and the README.')

@app.command('site')
def site_command(root: Path = Path('.'), out: Path | None = None):
    "Build the site into the output folder of _quarto.yml, or into OUT."
    print(f'{build(root, out)} pages')

@app.command('readme')
def readme_command(root: Path = Path('.'), check: bool = False):
    "Write README.md, or with --check say whether it is current."
    text, path = readme(root), root/'README.md'
    if check:
        current = path.exists() and path.read_text(encoding='utf-8') == text
        return None if current else sys.exit('README.md is stale: run make readme')
    path.write_text(text, encoding='utf-8')
    for cell in joined((root/'nbs/index.ipynb').read_text(encoding='utf-8'))['cells']:
        for name, _, picture in figures(cell): (root/'nbs/media'/name).write_bytes(picture)

def main():
    "Run the command line; a fault of the notebooks is said in its own words, without a traceback"
    try: app()
    except (ValueError, RuntimeError) as e: sys.exit(str(e))

if __name__ == '__main__': main()

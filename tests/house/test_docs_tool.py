"The site's tooling, on a project of one notebook: filter, captions, references, citations, pages, README."
import json, re, shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest, yaml
from conftest import ROOT
from typer.testing import CliRunner

pytest.importorskip('smalldocs')
pytest.importorskip('nbdev')
import docs
from docs import (WIDGET, build, captioned, cell_text, figures, filtered, github, mathml, page, prefilter, readme,
                  rename, stage, staged_config)
from notebook_filter import plain_signatures
from references import cite, crossref, dated, numbers, prose, read_bib, who

DOT = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=='
FORMULA = '$$x_t = (1-t)\\,x + t\\,\\varepsilon$$ {#eq-path}'
QUARTO = '''project: {type: website, output-dir: _docs, render: [nbs/*.ipynb]}
ipynb-filters: [nbdev_filter]
bibliography: nbs/references.bib
format: {html: {theme: cosmo, html-math-method: mathml}}
website: {title: small, sidebar: {contents: [nbs/10_flow.ipynb]}}
'''

def cell(kind, source, **more): return dict(cell_type=kind, metadata={}, source=source, **more)
def code(source, **data):
    outputs = [dict(output_type='display_data', metadata={}, data=data)] if data else []
    return cell('code', source, outputs=outputs, execution_count=None)

def sample():
    "A notebook with a formula, a hidden cell, a picture, references to both, and a citation"
    title = '# Flow\n\n> A straight line from picture to noise.\n\nThe path [@flowmatching] is'
    end = '@fig-dot shows @eq-path; see also [this notebook](10_flow.ipynb). Code such as `@fig-dot` stays.'
    cells = [cell('raw', '---\noutput-file: flow.html\n---'), cell('markdown', f'{title}\n\n{FORMULA}'),
             code('#| hide\n1+1'),
             code('#| label: fig-dot\n#| fig-cap: One dot at $t=0$.\nplot(dot)', **{'image/png': DOT}),
             cell('markdown', end)]
    kernel = dict(name='python3', language='python', display_name='python3')
    return dict(cells=cells, metadata=dict(kernelspec=kernel), nbformat=4, nbformat_minor=5)

@pytest.fixture(scope='session')
def bib(): return read_bib(ROOT/'nbs/references.bib')

@pytest.fixture
def small(tmp_path):
    "A project of this one notebook"
    (tmp_path/'nbs').mkdir()
    shutil.copy(ROOT/'settings.ini', tmp_path)
    shutil.copy(ROOT/'nbs/references.bib', tmp_path/'nbs')
    (tmp_path/'_quarto.yml').write_text(QUARTO)
    (tmp_path/'nbs/10_flow.ipynb').write_text(json.dumps(sample()))
    return tmp_path

def sources(nb): return [c['source'] for c in nb['cells']]

def test_filter_hides_and_is_kept(small):
    nb = filtered(small/'nbs/10_flow.ipynb', small)
    assert not any('hide' in source for source in sources(nb)) and len(nb['cells']) == 4
    assert filtered(small/'nbs/10_flow.ipynb', small, filters=['false']) == nb, 'asked again, it reads the kept copy'
    with pytest.raises(RuntimeError, match='false failed on 10_flow.ipynb'):
        (small/'nbs/10_flow.ipynb').write_text(json.dumps(sample(), indent=1))
        filtered(small/'nbs/10_flow.ipynb', small, filters=['false'])

def test_prefilter_fills_the_cache(small):
    nb = filtered(small/'nbs/10_flow.ipynb', small)
    for f in (small/'_proc/cache').glob('*.json'): f.unlink()
    prefilter([small/'nbs/10_flow.ipynb'], small)
    assert len(list((small/'_proc/cache').glob('10_flow-*.json'))) == 1
    assert sources(filtered(small/'nbs/10_flow.ipynb', small, filters=['false'])) == sources(nb)

def test_signatures_are_plain():
    link = '[`Pairs`](https://g.io#pairs)'
    shown = code('', **{'text/markdown': ['```python\n', f'def f(\n    p, # some {link}\n```\n', link]})
    plain_signatures(shown)
    assert shown['outputs'][0]['data']['text/markdown'][0].count('https') == 1

def test_captions():
    player = dict(cells=[code('#| fig-cap: "A video."\nvideo(x)', **{'text/html': '<video></video>'}),
                         code('w', **{WIDGET: {}, 'text/plain': 'W()'})])
    first, second = captioned(player)['cells']
    assert first['outputs'][0]['data']['text/html'].count('<figcaption>A video.</figcaption>') == 1
    assert second['outputs'] == []

@pytest.mark.parametrize('mime', ['image/png', 'image/jpeg'])
def test_the_last_of_two_pictures_has_the_caption(mime):
    two = code('#| fig-cap: Two.', **{mime: DOT})
    two['outputs'] = [*two['outputs'], *code('', **{mime: DOT})['outputs']]
    assert ['text/html' in o['data'] for o in captioned(dict(cells=[two]))['cells'][0]['outputs']] == [True, False]

def test_prose(): assert prose(str.upper, 'a `b` c\n```\nd\n```\ne') == 'A `b` C\n```\nd\n```\nE'

def test_numbers():
    assert numbers('![a](a.png){#fig-a} ![b](b.png){#fig-b} `{#fig-c}`') == {'fig-a': 1, 'fig-b': 2}
    with pytest.raises(ValueError, match='fig-a stands twice'): numbers('![a](a.png){#fig-a} ![b](b.png){#fig-a}')

def test_crossref():
    shown = crossref('![A dot.](dot.png){#fig-dot}\n\nSee @fig-dot.')
    assert shown == '![Figure 1: A dot.](dot.png){#fig-dot}\n\nSee [Figure\u00a01](#fig-dot).'
    with pytest.raises(ValueError, match='@fig-none refers to a label'): crossref('See @fig-none.')

def test_every_work_has_what_a_citation_shows(bib):
    assert bib['gen2gen']['year'] == '2025'
    assert [k for k, v in bib.items() if not v.keys() >= {'author', 'title', 'year', 'url'}] == []
    assert [who(bib[k]) for k in ('gen2gen', 'jit', 'wan')] == ['Acuaviva et al.', 'Li and He', 'Team Wan et al.']
    years = dated({k: bib[k] for k in ('rethinking', 'jit', 'gen2gen')})
    assert years == {'gen2gen': '2025a', 'jit': '2025', 'rethinking': '2025b'}

def test_cite(bib):
    assert cite('[@jit]', bib, listed=False) == '([Li and He 2025](https://arxiv.org/abs/2511.13720))'
    assert cite('`@jit` and me@jit', bib) == '`@jit` and me@jit'
    with pytest.raises(ValueError, match='references.bib'): cite('[@nobody]', bib)
    both = cite('[@rethinking], later than @gen2gen', bib)
    assert 'et al. 2025b](#ref-r' in both and 'et al. (2025a)](#ref-g' in both and 'Favaro, Paolo. 2025a. ' in both

def test_page(small, bib):
    front, body = page(filtered(small/'nbs/10_flow.ipynb', small), bib)
    assert front == {'output-file': 'flow.html', 'title': 'Flow'}
    assert 'Figure 1: One dot' in body and '[Figure\u00a01](#fig-dot)' in body and '[(1)]{.equation-number}' in body

def test_rename():
    links = rename('[a](10_flow.ipynb#x), [b](https://g.io/nbs/flow.html)', {'10_flow.ipynb': 'flow'}, 'https://g.io/nbs/')
    assert links == '[a](flow.qmd#x), [b](flow.html)'

def test_staged_config():
    html = 'format: {html: {toc: true, html-math-method: mathml}}'
    text = f'project: {{type: website}}\nipynb-filters: [nbdev_filter]\n{html}'
    project = {'type': 'website', 'output-dir': '_docs', 'render': ['nbs/*.qmd']}
    assert staged_config(text, Path('_docs')) == dict(project=project, format=dict(html=dict(toc=True)))

def test_stage(small):
    staged = small/'_proc/site'
    stage(small, small/'_docs', staged)
    assert (staged/'nbs/flow.qmd').read_text().count('](flow.qmd)') == 1
    assert yaml.safe_load((staged/'_quarto.yml').read_text())['website']['sidebar']['contents'] == ['nbs/flow.qmd']

def test_formulas():
    tex = (r'<span class="math display">\[v = \varepsilon - x,\quad \mathcal{L} = \mathbb{E}\,'
           r'\lVert v_\theta(x_t, t) - v\rVert^2\]</span>')
    assert mathml(tex).startswith('<math')
    assert mathml('<figcaption>At $t$, `x`</figcaption>').count('<math') == 1

def test_build(small):
    "The page holds what it should; builds may run at the same time; a link to a page that is not there stops a build"
    assert build(small) == 1 and not [*(small/'_proc').glob('site-*')]
    html = (small/'_docs/nbs/flow.html').read_text()
    found = [len(re.findall(p, html)) for p in ('<math', 'href="#fig-dot"', 'id="ref-flowmatching"', 'src="http')]
    assert found == [2, 1, 1, 0]
    with ThreadPoolExecutor() as pool: built = [*pool.map(lambda o: build(small, small/o), ('_docs', '_docs2'))]
    assert built == [1, 1]
    assert (small/'_docs2/nbs/flow.html').read_text() == html
    broken = sample()
    broken['cells'].append(cell('markdown', 'See [nothing](11_nothing.ipynb).'))
    (small/'nbs/10_flow.ipynb').write_text(json.dumps(broken))
    with pytest.raises(ValueError, match=r'broken link 11_nothing\.ipynb'): build(small)

def test_github():
    assert github('![Figure 1: A.](media/a.png){#fig-a}') == '![Figure 1: A.](nbs/media/a.png)\n\n*Figure 1: A.*'
    assert github('[a](10_flow.ipynb) <img src="media/a.png">') == '[a](nbs/10_flow.ipynb) <img src="nbs/media/a.png">'
    note = github('::: {.callout-note}\nRead [this](10_flow.ipynb).\n:::')
    assert note == '> [!NOTE]\n> Read [this](nbs/10_flow.ipynb).'

@pytest.mark.parametrize('mime,suffix', [('image/png', 'png'), ('image/jpeg', 'jpg')])
def test_figures(mime, suffix):
    name, caption, picture = figures(code('#| label: fig-dot\n#| fig-cap: One dot.\nplot(dot)', **{mime: DOT}))[0]
    assert (name, caption, picture[:4]) == (f'fig-dot.{suffix}', 'One dot.', b'\x89PNG')
    assert figures(code('1', **{'text/plain': '1'})) == []

def test_cell_text():
    assert cell_text(code('#| label: x\nprint(1)', **{'text/plain': '1'})) == '```python\nprint(1)\n```\n\n```\n1\n```'
    assert cell_text(code('#| echo: false\nf()', **{'text/plain': '1'})) == '```\n1\n```'

def test_readme(small):
    (small/'nbs/index.ipynb').write_text(json.dumps(sample()))
    (small/'nbs/media').mkdir()
    assert '](nbs/10_flow.ipynb)' in readme(small)
    def run(*args): return CliRunner().invoke(docs.app, ['readme', *args, '--root', str(small)]).exit_code
    assert [run('--check'), run(), run('--check')] == [1, 0, 0]
    assert (small/'nbs/media/fig-dot.png').exists()

def test_the_site_uses_this_filter():
    filters = yaml.safe_load((ROOT/'_quarto.yml').read_text())['ipynb-filters']
    assert [(ROOT/'nbs'/f).resolve() for f in filters] == [docs.FILTER.resolve()]

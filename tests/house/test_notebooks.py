"Every notebook runs top to bottom; the executed copies stay in _executed/, a failed one included."
import tempfile
import pytest
from conftest import ROOT
from nbrun import notebooks, run

# Parameters for a quick run, by notebook; one that is not named here runs as it is.
QUICK = {'00_tour.ipynb': dict(out=tempfile.mkdtemp(), crops=1, size=32, steps=8), 'index.ipynb': dict(steps=8),
         '97_bench.ipynb': dict(steps=1, repeats=1), **{f'{o}.ipynb': dict(size=32, steps=2, n_test=2, media=tempfile.mkdtemp()) for o in ('22_colorize', '23_style', '26_mask_image', '27_geometry_edges')},
         **{f'{o}.ipynb': dict(size=32, steps=2, n=4, n_test=4, media=tempfile.mkdtemp()) for o in ('24_segmentation', '25_people', '28_depth_inpaint_jigsaw')}}

@pytest.mark.parametrize('path', notebooks(), ids=lambda p: p.name)
def test_notebook(path):
    run(path, ROOT/'_executed'/path.relative_to(ROOT/'nbs'), QUICK.get(path.name))

def test_parameters_exist():
    "A quick parameter that no notebook has would silently change nothing"
    import nbformat
    for path in notebooks():
        sources = ''.join(c.source for c in nbformat.read(path, 4).cells if 'parameters' in c.metadata.get('tags', []))
        assert [k for k in QUICK.get(path.name, {}) if f'{k} =' not in sources and f'{k}=' not in sources] == []
    assert QUICK.keys() <= {p.name for p in notebooks()}

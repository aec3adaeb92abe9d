"ARC grids and pictures: the renderer and the readings against the authors' own pictures, and files that are no tasks."
import json

import numpy as np
import pytest
from PIL import Image

from gen2gen.arc import PALETTE, decode, download_conceptarc, load_answers, load_puzzles, paper_layout, render
from conftest import ROOT

DATA = ROOT.parent/"shared"/"data"
needs_pictures = pytest.mark.skipif(not (DATA/"vdm_outputs").is_dir(), reason="needs the authors' generated pictures: a folder shared/data/vdm_outputs beside the repository")
GREYED = "Count9", "Count10", "InsideOutside1" # their all-black answers are drawn grey on the authors' page

@pytest.fixture(scope="module")
def frames():
    "The published final frames: picture, puzzle, test number, true answer as drawn, solved by the index"
    sources = ["arc-agi-1", DATA/"conceptarc"]
    puzzles, answers = ({k: v for s in sources for k, v in load(s).items()} for load in (load_puzzles, load_answers))
    def frame(r):
        truth = answers[r["task"]][r["test"]]
        if r["task"] in GREYED and not truth.any(): truth = np.full_like(truth, 5)
        picture = np.asarray(Image.open(DATA/"vdm_outputs"/r["file"]).convert("RGB"))
        return picture, puzzles[r["task"]], answers[r["task"]], truth, r["solved"]
    return [frame(r) for r in json.loads((DATA/"vdm_outputs"/"index.json").read_text())]

@needs_pictures
def test_known_reading_agrees_with_the_authors(frames):
    "The index was made with the true size given, and a cell size that saw the answers"
    agree = [(decode(x, paper_layout([*p.seen, *answers]), "known", truth.shape).tolist() == truth.tolist()) == solved for x, p, answers, truth, solved in frames]
    assert len(agree) == 107 and sum(agree) >= 105

@needs_pictures
def test_free_reading_keeps_most(frames):
    "Of what is solved with the size given, this much stays solved when it is read from the picture; the lost ones draw another number of cells, or nothing"
    kept = [decode(x, paper_layout([*p.seen, *answers]), "free").tolist() == truth.tolist() for x, p, answers, truth, solved in frames]
    assert sum(solved for *_, solved in frames) == 70 and sum(kept) >= 64

@needs_pictures
def test_conceptarc_is_whole():
    puzzles = load_puzzles(DATA/"conceptarc")
    assert len(puzzles) == 160 and len({p.concept for p in puzzles.values()}) == 16 and {len(p.inputs) for p in puzzles.values()} == {3}

def test_paper_layout_to_the_pixel():
    "The specification, pixel by pixel, on a grid whose sides are odd and even"
    grid = np.random.default_rng(0).integers(0, 10, (3, 6))
    x, cell = render(grid, paper_layout([grid, np.zeros((8, 2), int)])), 47
    want = np.zeros((400, 400, 3), np.uint8)
    top, left = (400 - 3*cell - 8)//2, (400 - 6*cell - 14)//2
    want[top:top+3*cell+8, left:left+6*cell+14] = 85
    for i in range(3):
        for j in range(6):
            y0, x0 = top + 2 + i*(cell+2), left + 2 + j*(cell+2)
            want[y0:y0+cell, x0:x0+cell] = PALETTE[grid[i, j]]
    assert (x == want).all()

@pytest.mark.parametrize("text", ["", "[]", "{}", '{"train": [], "test": []}', '{"train": [{"input": [[1]], "output": [[10]]}], "test": [{"input": [[1]]}]}',
                                  '{"train": [{"input": [[1]], "output": [[1]]}], "test": [{"input": [[1], [1, 2]]}]}', '{"train": 3, "test": [1]}'])
def test_a_file_that_is_no_task_is_named(tmp_path, text):
    (tmp_path/"Broken.json").write_text(text)
    with pytest.raises(ValueError, match="Broken"): load_puzzles(tmp_path)

def test_download_leaves_nothing_half_written(tmp_path):
    (tmp_path/"no.zip").write_bytes(b"no zip")
    with pytest.raises(Exception): download_conceptarc(tmp_path/"c", f"file://{tmp_path}/no.zip")
    assert [p.name for p in tmp_path.iterdir()] == ["no.zip"]

"That no task which is scored or kept for development is in the pretraining of tiny-arc, and that batches are sound."
import numpy as np
import pytest
import torch
from gen2gen import rearc
from gen2gen.arc import load_answers, load_puzzles
from gen2gen.canvas import LARGEST
from gen2gen.pretrain import blank, export_weights
from gen2gen.rearc import Training, kept_for_development, task_pairs
from gen2gen.rules import made_pairs
from conftest import ROOT

DATA = ROOT.parent/'shared'/'data'
ARCHIVE = DATA/'rearc'/'rearc_400x100.tar.xz'

def key(grid): return grid.shape, np.asarray(grid, np.uint8).tobytes()

def keys(source, split=None):
    "Keys of all pairs of a source, demonstrations and tests"
    answers = load_answers(source, split)
    return {(key(a), key(b)) for name, p in load_puzzles(source, split).items()
            for a, b in (*p.demos, *zip(p.inputs, answers[name]))}

@pytest.fixture(scope='module', params=[None, 'rules', pytest.param(ARCHIVE, marks=pytest.mark.skipif(
    not ARCHIVE.is_file(), reason='needs rearc/rearc_400x100.tar.xz in shared/data beside the repository'))])
def pairs(request): return made_pairs(2) if request.param == 'rules' else task_pairs(request.param)

@pytest.mark.parametrize('source', ['arc-agi-1', 'arc-agi-2', pytest.param(DATA/'conceptarc', marks=pytest.mark.skipif(
    not (DATA/'conceptarc').is_dir(), reason='needs ConceptARC in shared/data/conceptarc beside the repository'))])
def test_no_scored_pair_is_shown(pairs, source):
    shown = {(key(a), key(b)) for each in pairs.values() for a, b in each}
    assert not shown & keys(source, 'evaluation')

def test_names_are_of_the_training_split_and_none_is_for_development():
    pairs = task_pairs(ARCHIVE if ARCHIVE.is_file() else None)
    assert pairs.keys() <= load_puzzles('arc-agi-1', 'training').keys()
    assert not any(map(kept_for_development, pairs))

def test_only_the_training_split_is_asked_for(monkeypatch):
    asked = []
    def spy(load): return lambda source, split: asked.append((source, split)) or load(source, split)
    monkeypatch.setattr(rearc, 'load_puzzles', spy(load_puzzles))
    monkeypatch.setattr(rearc, 'load_answers', spy(load_answers))
    task_pairs()
    assert set(asked) == {('arc-agi-1', 'training')}

def test_a_batch_is_a_function_of_seed_and_step():
    world, again = Training(task_pairs()), Training(task_pairs())
    for step in range(12):
        a, b = world(step, 1), again(step, 1)
        assert all(map(torch.equal, a, b))
        first, target, sigma, eps, words, keep = a
        assert first.max() <= 11 and target.shape == first.shape and words.shape == (len(first), 3)
        assert first.shape[1] % 2 == 0 and first.shape[1] <= LARGEST
        assert len(keep) == len(first) and keep.max() < first.shape[1]**2//4

def test_every_grid_fits_the_largest_canvas():
    "At its limit a canvas is smaller than its grids and their room would have it"
    grids = {f'{n}': [(np.zeros((n, n), np.uint8),)*2] for n in (16, 21, 30)}
    world = Training(grids)
    sides = [world(step)[0].shape[1] for step in range(80)]
    assert sides.count(LARGEST) > 4

def test_a_run_with_other_tasks_keeps_the_words_that_it_knows(tmp_path):
    pair = [(np.zeros((3, 3), np.uint8),)*2]
    before = Training({'a': pair, 'c': pair}).blank(num_layers=1)
    export_weights(before, tmp_path/'w', 1, 0, name='tiny-arc')
    after = blank(Training({'a': pair, 'b': pair, 'c': pair}), seed=1, init=tmp_path/'w')
    assert after.vocabulary[:4] == ('', 'a', 'b', 'c') and len(after.words) == len(after.vocabulary)
    for word in before.vocabulary:
        kept, was = (vdm.words[vdm.vocabulary.index(word)] for vdm in (after, before))
        torch.testing.assert_close(kept.detach(), was, rtol=1e-2, atol=1e-2) # files have half the bits
    assert after.words[2].any()

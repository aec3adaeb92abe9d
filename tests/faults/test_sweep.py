"What a sweep survives: killed workers and drivers, full disks, a second sweep, damaged files, Ray actors that die."
import json, os, signal, subprocess, sys, textwrap, time
from pathlib import Path

import cloudpickle
import numpy as np
import pandas as pd
import pytest

from conftest import LIMIT, eventually
from gen2gen.files import whole
from gen2gen.sweep import gather, load_result, sweep
from test_faults import content, disk, filled, read_only # noqa: F401

cloudpickle.register_pickle_by_value(sys.modules[__name__]) # a worker need not import this file and all that it imports

def work(base, name, payload):
    "Does what its payload says: raises, kills its worker (always, or once), waits, or gives arrays"
    kind, *told = payload
    if kind == "raise": raise RuntimeError(told[0])
    if kind == "die" or kind == "die once" and not Path(told[0]).exists():
        if kind == "die once": Path(told[0]).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "wait": time.sleep(told[0])
    if kind == "object": return dict(x=object())
    return dict(name=name, base=base, picture=np.full(told[0] if kind == "array" else 2, 7, np.uint8))

def run(jobs, out, **kw): return sweep(jobs, work, out, progress=False, **kw)

def test_a_job_that_fails_or_kills_its_worker_does_not_stop_the_rest(tmp_path):
    jobs = {"bad": ("raise", "no luck"), "a": ("fine",), "killer": ("die",), "odd": ("object",), "once": ("die once", str(tmp_path/"flag")), "b": ("fine",)}
    df = run(jobs, tmp_path/"s", setup=lambda: "loaded", workers=2).set_index("job")
    assert df.status.to_dict() == dict(bad="failed", a="done", killer="failed", odd="failed", once="done", b="done")
    assert "no luck" in df.reason["bad"] and "twice" in df.reason["killer"] and "JSON" in df.reason["odd"]
    assert "no luck" in json.loads((tmp_path/"s/failed/bad.json").read_text())["traceback"] and df.base["a"] == "loaded"
    again = run(jobs | dict(bad=("fine",)), tmp_path/"s", resume=True).set_index("job")
    assert again.status["bad"] == "failed", "what failed is left alone unless it is asked for"
    again = run(dict(bad=("fine",)), tmp_path/"s", resume=True, retry=True)
    assert again.status.tolist() == ["done"] and not (tmp_path/"s/failed/bad.json").exists()
    assert pd.read_parquet(tmp_path/"s/results.parquet").status.tolist() == ["done"]

def test_a_base_that_cannot_be_loaded_stops_the_sweep(tmp_path):
    def setup(): raise OSError("no weights there")
    with pytest.raises(ValueError, match="no weights there"): run(dict(a=("fine",)), tmp_path, setup=setup)
    assert run(dict(a=("fine",)), tmp_path, resume=True).status.tolist() == ["done"]

DRIVER = textwrap.dedent("""
    import sys, time
    from gen2gen.sweep import sweep
    def work(base, name, seconds): time.sleep(seconds); return dict(name=name)
    if __name__ == "__main__":
        print("go", flush=True)
        sweep({f"j{i}": .3 if i < 2 else 3 for i in range(6)}, work, sys.argv[1], workers=2, resume=True, progress=False)
""")

def start(out, code=DRIVER): return subprocess.Popen([sys.executable, "-c", code, out], stdout=subprocess.PIPE, stderr=subprocess.PIPE)

def children(pid): return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

def alive(pid):
    try: return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError: return False

def test_killed_driver(tmp_path):
    "Its workers end with it, a second sweep is refused as long as it lives, and the same call does the rest"
    out = tmp_path/"s"
    driver = start(out)
    try:
        eventually(lambda: len(list(out.glob("results/j*.safetensors"))) >= 2 or driver.poll() is not None)
        assert driver.poll() is None, driver.stderr.read().decode()
        with pytest.raises(BlockingIOError, match="another sweep"): run(dict(x=("fine",)), out, resume=True)
        workers = children(driver.pid)
        assert len(workers) >= 2
    finally: driver.kill(); driver.wait()
    eventually(lambda: not any(map(alive, workers)))
    before = {p: p.stat().st_mtime_ns for p in (out/"results").iterdir()}
    assert 2 <= len(before) <= 6
    df = run({f"j{i}": ("wait", 0) for i in range(6)}, out, resume=True)
    assert (df.status == "done").all() and len(df) == 6
    assert {p: p.stat().st_mtime_ns for p in before} == before, "what was done is not done again"

def test_ctrl_c(tmp_path):
    code = DRIVER.replace('print("go"', 'import signal; signal.signal(signal.SIGINT, signal.default_int_handler); print("go"')
    driver = start(tmp_path/"s", code)
    eventually(lambda: list(tmp_path.glob("s/results/j*.safetensors")) or driver.poll() is not None)
    driver.send_signal(signal.SIGINT)
    _, stderr = driver.communicate(timeout=LIMIT)
    assert "resume=True" in stderr.decode() and driver.returncode

def test_workers_clean_up(tmp_path):
    "A worker ends by itself when all is done: killed, it would leave its semaphores, and Python says so"
    code = """
        from gen2gen.sweep import sweep
        def work(base, name, payload):
            from multiprocessing import get_context
            globals()["kept"] = get_context("spawn").Lock()
            return {}
        if __name__ == "__main__": sweep(dict(a=1, b=2), work, "s", workers=2, progress=False)"""
    (tmp_path/"driver.py").write_text(textwrap.dedent(code))
    done = subprocess.run([sys.executable, "driver.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "leaked" not in done.stderr

@pytest.mark.parametrize("fault", [filled, read_only])
def test_full_or_read_only_disk(disk, fault):
    run(dict(a=("array", 1000)), disk/"s")
    before = content(disk/"s/results")
    with fault(disk), pytest.raises(OSError, match=str(disk/"s")): run(dict(a=("array", 1), b=("array", 100_000)), disk/"s", resume=True)
    assert content(disk/"s/results") == before, "nothing half-written"
    assert run(dict(a=("array", 1), b=("array", 100_000)), disk/"s", resume=True).status.tolist() == ["done"]*2

def test_a_disk_that_fills_up_keeps_what_was_done(disk):
    with pytest.raises(OSError, match="big.*make room"): run(dict(a=("array", 1000), big=("array", 5 << 20), c=("fine",)), disk/"s")
    assert gather(disk/"s").job.tolist() == ["a"] and not list((disk/"s").rglob(".part-*"))

def test_what_a_killed_sweep_left_half_written_is_cleared(tmp_path):
    run(dict(a=("fine",)), tmp_path)
    writing = whole(tmp_path/"results/b.safetensors") # never left: the driver was killed
    writing.__enter__().write_bytes(b"half")
    assert len(list(tmp_path.rglob("b.safetensors"))) == 1
    assert run(dict(a=("fine",), b=("fine",)), tmp_path, resume=True).status.tolist() == ["done"]*2
    assert sorted(o.name for o in (tmp_path/"results").iterdir()) == ["a.safetensors", "b.safetensors"]

def test_damaged_result_is_named(tmp_path):
    run(dict(a=("fine",)), tmp_path)
    (tmp_path/"results/a.safetensors").write_bytes(b"\xff"*99)
    with pytest.raises(ValueError, match="a.safetensors.*remove it"): run(dict(a=("fine",)), tmp_path, resume=True)

@pytest.mark.parametrize("kw,words", [(dict(jobs={}), "no jobs"), (dict(jobs={"../a": ()}), "to name a file"), (dict(jobs={"a": ()}, workers=0), "workers=0")])
def test_refused(tmp_path, kw, words):
    with pytest.raises(ValueError, match=words): run(out=tmp_path/"s", **kw)
    assert not (tmp_path/"s").exists()

def test_out_below_a_file(tmp_path):
    (tmp_path/"file").write_text("")
    with pytest.raises(OSError, match="file"): run(dict(a=("fine",)), tmp_path/"file"/"s")

def test_ray(tmp_path):
    "The same code over Ray, with a job that fails and one that kills its actor"
    pytest.importorskip("ray", reason="needs Ray: pip install gen2gen[cluster]")
    jobs = {"bad": ("raise", "no luck"), "a": ("fine",), "once": ("die once", str(tmp_path/"flag"))}
    df = run(jobs, tmp_path/"s", setup=lambda: "loaded", ray="local").set_index("job")
    assert df.status.to_dict() == dict(bad="failed", a="done", once="done")
    assert df.base["a"] == "loaded" and "no luck" in df.reason["bad"] and load_result(tmp_path/"s/results/a.safetensors")["picture"].tolist() == [7, 7]

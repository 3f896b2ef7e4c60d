import json, sys, time, shutil
import numpy as np
from pathlib import Path
from PIL import Image
from tests.runs import build_watcher
from weber.training.assemble import train
def test_a(build_small, pictures, tmp_path, small_cache):
    out = open("/tmp/judge/exp.txt", "w")
    def go(name, folder=None, steps=80, lr=2e-3, prompts=False, held=0.25, data={}, **kw):
        d={"resolution":48, "evaluation": held, **data}
        if folder: d["path"]=str(folder)
        c=build_small(name, data=[d], optim={"lr":lr}, train={"steps":steps,"batch_size":2}, evaluation={"every":steps//4,"levels":[0.3,0.7],"pictures":3},
            **({"sampling":{"prompts":["a dog","a red apple"],"steps":4,"every":steps}} if prompts else {}), **kw)
        c=c.model_copy(update={"output":c.output.model_copy(update={"save_every":1000})})
        t=time.process_time()
        w,b=build_watcher()
        try: train(c,resume=False,watcher=w)
        except Exception as e: out.write(f"{name} FAILED {e}\n")
        out.write(f"== {name} {time.process_time()-t:.1f}s\n")
        for l in (c.output.folder/"readings.jsonl").read_text().splitlines():
            l=json.loads(l); out.write("  "+", ".join(f"{k}={v:.4g}" if isinstance(v,float) else f"{k}={v}" for k,v in l.items() if not (k.startswith("evaluation/") and k.count("/")>1))+"\n")
        m=[json.loads(l) for l in (c.output.folder/"metrics.jsonl").read_text().splitlines()]
        out.write(f"  norms {np.median([x['grad_norm'] for x in m[:20]]):.3g} {np.median([x['grad_norm'] for x in m[-20:]]):.3g}\n")
        out.flush()
    go("healthy", prompts=True)
    go("wild", lr=1.0, prompts=True)
    go("high", lr=0.05, prompts=True)
    go("still", lr=1e-12, steps=20)
    noisy=Path(shutil.copytree(pictures, tmp_path/"noisy"))
    first=sorted(p for p in noisy.iterdir() if p.suffix!=".txt")[0]
    Image.fromarray(np.random.default_rng(0).integers(0,256,(96,96,3),dtype=np.uint8)).save(noisy/"zz.png"); (noisy/"zz.txt").write_text("noise")
    go("noisy", folder=noisy, held=0.1)
    same=Path(shutil.copytree(pictures, tmp_path/"same"))
    for t in same.glob("*.txt"): t.write_text("a picture")
    go("same captions", folder=same, lr=5e-3)
    names=sorted(pictures.glob("*.txt"))
    shuf=Path(shutil.copytree(pictures, tmp_path/"shuf"))
    texts=[t.read_text() for t in sorted(shuf.glob("*.txt"))]
    for t,x in zip(sorted(shuf.glob("*.txt")), texts[5:]+texts[:5]): t.write_text(x)
    go("shuffled", folder=shuf, lr=5e-3)
    go("overfit", data={"limit":5}, held=0.6, lr=1e-2, steps=120)

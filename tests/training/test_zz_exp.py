import json, sys, time, shutil
import numpy as np
from pathlib import Path
from PIL import Image
from safetensors.torch import load_file, save_file
from tests.runs import build_watcher
from weber.families.flux1.variants import POCKET
from weber.training.assemble import train
def test_a(build_small, pictures, tmp_path, small_cache):
    out = open("/tmp/judge/exp2.txt", "w")
    def go(name, folder=None, steps=20, lr=2e-3, prompts=False, held=0.25, data={}, every=None, batch=1, ev={}, **kw):
        d={"resolution":48, "evaluation": held, **data}
        if not held: d.pop("evaluation")
        if folder: d["path"]=str(folder)
        c=build_small(name, data=[d], optim={"lr":lr}, train={"steps":steps,"batch_size":batch}, evaluation={"every":every or steps, **({"levels":[0.5],"pictures":2, **ev} if held else {})},
            **({"sampling":{"prompts":["a dog","a red apple"],"steps":4,"every":steps}} if prompts else {}), **kw)
        c=c.model_copy(update={"output":c.output.model_copy(update={"save_every":1000})})
        t=time.process_time()
        w,b=build_watcher()
        try: train(c,resume=False,watcher=w)
        except Exception as e: out.write(f"{name} FAILED {e}\n")
        out.write(f"== {name} {time.process_time()-t:.1f}s\n")
        if (c.output.folder/"readings.jsonl").exists():
          for l in (c.output.folder/"readings.jsonl").read_text().splitlines():
            l=json.loads(l); out.write("  "+", ".join(f"{k}={v:.4g}" if isinstance(v,float) else f"{k}={v}" for k,v in l.items() if not (k.startswith("evaluation/") and k.count("/")>1))+"\n")
        m=[json.loads(l) for l in (c.output.folder/"metrics.jsonl").read_text().splitlines()]
        out.write(f"  norms {np.median([x['grad_norm'] for x in m[:10]]):.3g} {np.median([x['grad_norm'] for x in m[-10:]]):.3g}\n")
        out.flush()
    go("wild", lr=1.0, prompts=True)
    noisy=Path(shutil.copytree(pictures, tmp_path/"noisyset"))
    Image.fromarray(np.random.default_rng(0).integers(0,256,(96,96,3),dtype=np.uint8)).save(noisy/"zz.png"); (noisy/"zz.txt").write_text("noise")
    go("noisy", folder=noisy, held=0, steps=14, batch=6, lr=1e-4)
    model=Path(shutil.copytree(POCKET, tmp_path/"deaf"))
    for f in [*model.glob("text_encoder*/*.safetensors")]:
        from safetensors import safe_open
        with safe_open(f,"pt") as o: meta=o.metadata()
        save_file({k: v*0 for k,v in load_file(f).items()}, f, metadata=meta)
    go("deaf", model={"path":str(model)}, steps=2)
    go("overfit", data={"limit":5}, held=0.6, lr=1e-2, steps=24, every=8)
    one=tmp_path/"oneset"; one.mkdir()
    f=sorted(p for p in pictures.iterdir() if p.suffix==".txt")[0]
    for p in pictures.glob(f.stem+".*"): shutil.copy(p, one/p.name)
    (one/(f.stem+".txt")).write_text("")
    go("one", data={"captions":"none"}, folder=one, held=0, lr=1e-2, steps=60, prompts=True)

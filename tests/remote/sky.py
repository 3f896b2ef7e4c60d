#!/usr/bin/env python3
"""A stand-in for SkyPilot's program that rents this machine: it takes the words that the real one takes, and no others.

The options are those of `sky VERB --help` of SkyPilot 0.14.1 (2026-11-30), the keys of the task file some of `sky/utils/schemas.py`, the
answers those that the real one gave: `sky gpus list H100:1 --infra runpod -o json` with a catalog of one row, `sky status NAME -o json`
with its line before the JSON, `sky down` of a machine that is none. It copies files with the real one's rsync options, so links stay links
and .gitignore counts (`sky/utils/command_runner.py`); it sets up before the idle minutes count (`sky/execution.py`), and writes how ssh
gets there where the real one does. Its own settings are in $HOME/stand-in.json: `there` (the home folder of the machine), `path`, `user`,
`port`, `identity`, `fails` (what does).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import yaml

OPTIONS = {
    "launch": "--config= -c/--cluster= --dryrun -d/--detach-run -n/--name= --workdir= --infra= --num-nodes= --cpus= --memory= --disk-size="
    " --disk-tier= --network-tier= --use-spot --no-use-spot --image-id= --env-file= --env= --secret-file= --secret= --local-disk= --gpus="
    " -t/--instance-type= --ports= --priority= --async --no-async -i/--idle-minutes-to-autostop= --wait-for= --down -r/--retry-until-up"
    " -y/--yes --no-setup --clone-disk-from= --fast --resize --git-url= --git-ref= -w/--workspace=",
    "gpus list": "--config= -a/--all --infra= --all-regions -v/--verbose -o/--output=",
    "status": "--config= -v/--verbose -r/--refresh --ip --endpoints --endpoint= --show-managed-jobs --show-services -u/--all-users"
    " -o/--output=",
    "down": "--config= -a/--all -u/--all-users -y/--yes -p/--purge --graceful --graceful-timeout= --async --no-async",
}
RESOURCES = {"accelerators", "infra", "disk_size", "use_spot", "autostop"}
TASK = {"name", "workdir", "num_nodes", "resources", "file_mounts", "setup", "run", "envs", "secrets"}
HOME = Path(os.environ["HOME"])
CLUSTERS = HOME / "clusters.json"
OWN = json.loads((HOME / "stand-in.json").read_text())


def read(verb: str, words: list[str]) -> argparse.Namespace:
    """The words of a verb. One that it does not know ends the program, as the real one does."""
    parser = argparse.ArgumentParser(prog=f"sky {verb}", allow_abbrev=False)
    for option in OPTIONS[verb].split():
        names = option.removesuffix("=").split("/")
        if option.endswith("="):
            parser.add_argument(*names, action="append")
        else:
            parser.add_argument(*names, action="store_true")
    parser.add_argument("places", nargs="*")
    return parser.parse_args(words)


def check(condition: bool, words: str) -> None:
    if not condition:
        sys.exit(words)


def run(command: str, **given: object) -> subprocess.Popen[bytes]:
    """A script on the rented machine."""
    env = {"HOME": OWN["there"], "PATH": OWN["path"], "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **given.pop("env", {})}  # type: ignore[dict-item]
    return subprocess.Popen(["bash", "-c", command], env=env, stdin=subprocess.DEVNULL, **given)  # type: ignore[call-overload,no-any-return]


def launch(words: list[str]) -> None:
    asked = read("launch", words)
    [file] = asked.places
    task = yaml.safe_load(Path(file).read_text())
    check(set(task) <= TASK and set(task["resources"]) <= RESOURCES, f"ValueError: Invalid task YAML: {task.keys()}")
    check(asked.down and int(asked.idle_minutes_to_autostop[0]) > 0 and asked.yes, "it would never stop")
    secrets = {name: os.environ[name] for name in asked.secret or ()}
    check(set(task.get("secrets", {})) <= set(secrets), f"secrets that are not given: {task.get('secrets')}")
    [cluster] = asked.cluster
    clusters = json.loads(CLUSTERS.read_text()) if CLUSTERS.exists() else {}
    clusters[cluster] = {"status": "UP", "autostop": None, "launches": clusters.get(cluster, {}).get("launches", 0) + 1}
    CLUSTERS.write_text(json.dumps(clusters))
    print("⚙︎ Launching on the machine beside.", flush=True)
    for place, source in task["file_mounts"].items():
        target = place.replace("~", OWN["there"])
        Path(target).mkdir(parents=True, exist_ok=True)
        ignored = ".skyignore" if Path(source, ".skyignore").exists() else ".gitignore"
        command = ["rsync", "-Pavz", "--no-owner", "--no-group", f"--filter=dir-merge,- {ignored}", f"{source}/", target]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    hosts = HOME / ".sky" / "generated" / "ssh" / cluster
    hosts.parent.mkdir(parents=True, exist_ok=True)
    lines = ["HostName 127.0.0.1", f"User {OWN['user']}", f"IdentityFile {OWN['identity']}", "IdentitiesOnly yes", f"Port {OWN['port']}"]
    lines += ["StrictHostKeyChecking no", "UserKnownHostsFile=/dev/null", "GlobalKnownHostsFile=/dev/null"]
    hosts.write_text("\n  ".join([f"Host {cluster}", *lines]) + "\n")
    failed = run(task["setup"], env=secrets).wait()
    check(failed == 0 and OWN.get("fails") != "setup", f"Failed to setup with return code {failed}. Check the details in log.")
    clusters[cluster]["autostop"] = int(asked.idle_minutes_to_autostop[0])
    CLUSTERS.write_text(json.dumps(clusters))
    if "run" in task:
        with (HOME / "job.log").open("ab") as log:
            job = run(task["run"], env=secrets, stdout=log, stderr=log, start_new_session=True)
        clusters[cluster]["job"] = job.pid
        CLUSTERS.write_text(json.dumps(clusters))
        print("Job submitted, ID: 1", flush=True)


def list_gpus(words: list[str]) -> None:
    asked = read("gpus list", words)
    check(asked.output == ["json"], "the real one would draw a table")
    name, _, count = asked.places[0].partition(":")
    runpod = [("RunPod", f"{number}x_H100_SECURE", float(number), 2.39 * number, None) for number in (1, 2)]
    rows = [*runpod, ("AWS", "p5.4xlarge", 1.0, 6.88, 4.21)]
    fitting = [row for row in rows if name == "H100" and row[2] == int(count) and asked.infra in (None, [row[0].lower()])]
    names = ("cloud", "instance_type", "accelerator_count", "price", "spot_price")
    listed = [dict(zip(names, row, strict=True)) | {"accelerator_name": name, "region": "CA", "cpu_count": 16} for row in fitting]
    other = {"accelerator_name": f"{name}-MEGA", "cloud": "GCP", "accelerator_count": float(count), "price": 0.01, "spot_price": 0.01}
    print(json.dumps({name: listed, f"{name}-MEGA": [other]} if listed else {}, indent=2))


def status(words: list[str]) -> None:
    asked = read("status", words)
    clusters = json.loads(CLUSTERS.read_text()) if CLUSTERS.exists() else {}
    for name in asked.places:
        if name not in clusters:
            print(f"Cluster(s) not found: \x1b[1m{name}\x1b[0m.")
    print(json.dumps([{"name": name, **clusters[name]} for name in asked.places if name in clusters], indent=2))


def down(words: list[str]) -> None:
    asked = read("down", words)
    check(asked.yes, "it would ask")
    clusters = json.loads(CLUSTERS.read_text())
    for name in asked.places:
        if clusters.pop(name, None) is None:
            print(f"Cluster(s) not found: {name}.")
    CLUSTERS.write_text(json.dumps(clusters))
    for file in Path(OWN["there"]).glob("weber-remote/*/started.json"):  # a machine that is no more computes nothing
        with suppress(ProcessLookupError):
            if not file.with_name("ended.json").exists():
                os.killpg(json.loads(file.read_text())["pid"], signal.SIGKILL)


with (HOME / "calls.jsonl").open("a") as calls:
    calls.write(json.dumps({"words": sys.argv[1:], "time": time.time()}) + "\n")
verb = " ".join(sys.argv[1:3]) if sys.argv[1:2] == ["gpus"] else sys.argv[1]
{"launch": launch, "gpus list": list_gpus, "status": status, "down": down}[verb](sys.argv[2 + verb.count(" ") :])

"""The way to another machine: ssh for words, rsync for files, and what they say when they fail, as one sentence.

Nothing is asked at a terminal: a host whose key is not known is refused with its fingerprint, and so is a login that wants a password.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from weber.errors import ConfigError, RemoteError
from weber.remote import there

_ADDRESS = re.compile(r"(?:[A-Za-z0-9_][\w.+-]*@)?[A-Za-z0-9_\[][\w.:%\]-]*", re.ASCII)
HOSTS = ".remote-hosts"
"""The keys of a run's machine, in the run's folder here."""
_LOST = 255
"""How ssh says that it is its own fault, and none of what it has called."""
_KEPT_BYTES = 4096
_VANISHED = 24
"""rsync: a file was there, and then not."""
_PASSING = (_LOST, 10, 12, 30, 35)
"""Codes of a connection that is not there: that of ssh, and those of rsync for sockets, streams and time that is over."""
_OPTIONS = {
    "BatchMode": "yes",
    "ConnectTimeout": "15",
    "ServerAliveInterval": "15",
    "ServerAliveCountMax": "4",
    "StrictHostKeyChecking": "yes",
}
_FIND_PYTHON = """
for one in "$@" ; do
  if command -v "$one" >/dev/null 2>&1 ; then
    if "$one" -c 'import sys; sys.exit(sys.version_info < (3, 11))' </dev/null >/dev/null 2>&1 ; then exec "$one" -P - ; fi
    echo "weber-python $one $("$one" -V 2>&1 </dev/null)"
  fi
done
echo weber-python
"""
_PYTHONS = ("python3", "python3.13", "python3.12", "python3.11", "python3.14", "python")
_NO_PYTHON = "weber-python"


@dataclass(frozen=True)
class Host:
    """How a machine is reached. `keys`: lines of a file of known hosts that were accepted for it; `file`: settings of ssh for it alone, by
    who has just made it, so that the first key it shows is its own, and the only one that is taken from then on."""

    address: str
    port: int | None = None
    identity: str | None = None
    keys: tuple[str, ...] = ()
    file: str | None = None

    def __post_init__(self) -> None:
        if not _ADDRESS.fullmatch(self.address):
            raise ConfigError(
                "This is no address of a machine.",
                got=self.address,
                expected="user@host, or a name of your ~/.ssh/config",
                fix="correct it",
            )
        if self.port is not None and not 0 < self.port < 65536:
            raise ConfigError("There is no such port.", got=f"--port {self.port}", expected="1 to 65535", fix="correct --port")

    @property
    def words(self) -> str:
        """The address and its port, as they are typed."""
        return self.address if self.port is None else f"{self.address} -p {self.port}"

    @property
    def target(self) -> str:
        """As rsync wants it before a colon."""
        user, at, name = self.address.rpartition("@")
        return f"{user}{at}[{name}]" if ":" in name and not name.startswith("[") else self.address


class Link:
    """Calls on one machine. `folder` keeps the keys that were accepted; `python`: the interpreter there."""

    def __init__(self, host: Host, *, folder: Path, python: str | None = None) -> None:
        self.host, self.python, self._folder = host, python, folder
        for program in ("ssh", "rsync"):
            if shutil.which(program) is None:
                raise RemoteError(f"{program} is not installed here.", got=host.words, fix=f"install it: apt install {program}")

    def look(self, place: str, name: str, *, packages: Sequence[str]) -> Mapping[str, object]:
        """What is there. Raises RemoteError, with the fingerprint of a host that is not known."""
        asked = [self.python] if self.python is not None else list(_PYTHONS)
        command = shlex.join(["sh", "-c", _FIND_PYTHON, "sh", *asked])
        said = self._call(command, _build_program("look", place, name, *packages))
        if said.rstrip().rpartition("\n")[2].startswith(_NO_PYTHON):
            found = ", ".join(line.removeprefix(_NO_PYTHON).strip() for line in said.splitlines() if line.strip() != _NO_PYTHON)
            raise RemoteError(
                "There is no Python there that weber runs in.",
                got=f"{self.host.words} with {found or 'none of ' + ', '.join(asked)}",
                expected="Python 3.11 or newer",
                fix="install one there, or name it: --python /path/to/python3.12",
            )
        found_facts = self._read(said)
        self.python = str(found_facts["python"])
        return found_facts

    def ask(self, word: str, *given: object, write: Callable[[bytes], None] | None = None) -> Mapping[str, object]:
        """Do what a word of the program there means. `write`: hears what goes to standard error meanwhile."""
        return self._read(self._call(self._build_command(), _build_program(word, *given), write=write))

    @contextmanager
    def watching(self, root: str, offset: int) -> Iterator[subprocess.Popen[bytes]]:
        """A process whose output is what the run there says from a byte on. Leaving the context ends it, not the run."""
        command = [*self._build_ssh(), self.host.address, self._build_command()]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdin is not None
            try:
                with suppress(BrokenPipeError):
                    process.stdin.write(_build_program("watch", root, offset))
                    process.stdin.close()
                yield process
            finally:
                process.kill()

    def send(self, sources: Sequence[str], place: str, *, options: Sequence[str] = ()) -> None:
        """Copy files to a folder there; what is there already is not sent again."""
        self._copy([*options, "--", *sources, f"{self.host.target}:{place}/"])

    def fetch(self, place: str, folder: Path, *, options: Sequence[str] = ()) -> None:
        """Copy what is in a folder there into one here; each file appears whole."""
        self._copy([*options, "--", f"{self.host.target}:{place}/", f"{folder}/"])

    def explain(self, code: int, said: str) -> RemoteError:
        """What ssh or rsync has said, as an error."""
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        words, text = self.host.words, "\n".join(lines)
        last = next((one for one in reversed(lines) if not one.startswith(("rsync error", "rsync: connection unexp"))), f"exit code {code}")
        if "IDENTIFICATION HAS CHANGED" in text:
            return RemoteError(
                "The host has another key than the one that is known: it is another machine, or somebody is in between.",
                got=words,
                fix="if it was rented anew under this address, forget the old one as ssh says: ssh-keygen -R; then try again",
            )
        if "Host key verification failed" in text:
            return self._explain_unknown()
        if "Permission denied" in text and code == _LOST:
            return RemoteError(
                "The host lets nobody in with this key.",
                got=f"{words}: {last}",
                fix="name the private key (--identity ~/.ssh/id_ed25519; one with a passphrase goes into ssh-agent), or correct the user",
            )
        if "Identity file" in text and "not accessible" in text and code == _LOST:
            return RemoteError("The private key cannot be read.", got=f"--identity {self.host.identity}", fix="correct --identity")
        if "No space left" in text:
            return RemoteError(
                "The disk there is full.", got=f"{words}: {last}", fix="free space there, or name a folder on another disk: --there"
            )
        if "rsync: command not found" in text or "rsync: not found" in text:
            return RemoteError(
                "rsync is not installed there.", got=words, fix="install it there: apt-get update && apt-get install -y rsync"
            )
        is_lost = code in _PASSING
        what = "The host cannot be reached." if is_lost else "The other machine has refused it."
        error = RemoteError(
            what, got=f"{words}: {last}", fix="check the address, the port and that it runs" if is_lost else "see what it says"
        )
        error.is_passing = is_lost and "resolve hostname" not in text
        return error

    def accept(self, fingerprint: str) -> None:
        """Take the host's key, if it is the one with this fingerprint. Raises RemoteError for another one."""
        found = self._scan()
        line = found.get(fingerprint)
        if line is None:
            raise RemoteError(
                "The host has another key than the one that was named.",
                got=f"{self.host.words} with {', '.join(found)}",
                expected=fingerprint,
                fix="compare with what the provider shows, or what `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` says there",
            )
        self.host = Host(self.host.address, self.host.port, self.host.identity, (line,))

    def _explain_unknown(self) -> RemoteError:
        try:
            found = list(self._scan())
        except RemoteError as error:
            return error
        return RemoteError(
            "The key of this host is not known.",
            got=f"{self.host.words} with {', '.join(found)}",
            expected="a host whose key ssh knows, or one that you have compared",
            fix="compare it with what the provider shows (there: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub), then add"
            f" --host-key {found[0]}",
        )

    def _scan(self) -> dict[str, str]:
        """Lines of the host's keys by their fingerprints; the newest kind first."""
        resolved = subprocess.run([*self._build_ssh(), "-G", self.host.address], capture_output=True, text=True, check=False)
        known = dict(line.split(" ", 1) for line in resolved.stdout.splitlines() if " " in line)
        name, port = known.get("hostname", self.host.address.rpartition("@")[2]), known.get("port", "22")
        done = subprocess.run(["ssh-keyscan", "-T", "10", "-p", port, "--", name], capture_output=True, text=True, check=False)
        lines = sorted((one for one in done.stdout.splitlines() if one and not one.startswith("#")), key=lambda one: "ed25519" not in one)
        found: dict[str, str] = {}
        for line in lines:
            shown = subprocess.run(["ssh-keygen", "-lf", "-"], input=line + "\n", capture_output=True, text=True, check=False)
            found |= {word: line for word in shown.stdout.split()[1:2] if word.startswith("SHA256:")}
        if not found:
            raise RemoteError(
                "The host cannot be reached.", got=f"{self.host.words}: it has told no key", fix="check the address and the port"
            )
        return found

    def _build_ssh(self) -> list[str]:
        host, file = self.host, self._folder / HOSTS
        options = [word for name, value in _OPTIONS.items() for word in ("-o", f"{name}={value}")]
        if host.file is not None:
            new = ["-F", host.file, "-o", "StrictHostKeyChecking=accept-new", "-o", "LogLevel=ERROR"]
            options = [*new, *options, "-o", f'UserKnownHostsFile="{file}"']
        if host.keys:
            self._folder.mkdir(parents=True, exist_ok=True)
            text = "".join(f"{line}\n" for line in host.keys)
            if not file.is_file() or file.read_text(encoding="utf-8") != text:  # another call may be reading it
                file.write_text(text, encoding="utf-8")
            options += ["-o", f'UserKnownHostsFile="{file}"']
        options += [] if host.port is None else ["-p", str(host.port)]
        options += [] if host.identity is None else ["-o", "IdentitiesOnly=yes", "-i", host.identity]
        return ["ssh", *options]

    def _build_command(self) -> str:
        assert self.python is not None
        return shlex.join([self.python, "-P", "-"])

    def _call(self, command: str, program: bytes, *, write: Callable[[bytes], None] | None = None) -> str:
        words = [*self._build_ssh(), self.host.address, command]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            if write is None:
                said, failed = process.communicate(program)
            else:
                said, failed = _listen(process, program, write)
        if process.returncode:
            raise self.explain(process.returncode, failed.decode(errors="replace"))
        return said.decode(errors="replace")

    def _read(self, said: str) -> Mapping[str, object]:
        """The answer: the last line, since a login may greet first."""
        try:
            found = json.loads(said.rstrip().rpartition("\n")[2])
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise RemoteError(
                "The other machine gives no answer.", got=f"{self.host.words}: {said.strip()[-200:] or 'nothing'}", fix="log in there"
            )
        problem = found.get("problem")
        if problem is not None:
            raise self.explain(1, str(problem))
        return found

    def _copy(self, words: Sequence[str]) -> None:
        command = ["rsync", "-rtL", "--timeout=120", "-e", shlex.join(self._build_ssh()), *words]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        if done.returncode not in (0, _VANISHED):
            raise self.explain(done.returncode, done.stderr.decode(errors="replace"))


def _listen(process: subprocess.Popen[bytes], program: bytes, write: Callable[[bytes], None]) -> tuple[bytes, bytes]:
    """Standard output, and the end of standard error, of which each line was told as it came."""
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    with suppress(BrokenPipeError):  # why it does not listen is what it says
        process.stdin.write(program)
        process.stdin.close()
    failed = b""
    for line in process.stderr:
        write(line)
        failed = (failed + line)[-_KEPT_BYTES:]
    return process.stdout.read(), failed


def _build_program(word: str, *given: object) -> bytes:
    """The program with what it is to do; secrets in it are in no list of processes."""
    text = Path(there.__file__).read_text(encoding="utf-8")
    return f"{text}\nanswer(*json.loads({json.dumps([word, *given])!r}))\n".encode()

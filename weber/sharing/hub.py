"""A folder as a commit of a repository of the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from weber.config.publish import PublishConfig
from weber.errors import PublishError
from weber.sharing.folder import Folder

_UNAUTHORIZED, _FORBIDDEN, _TOO_LARGE, _TOO_MANY = 401, 403, 413, 429
_PASSING = (408, 425, _TOO_MANY, 500, 502, 503, 504)
LOGIN = "run `hf auth login` with a token that may write (one in HF_TOKEN wins over it)"


def send_to_hub(folder: Folder, config: PublishConfig, *, message: str) -> str:
    """Make the repository if it is not there, and commit the folder; returns the address of the page. What the hub has already is not sent
    again, so a further try goes on where the one before has ended. Raises PublishError."""
    from huggingface_hub import CommitOperationAdd, HfApi, constants
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    assert config.to is not None
    if not has_token():
        raise PublishError(f"There is no token of the hub, so nothing can be sent to {config.to}.", fix=LOGIN)
    api = HfApi(endpoint=constants.ENDPOINT)
    try:
        with _quiet():
            api.create_repo(config.to, private=config.visibility == "private", exist_ok=True)
            if config.visibility == "private" and not api.model_info(config.to).private:
                raise _build_public(config.to)
            operations = [CommitOperationAdd(file.relative_to(folder.path).as_posix(), str(file)) for file in folder.files]
            for operation in operations:  # one at a time: threads of several would keep a process that is to end
                api.preupload_lfs_files(config.to, [operation], free_memory=False)
            api.create_commit(config.to, operations, commit_message=message)
    except (OSError, HTTPError, ValueError, RuntimeError) as error:
        raise _explain(error, config.to) from error
    return f"{constants.ENDPOINT}/{config.to}"


def has_token() -> bool:
    """Whether there is a token: of the environment, or of `hf auth login`."""
    from huggingface_hub import get_token

    return get_token() is not None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without bars of the hub's own between the lines of a run."""
    from huggingface_hub import utils

    was_quiet = utils.are_progress_bars_disabled()  # type: ignore[attr-defined]
    utils.disable_progress_bars()  # type: ignore[attr-defined]
    try:
        yield
    finally:
        if not was_quiet:
            utils.enable_progress_bars()  # type: ignore[attr-defined]


def _build_public(name: str) -> PublishError:
    return PublishError(
        f"Everyone can see the repository {name}, and what is to be sent is private.",
        got='publish.visibility = "private"',
        fix="make it private on its page, choose another name, or say --public --consent",
    )


def _explain(error: Exception, name: str) -> PublishError:
    """In words. What the hub says itself is left out: it may hold addresses that are secret."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ is not None else error
    if isinstance(cause, HfHubHTTPError):
        return _explain_status(cause.response.status_code, name)
    if isinstance(cause, OfflineModeIsEnabled):
        return PublishError(f"Nothing was sent to {name}.", got="HF_HUB_OFFLINE is set", fix="unset it")
    told = PublishError(f"Nothing was sent to {name}.", got=type(cause).__name__, fix="check the connection")
    told.is_passing = not isinstance(cause, ValueError)
    return told


def _explain_status(status: int, name: str) -> PublishError:
    what, got = f"Nothing was sent to {name}.", f"the hub answers {status}"
    fixes = {
        _UNAUTHORIZED: LOGIN,
        _FORBIDDEN: f"use a token that may write to {name.partition('/')[0]}, or choose another owner",
        _TOO_LARGE: "send fewer formats",
    }
    other = "try again later" if status in _PASSING else "check the name of the repository"
    told = PublishError(what, got=got, fix=fixes.get(status, other))
    told.is_passing = status in _PASSING
    return told

"""The hub of models and datasets: whether it can be reached, and pushing a model to it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from policyopt.errors import UserError, first_line

SECONDS = 3.0
"""How long the hub may take to answer at all; its own client would try for half a minute."""


def reachable() -> bool:
    """Whether the hub answers now; never longer than :data:`SECONDS`."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]

    answered = threading.Event()

    def ask() -> None:
        try:
            get_session().head(constants.ENDPOINT, timeout=SECONDS)
            answered.set()
        except Exception:  # whatever the client raises: there was no answer
            pass
        finally:
            done.set()

    done = threading.Event()
    if not constants.HF_HUB_OFFLINE:
        # In a thread, because looking up a name knows no time limit.
        threading.Thread(target=ask, daemon=True).start()
        done.wait(SECONDS)
    return answered.is_set()


@contextmanager
def quickly() -> Iterator[None]:
    """Datasets of a hub that cannot be reached come from this machine's cache, or fail at once."""
    import datasets
    from huggingface_hub import constants

    places = [(constants, "HF_HUB_OFFLINE"), (datasets.config, "HF_HUB_OFFLINE")]
    before = [getattr(*place) for place in places]
    if not reachable():
        for module, name in places:
            setattr(module, name, True)
    try:
        yield
    finally:
        for (module, name), value in zip(places, before, strict=True):
            setattr(module, name, value)


def only_cached(option: str, name: str) -> bool:
    """Whether a model has to be taken from this machine's cache of the hub, which cannot be reached now.

    False for a folder. Raises :class:`~policyopt.errors.UserError` where it is neither here nor to be had.
    """
    from huggingface_hub import constants, try_to_load_from_cache

    if Path(name).exists() or not _is_id(name) or reachable():
        return False
    if isinstance(try_to_load_from_cache(name, "config.json"), str):
        return True
    raise UserError(
        f"{option} {name}: there is no such folder, and the hub ({constants.ENDPOINT}) cannot be reached to look for a model "
        "of that name: give a folder, or try again with a network"
    )


def check_repository(name: str) -> None:
    """Raises ``ValueError`` for what is no id of a repository of somebody's, ``owner/name``."""
    if name.count("/") != 1 or not _is_id(name):
        raise ValueError(f"expected owner/name in letters, digits, '-', '_' and '.', not {name!r}")


def need_token(repository: str) -> None:
    """Raises :class:`~policyopt.errors.UserError` where nothing allows this machine to push."""
    from huggingface_hub import get_token

    if get_token() is None:
        raise UserError(
            f"--push-to-hub {repository}: this machine has no token for the hub; set HF_TOKEN in the environment, or call "
            "`hf auth login`"
        )


def push(model: Path, curves: Path | None, repository: str, *, public: bool = False, bar: bool = True) -> str:
    """Push the folder of a model, and one of TensorBoard's curves, to a repository, which is made where it is not there yet,
    private unless ``public``. Returns its address; ``bar`` shows the way there on standard error.

    Raises :class:`~policyopt.errors.UserError` with the reason where it fails.
    """
    from huggingface_hub import HfApi, constants, get_token
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars  # type: ignore[attr-defined]

    need_token(repository)
    if not reachable():
        raise UserError(f"the hub ({constants.ENDPOINT}) cannot be reached")
    hide = not bar and not are_progress_bars_disabled()
    if hide:
        disable_progress_bars()
    try:
        api = HfApi()
        made = api.create_repo(repository, private=not public, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=model, commit_message="Model")
        if curves is not None and curves.is_dir():
            api.upload_folder(
                repo_id=repository, folder_path=curves, path_in_repo="tensorboard", commit_message="Curves"
            )
        return str(made)
    except Exception as error:  # the client raises dozens of kinds, all of them about this push
        raise UserError(first_line(error).replace(get_token() or "\0", "***")) from error
    finally:
        if hide:
            enable_progress_bars()


def _is_id(name: str) -> bool:
    from huggingface_hub.utils import HFValidationError, validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True

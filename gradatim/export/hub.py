"""Upload of an exported folder to the Hugging Face hub.

The address, the token and the proxy are those of the package huggingface_hub: ``HF_ENDPOINT``, ``HF_TOKEN``, or the
token that ``hf auth login`` stored.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import UserError, WorkFailed


def check_name(name: str) -> None:
    """Raise ``UserError`` for a name that the hub would not accept."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise UserError(
            "this is no name of a model on the hub", where="--push", given=name, hint="OWNER/NAME"
        ) from error


def push(folder: Path, name: str, *, private: bool = True) -> str:
    """Upload the files of ``folder`` as one commit to the model ``name``; returns its address.

    A missing repository is created, ``private`` by default. Raises ``WorkFailed`` when the hub refuses or cannot be
    reached; the folder stays.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    api, shown = HfApi(), not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        repository = api.create_repo(name, private=private, exist_ok=True).repo_id
        api.upload_folder(repo_id=repository, folder_path=str(folder), commit_message="Upload by gradatim export")
    # Errors of the HTTP library, of the hub and of a missing token have no common class.
    except Exception as error:
        cause = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise WorkFailed(
            f"the folder {folder} is written but not uploaded", where="--push", given=cause,
            hint=f"hf auth login, then: hf upload {name} {folder}",
        ) from error  # fmt: skip
    finally:
        if shown:
            enable_progress_bars()
    return f"{api.endpoint}/{repository}"

"""Upload an exported folder to the Hugging Face hub: one repository, one commit; every refusal has its own message.

Uses huggingface_hub (an optional dependency); HF_ENDPOINT and HF_TOKEN (or `hf auth login`) are respected.
"""

import re
from pathlib import Path

from common.errors import UserError
from common.hub import NETWORK, endpoint, library

ADDRESS = "owner/name"


def check_push(repository: str) -> None:
    """UserError before any work: a malformed address, huggingface_hub not installed, or no token."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise UserError(f"--push {repository}: not the name of a repository. Write {ADDRESS}.")
    if library().get_token() is None:
        raise UserError(
            f"--push {repository}: no token. Set HF_TOKEN to one with write access ({endpoint()}/settings/tokens), or run "
            "`hf auth login`."
        )


def push(folder: str | Path, repository: str, private: bool = False) -> str:
    """Upload all files of `folder` as one commit to `repository`, created if needed; returns the repository's address.

    Raises UserError as `check_push`, for a token that is invalid or has no write access, and if the hub cannot be reached or
    refuses the upload. The folder is unchanged.
    """
    check_push(repository)
    hub = library()
    api = hub.HfApi(endpoint=endpoint())
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=str(folder), commit_message="Upload the exported model")
    except Exception as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        again = f"{folder} is complete: push it again once that is corrected."
        if status == 401:
            raise UserError(
                f"--push {repository}: the hub does not accept the token (401). Make a new one with write access at "
                f"{endpoint()}/settings/tokens and set HF_TOKEN. {again}"
            ) from None
        if status == 403:
            raise UserError(
                f"--push {repository}: the token may not write there (403). Take a repository of your own, or a token with "
                f"write access to {repository.split('/', maxsplit=1)[0]}. {again}"
            ) from None
        if status is not None:
            reason = " ".join(str(error).split())
            raise UserError(f"--push {repository}: the hub refused the upload ({status}: {reason}). {again}") from None
        if isinstance(error, OSError) or type(error).__module__.split(".")[0] in NETWORK:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
            raise UserError(
                f"--push {repository}: the hub cannot be reached at {endpoint()} ({reason}). Check the network and "
                f"HF_ENDPOINT. {again}"
            ) from None
        raise
    return f"{endpoint()}/{repository}"

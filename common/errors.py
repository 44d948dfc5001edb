"""The one exception that is meant for the user's eyes."""


class UserError(Exception):
    """Something the user can put right: bad input, a missing file, a setting that cannot work.

    The message says what is wrong, where (file, line or key) and what to do. The scripts print it without a
    traceback and exit with code 2; anything else that is raised is a defect of ours and keeps its traceback.
    """

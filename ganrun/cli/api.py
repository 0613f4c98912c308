"""`ganrun.compose`: compose a config in Python, as on the command line."""

from ganrun.cli.compose import add_user_folders, config_dirs, groups_and_options, ignore_empty_variables, plain
from ganrun.cli.compose import compose as compose_verb
from ganrun.cli.errors import USERS_ERRORS, sentence
from ganrun.cli.overrides import check_choices, parse, quote_path
from ganrun.cli.settings import path_keys
from ganrun.cli.validate import validate
from ganrun.config import Config


def compose(*overrides: str) -> Config:
    """The config of the training job that `ganrun OVERRIDES` runs, as plain dictionaries.

    Your own options are found in ./conf and your own modules in the working directory, as on the command line.
    Raises ValueError for an invalid setting.

    >>> compose("loss=wgan", "train.steps=50")["train"]["n_critic"]
    5
    """
    ignore_empty_variables()
    add_user_folders([])
    paths = path_keys(config_dirs([]))
    arguments = [quote_path(override, paths, sweep=False) for override in overrides]
    try:
        check_choices(parse(arguments), groups_and_options(config_dirs([])))
        config = plain(compose_verb("train", arguments))
        validate("train", config)
    except USERS_ERRORS as error:
        raise ValueError(sentence(error, "train", arguments)) from error
    if modules := config["trust"]:
        raise ValueError(f"trust={modules}: in Python, call ganrun.trust(MODULE).")
    return config

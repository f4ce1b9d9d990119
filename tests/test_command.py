"""What all commands share: help by group, one message for a mistake, exit codes."""

from __future__ import annotations

import importlib
import itertools

import pytest
from absl import flags

from distill_bench.command import FAILED, INTERRUPTED, MISUSED, OK, Flags, run
from distill_bench.errors import SweepFailed, UserError
from distill_bench.log import LOG

COMMANDS = {
    "sweeps.run": None,
    "sweeps.leaderboard": None,
    "sweeps.verify": None,
    "sweeps.tune_check": None,
    "sweeps.simulate": None,
    "sweeps.evidence": None,
    "sweeps.benchmark": None,
    "distill_bench.data.__main__": "_flags",
    "distill_bench.weights.__main__": "_flags",
    "distill_bench.teacher.__main__": "_flags",
}


@pytest.fixture(params=COMMANDS)
def values(request):
    """The flags of each command in turn."""
    module = importlib.import_module(request.param)
    return module._flags() if COMMANDS[request.param] else module.FLAGS


def make_flags():
    values = Flags()
    with values.group("How many"):
        flags.DEFINE_integer("trials", 8, "Trials.", lower_bound=1, flag_values=values)
    with values.group("How"):
        flags.DEFINE_enum("executor", None, ["local", "ray"], "where.", flag_values=values)
        flags.DEFINE_bool("remat", False, "Less memory.", flag_values=values)
        flags.DEFINE_bool("cost", True, "Also the cost.", flag_values=values)
    return values


def answer(work, *arguments, **options):
    return run(
        work,
        make_flags(),
        "Does it.",
        ["it", *arguments],
        after_interrupt="It starts again.",
        **options,
    )


def test_every_flag_is_in_one_group(values):
    assert sorted(itertools.chain(*values.groups.values())) == sorted(values)


def test_the_help_of_every_command_fits_80_columns(values):
    assert max(len(line) for line in values.grouped_help().splitlines()) <= 80


def test_help_lists_flags_with_their_defaults_by_group(capsys):
    assert answer(pytest.fail, "--help") == OK
    assert capsys.readouterr().out == (
        "Does it.\n\n"
        "How many\n"
        "  --trials              Trials. Default: 8.\n\n"
        "How\n"
        "  --executor            <local|ray>: where.\n"
        "  --remat               Less memory.\n"
        "  --cost                Also the cost. Default: yes; --nocost for no.\n"
    )


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--trails=2", "Unknown flag --trails. Did you mean '--trials'? See --help."),
        ("--hel", "Unknown flag --hel. Did you mean '--help'? See --help."),
        ("--trials=many", "--trials=many: expected a positive integer."),
        ("--trials=0", "--trials=0: expected a positive integer."),
        ("--executor=slurm", "--executor=slurm: expected one of local, ray."),
        ("--remat=maybe", "--remat=maybe: expected true or false."),
        ("--trials", "Missing value for flag --trials. See --help."),
        (
            "digits",
            "Unexpected argument 'digits': flags are written --name=value. See --help.",
        ),
    ],
)
def test_a_mistyped_flag_is_one_line(argument, message, capsys):
    assert answer(pytest.fail, argument) == MISUSED
    assert capsys.readouterr() == ("", f"error: {message}\n")


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (UserError("no such task"), MISUSED, "error: no such task\n"),
        (SweepFailed("the worker died"), FAILED, "error: the worker died\n"),
        (OSError(13, "Permission denied", "x"), FAILED, "error: [Errno 13] Permission denied: 'x'"),
        (KeyboardInterrupt(), INTERRUPTED, "\nInterrupted. It starts again.\n"),
    ],
)
def test_an_error_is_one_message_and_an_exit_code(error, code, message, capsys):
    def work():
        raise error

    assert answer(work) == code
    assert capsys.readouterr().err.startswith(message)


def test_an_error_that_nobody_explains_keeps_its_stack_trace():
    def work():
        raise OSError("a defect")

    with pytest.raises(OSError, match="a defect"):
        answer(work, explain=lambda error: None)


def test_arguments_and_log_messages_are_passed_on(capsys):
    def work(arguments):
        LOG.info("half of it")
        return len(arguments)

    assert answer(work, "a", "--trials=3", "b", takes_arguments=True) == 2
    assert capsys.readouterr() == ("", "half of it\n")

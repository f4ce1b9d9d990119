"""What every command does around its work: flags and their help, messages, exit codes."""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from absl import flags

from distill_bench import interrupts, settings, streams
from distill_bench.errors import SweepFailed, UserError, suggestion
from distill_bench.log import LOG, listen, to_stderr

OK, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130

_HELP = {"--help", "-h", "-help", "--helpshort", "-helpshort"}
_WIDTH, _COLUMN = 80, 24  # characters of a line of help; where its text begins


class Flags(flags.FlagValues):
    """The flags of one command, in the groups that --help shows.

    They are not absl's global flags, because several commands define flags of the same name.

    Attributes:
      groups: the names of the flags, by the title of their group.
    """

    groups: dict[str, list[str]]

    def __init__(self) -> None:
        super().__init__()
        self.__dict__["groups"] = {}  # a plain assignment would set a flag

    @contextmanager
    def group(self, title: str) -> Iterator[None]:
        """Puts the flags that are defined in the `with` block into a group."""
        before = set(self)
        yield
        self.groups[title] = [name for name in self if name not in before]

    def grouped_help(self) -> str:
        return "\n\n".join(
            "\n".join([title, *map(self._describe, names)]) for title, names in self.groups.items()
        )

    def _describe(self, name: str) -> str:
        flag = self[name]
        text = " ".join(flag.help.split())  # absl adds "<a|b>:" to choices, and line breaks
        if flag.boolean and flag.default:
            text += f" Default: yes; --no{name} for no."
        elif flag.default:
            text += f" Default: {flag.default}."
        return textwrap.fill(
            text,
            _WIDTH,
            initial_indent=f"  --{name}".ljust(_COLUMN - 2) + "  ",
            subsequent_indent=" " * _COLUMN,
            break_long_words=False,
            break_on_hyphens=False,
        )


def run(
    work: Callable[..., int],
    values: Flags,
    usage: str,
    argv: list[str],
    *,
    takes_arguments: bool = False,
    after_interrupt: str,
    explain: Callable[[OSError], str | None] = str,
) -> int:
    """Parses the flags, calls `work` and returns the exit code. A mistake is one message.

    Log messages of the library are printed on stderr meanwhile.

    Args:
      work: does the work and returns the exit code.
      values: the command's flags, which this sets.
      usage: printed above the flags by --help.
      argv: the command line, with the name of the program first.
      takes_arguments: pass the arguments that are not flags to `work`, as a list.
      after_interrupt: what the same command does next time, told after Ctrl-C, SIGTERM or SIGHUP.
      explain: the message for an error of the operating system; None to raise it again.
    """
    streams.make_ready()
    listen(to_stderr)
    with interrupts.raised(last_words := f"Interrupted. {after_interrupt}"):
        try:
            return _finished(_work(work, values, usage, argv, takes_arguments))
        except flags.Error as error:
            return _fail(_explain_misuse(error, values), MISUSED)
        except UserError as error:
            return _fail(str(error), MISUSED)
        except SweepFailed as error:
            return _fail(str(error), FAILED)
        except BrokenPipeError:
            return _finished(FAILED)
        except OSError as error:
            if (message := explain(error)) is None:
                raise
            return _fail(message, FAILED)
        except KeyboardInterrupt as error:
            to_stderr(f"\n{last_words}")
            return error.exit_code if isinstance(error, interrupts.Interrupted) else INTERRUPTED


def _work(
    work: Callable[..., int], values: Flags, usage: str, argv: list[str], takes_arguments: bool
) -> int:
    if _HELP & set(argv[1:]):
        print(f"{usage.strip()}\n\n{values.grouped_help()}")
        return OK
    arguments = values(argv)[1:]
    if removed := settings.take_over():
        LOG.info("Ignored, because it changes numbers: %s", ", ".join(removed))
    if takes_arguments:
        return work(arguments)
    if arguments:
        raise UserError(
            f"Unexpected argument {arguments[0]!r}: flags are written --name=value. See --help."
        )
    return work()


def _finished(code: int) -> int:
    """Writes what is left of the output. Returns the code, or FAILED if that cannot be done."""
    try:
        sys.stdout.flush()
        return code
    except OSError as error:
        streams.discard(sys.stdout)  # else Python tries again when it ends
        if isinstance(error, BrokenPipeError):  # the reader of a pipe has gone, such as `head`
            return FAILED
        return _fail(f"The output could not be written: {error.strerror}.", FAILED)


def _fail(message: str, code: int) -> int:
    to_stderr(f"error: {message}")
    return _finished(code)


def _explain_misuse(error: flags.Error, values: Flags) -> str:
    if isinstance(error, flags.UnrecognizedFlagError):
        name, known = f"--{error.flagname}", [f"--{name}" for name in (*values, "help")]
        return f"Unknown flag {name}.{suggestion(name, known)} See --help."
    refused = re.match(r"flag --(\w+)=(.*?): ", str(error), re.DOTALL)
    if isinstance(error, flags.IllegalFlagValueError) and refused:
        name, value = refused.groups()
        parser = values[name].parser
        if choices := getattr(parser, "enum_values", None):
            return f"--{name}={value}: expected one of {', '.join(choices)}."
        return f"--{name}={value}: expected {parser.syntactic_help or 'true or false'}."
    return f"{error}. See --help."

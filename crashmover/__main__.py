# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""``python -m crashmover``; also what the script ``crashmover`` may run."""

import gc
import signal

from crashmover import streams


def main() -> None:
    """Run the command line.

    Until that is imported, which takes most of the time of a short command, nothing is in hand,
    and an interrupt shall end us as any other signal does: without a traceback.
    """
    streams.open_closed()
    # What is imported stays, and a run makes many objects that go away by themselves, and no cycles
    # to speak of: to look for some more often takes a tenth of the start.
    gc.set_threshold(50_000)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from crashmover.cli import main as command_line

    command_line()


if __name__ == "__main__":
    main()

"""Types into an interactive shell on a pseudo-terminal, and waits for what the shell makes of it.

Usage: completion.py SETUP TYPED EXPECTED SHELL [OPTION...]

Runs the shell, gives it SETUP, which must set the prompt to "READY> ", and then types TYPED. Ends with status 0 as soon
as EXPECTED is on the screen, and with 1 if it is not within 20 seconds.
"""

import os
import pty
import re
import select
import signal
import sys
import time

setup, typed, expected, *shell = sys.argv[1:]
child, terminal = pty.fork()
if child == 0:
    os.execvp(shell[0], shell)
end = time.monotonic() + 20
seen = ""


def wait_for(text):
    """Reads until the text has been printed; escape sequences do not count."""
    global seen
    while text not in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b\].*?\x07|[\x00-\x09\x0b-\x1f]", "", seen):
        left = end - time.monotonic()
        if left <= 0 or not select.select([terminal], [], [], left)[0]:
            print(f"{text!r} is not in {seen!r}")
            os.kill(child, signal.SIGKILL)
            sys.exit(1)
        seen += os.read(terminal, 65536).decode(errors="replace")
    seen = ""


# The echo of the setup has the prompt in quotes.
os.write(terminal, setup.encode() + b"\n")
wait_for("READY> ")
os.write(terminal, typed.encode())
wait_for(expected)
os.kill(child, signal.SIGKILL)

#!/usr/bin/env python3
"""Run `python -c CODE` in a fork of the process of tests/interpreter.py.

The fork gets the file descriptors of this process. Requires no packages.
"""

import json
import os
import socket
import sys
from pathlib import Path

numbers = [int(each.name) for each in Path("/dev/fd").iterdir() if each.exists()]
connection = socket.socket(socket.AF_UNIX)
connection.connect(os.environ["PRESSROOM_TEST_SOCKET"])
message = json.dumps({"arguments": sys.argv, "numbers": numbers}).encode()
socket.send_fds(connection, [message], numbers)
for number in numbers:
    os.close(number)
connection.recv(1)  # until the fork ends

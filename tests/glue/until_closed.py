"""Runs moto on the given port until standard input ends, which it does with the test that holds its other end."""
import os
import sys
import threading

from moto.server import main


def wait():
    sys.stdin.buffer.read()
    os._exit(0)


threading.Thread(target=wait, daemon=True).start()
main(["-H", "127.0.0.1", "-p", sys.argv[1]])

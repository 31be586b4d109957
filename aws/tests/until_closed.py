"""Runs ministack until standard input ends, which it does with the test that holds its other end."""
import os
import sys
import threading

from ministack.app import main


def wait():
    sys.stdin.buffer.read()
    os._exit(0)


threading.Thread(target=wait, daemon=True).start()
sys.argv[:] = ["ministack"]
main()

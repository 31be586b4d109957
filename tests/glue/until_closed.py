"""Runs moto on the given port until standard input ends, which it does with the test that holds its other end."""
import base64
import json
import os
import sys
import threading

from moto.server import main
from py_partiql_parser import JsonParser


def wait():
    sys.stdin.buffer.read()
    os._exit(0)


def items(original):
    """The items of a file of an import, a JSON object in each line. moto keeps their binary values as text, unlike those that
    are put, so that no key of them is found."""
    for line in original.splitlines():
        item = json.loads(line)["Item"]
        yield {"Item": {name: {"B": base64.b64decode(value["B"], validate=True)} if "B" in value else value for name, value in item.items()}}


JsonParser.parse = staticmethod(items)
threading.Thread(target=wait, daemon=True).start()
main(["-H", "127.0.0.1", "-p", sys.argv[1]])

"""Writes the golden files beside it, by encoders that are not ours. Run once, by hand:

python3 -m venv v && v/bin/pip install aws_kinesis_agg six fastavro protobuf grpcio-tools && v/bin/python make.py
"""
import base64
import io
import json
import random
import subprocess
import sys
import uuid
import zlib
from pathlib import Path

import fastavro
from aws_kinesis_agg.aggregator import RecordAggregator

here = Path(__file__).parent
draw = random.Random(20261125)


def b64(data):
    return base64.b64encode(data).decode()


def aggregate():
    aggregator = RecordAggregator(1 << 20)
    parts = []
    for _ in range(draw.choice([1, 2, 3, 10, 60])):
        key = draw.choice(["a", "user-1", "user-2", "schlüssel", str(draw.random())])
        hash_key = draw.choice([None, None, "0", str(draw.getrandbits(128))])
        data = bytes(draw.getrandbits(8) for _ in range(draw.choice([0, 1, 5, 80])))
        assert aggregator.add_user_record(key, data, hash_key) is None
        parts.append({"key": key, "hash_key": hash_key, "data": b64(data)})
    return {"aggregate": b64(aggregator.clear_and_get().get_contents()[2]), "parts": parts}


def lines(name, values):
    text = "".join(json.dumps(v, ensure_ascii=False) + "\n" for v in values)
    (here / name).write_text(text, encoding="utf-8")


WRITER = {"type": "record", "name": "Trip", "fields": [
    {"name": "id", "type": "long"},
    {"name": "carrier", "type": ["null", "string"]},
    {"name": "delay", "type": "double"},
    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
    {"name": "stops", "type": {"type": "array", "items": "int"}},
]}
OLDER = {"type": "record", "name": "Trip", "fields": [
    {"name": "id", "type": "int"},
    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
    {"name": "gate", "type": "string"},
]}
READER = {"type": "record", "name": "Trip", "fields": [
    {"name": "id", "type": "long"},
    {"name": "carrier", "type": ["null", "string"], "default": None},
    {"name": "delay", "type": "double", "default": 0.5},
    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
    {"name": "stops", "type": {"type": "array", "items": "int"}, "default": []},
]}


def datum(schema, row):
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), row)
    return out.getvalue()


def avro():
    new = [{"id": 1 << 40, "carrier": "UA", "delay": -1.25, "at": 1767225600000001, "stops": [1, -2]},
           {"id": -7, "carrier": None, "delay": 3e300, "at": 0, "stops": []}]
    old = [{"id": 5, "at": 86400000000, "gate": "B7"}]
    glue = uuid.UUID("6f1c7e2c-9d0a-4b43-9b10-0123456789ab")
    header = bytes([3, 0]) + glue.bytes
    packed = bytes([3, 5]) + glue.bytes
    lines("avro.jsonl", [
        {"schemas": {"reader": READER, "new": WRITER, "old": OLDER}, "glue": str(glue)},
        {"plain": [b64(datum(READER, r)) for r in new]},
        {"confluent": [b64(bytes([0, 0, 0, 1, 4]) + datum(WRITER, r)) for r in new]
         + [b64(bytes([0, 0, 0, 0, 9]) + datum(OLDER, r)) for r in old]},
        {"glue": [b64(header + datum(WRITER, new[0])), b64(packed + zlib.compress(datum(WRITER, new[1])))]},
    ])


def protobuf():
    from grpc_tools import protoc
    import grpc_tools
    include = str(Path(grpc_tools.__file__).parent / "_proto")
    args = ["protoc", f"-I{here}", f"-I{include}", "--include_imports", f"--descriptor_set_out={here}/shop.desc",
            f"--python_out={here}", "shop.proto"]
    assert protoc.main(args) == 0
    sys.path.insert(0, str(here))
    import shop_pb2
    full = shop_pb2.Order(id=-3, total=0.0, state=1, tags={"b": -5, "a": 7}, raw=b"\x00\xff", cash=False,
                          ratings=[1.5, -2])
    full.items.add(sku="x", count=4000000000)
    full.items.add(sku="", count=0)
    full.at.seconds, full.at.nanos = 1767225600, 123456789
    full.note.value = ""
    full.other.name = "o"
    full.parent.id = 9
    unknown = shop_pb2.Order(card=1 << 63)
    unknown.state = 77
    lines("protobuf.jsonl", [b64(m.SerializeToString()) for m in (full, shop_pb2.Order(), unknown)])
    (here / "shop_pb2.py").unlink()
    subprocess.run(["rm", "-rf", str(here / "__pycache__")], check=True)


lines("kpl.jsonl", [aggregate() for _ in range(40)])
avro()
protobuf()

"""Compares requests with the shapes that AWS publishes of its services, which botocore has: a JSON array of service, operation
and body in each line of the input. Prints each problem once; the exit code says whether there was one."""
import json
import re
import sys

from botocore.loaders import Loader
from botocore.model import ServiceModel

TYPES = {"string": str, "integer": int, "long": int, "boolean": bool, "float": (int, float), "double": (int, float), "blob": str, "timestamp": (int, float)}
models, problems, seen = {}, {}, set()


def check(shape, value, path):
    meta = shape.metadata
    if shape.type_name == "structure":
        if not isinstance(value, dict):
            return report(path, "is no structure")
        for name in shape.required_members:
            if name not in value:
                report(path, f"has no {name}")
        for name, inner in value.items():
            if name in shape.members:
                check(shape.members[name], inner, f"{path}.{name}")
            else:
                report(path, f"has a member {name}, which the service does not know")
    elif shape.type_name == "list":
        limits(meta, len(value), path)
        for inner in value:
            check(shape.member, inner, f"{path}[]")
    elif shape.type_name == "map":
        limits(meta, len(value), path)
        for key, inner in value.items():
            check(shape.key, key, f"{path}.key")
            check(shape.value, inner, f"{path}{{}}")
    else:
        if not isinstance(value, TYPES[shape.type_name]) or isinstance(value, bool) != (shape.type_name == "boolean"):
            return report(path, f"is no {shape.type_name}")
        if shape.type_name == "string":
            limits(meta, len(value), path)
            if "enum" in meta and value not in meta["enum"]:
                report(path, f"is {value}, not one of {meta['enum']}")
            if "pattern" in meta and not re.search(f"^(?:{meta['pattern']})$", value):
                report(path, f"is {value}, which is not like {meta['pattern']}")
        elif shape.type_name in ("integer", "long"):
            limits(meta, value, path)


def limits(meta, size, path):
    if not meta.get("min", size) <= size <= meta.get("max", size):
        report(path, f"has or is {size}, not {meta.get('min')} to {meta.get('max')}")


def report(path, text):
    problems[f"{path} {text}"] = True


for line in sys.stdin:
    service, operation, body = json.loads(line)
    if service not in models:
        models[service] = ServiceModel(Loader().load_service_model(service, "service-2"))
    seen.add(operation)
    check(models[service].operation_model(operation).input_shape, body, operation)
print(*problems, sep="\n")
sys.exit(1 if problems or not seen else 0)

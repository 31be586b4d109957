"""featurectl beside Feast, with DynamoDB as the online store: filling it, and reading 50 features of 1, 10 and 100 entities.

Both get the same rows, made by a seed, and write to the same process of an emulator: two rows of each entity at
different times, of which the later counts. All values are read through both and compared first. Feast's filling is its
call `materialize` alone, featurectl's the whole process of `run`. Reads are interleaved rounds of both. `get` and `query`
are the SDK alone, for the same items as featurectl reads.

Usage: feast.py PATH_TO_FEATURECTL PATH_TO_ONLINE_BENCH [--emulator dynoxide|dynalite|ministack] [--entities N] [--rounds N]
(`cargo build --release` and `cargo build --release --example online_bench` make the two). The virtual environment and the
emulator dynoxide (`cargo install`, some minutes) are made once; the other emulators are those that `./test` installs.
"""
import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time

CACHE = os.path.expanduser(os.environ.get("XDG_CACHE_HOME", "~/.cache"))
HERE = f"{CACHE}/featurectl-peers/feast"
PYTHON = f"{HERE}/venv/bin/python"
DYNOXIDE = os.environ.get("FEATURECTL_DYNOXIDE", f"{CACHE}/featurectl/dynoxide-3.2.0")
FEATURES = [f"f{i:02}" for i in range(50)]
SIZES = (1, 10, 100)
# 2024-01-03, after all rows.
AT_US = 1_704_240_000_000_000

GENERATE = """
import sys
import numpy as np, pyarrow as pa, pyarrow.parquet as pq
folder, entities = sys.argv[1], int(sys.argv[2])
random = np.random.default_rng(1)
n = 2 * entities
ts = 1_704_067_200_000_000 + random.permutation(n) * (86_400_000_000 // n)
columns = {"user_id": random.permutation(np.arange(n) % entities), "ts": pa.array(ts, pa.timestamp("us"))}
columns |= {f"f{i:02}": np.round(random.gamma(2.0, 30.0, n), 2) for i in range(50)}
pq.write_table(pa.table(columns), f"{folder}/rows.parquet")
# Feast wants times with a zone.
columns["ts"] = pa.array(ts, pa.timestamp("us", "UTC"))
pq.write_table(pa.table(columns), f"{folder}/feast.parquet")
"""

# Fills a table of Feast, reads all values, then reads again and again as it is told by lines on its input.
FEAST = """
import json, os, sys, time
from datetime import datetime, timedelta, timezone
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig
from feast.infra.online_stores.dynamodb import DynamoDBOnlineStoreConfig
from feast.types import Float64, Int64
from feast.value_type import ValueType

folder, endpoint, entities, table = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
config = RepoConfig(project="peer", registry=f"{folder}/{table}.db", provider="local", entity_key_serialization_version=3,
                    online_store=DynamoDBOnlineStoreConfig(region="us-east-1", endpoint_url=endpoint, table_name_template=table, consistent_reads=True))
store = FeatureStore(config=config)
user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
names = [f"f{i:02}" for i in range(50)]
view = FeatureView(name="features", entities=[user], ttl=timedelta(days=10000), schema=[Field(name="user_id", dtype=Int64)] + [Field(name=n, dtype=Float64) for n in names],
                   source=FileSource(path=f"{folder}/feast.parquet", timestamp_field="ts"))
store.apply([user, view])
print(json.dumps({"ready": True}), file=sys.stderr, flush=True)
sys.stdin.readline()
began = time.perf_counter()
store.materialize(datetime(2023, 12, 31, tzinfo=timezone.utc), datetime(2024, 1, 3, tzinfo=timezone.utc))
print(json.dumps({"seconds": time.perf_counter() - began}), file=sys.stderr, flush=True)
features = [f"features:{n}" for n in names]
read = lambda ids: store.get_online_features(features=features, entity_rows=[{"user_id": i} for i in ids])
values = {}
for first in range(0, entities, 100):
    found = read(range(first, min(first + 100, entities))).to_dict()
    for row, user in enumerate(found["user_id"]):
        values[user] = [found[n][row] for n in names]
with open(f"{folder}/{table}.json", "w") as f:
    json.dump(values, f)
for line in sys.stdin:
    size, rounds = map(int, line.split())
    took = []
    for round in range(rounds + 20):
        ids = [((round * size + i) * 7919) % entities for i in range(size)]
        began = time.perf_counter()
        found = read(ids)
        if round >= 20:
            took.append((time.perf_counter() - began) * 1e6)
        assert len(found.to_dict()["f00"]) == size
    print(json.dumps(took), file=sys.stderr, flush=True)
"""

JOB = """CREATE EXTERNAL TABLE rows STORED AS PARQUET LOCATION 'rows.parquet';
CREATE FEATURE VIEW features ENTITY (user_id) EVENT TIME ts WITH (online = true) AS SELECT {features} FROM rows;
CREATE FEATURE SERVICE inputs (user_id BIGINT, at TIMESTAMP) AS
SELECT r.user_id, f.* FROM request r ASOF JOIN features f MATCH_CONDITION (r.at >= f.ts) ON r.user_id = f.user_id;
MATERIALIZE FEATURE VIEW features;
"""


def prepare(emulator):
    if not os.path.exists(f"{HERE}/venv/installed"):
        subprocess.check_call([sys.executable, "-m", "venv", f"{HERE}/venv"])
        subprocess.check_call([PYTHON, "-m", "pip", "install", "--quiet", "feast[aws]==0.67.0"])
        open(f"{HERE}/venv/installed", "w").close()
    if emulator == "dynoxide" and not os.path.exists(f"{DYNOXIDE}/bin/dynoxide"):
        subprocess.check_call(["cargo", "install", "dynoxide-rs", "--version", "3.2.0", "--no-default-features", "--features",
                               "native-sqlite,http-server,cli", "--root", DYNOXIDE])


def start(emulator, port):
    """The process of the emulator, on the loopback address."""
    environment = dict(os.environ)
    if emulator == "dynoxide":
        command = [f"{DYNOXIDE}/bin/dynoxide", "--host", "127.0.0.1", "--port", str(port)]
    elif emulator == "dynalite":
        folder = os.environ.get("FEATURECTL_DYNALITE", f"{CACHE}/featurectl/dynalite-4.0.0")
        command = ["node", f"{folder}/node_modules/dynalite/cli.js", "--host", "127.0.0.1", "--port", str(port), "--createTableMs", "20"]
    else:
        folder = os.environ.get("FEATURECTL_MINISTACK", f"{CACHE}/featurectl/ministack-1.5.33")
        command = [f"{folder}/bin/ministack"]
        environment |= {"BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(port), "SFTP_ENABLED": "0", "IOT_MTLS_ENABLED": "0"}
    server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return server
        except OSError:
            time.sleep(0.05)
    server.kill()
    sys.exit(f"{emulator} does not answer")


class Feast:
    """The process of Feast, which does what it is told."""

    def __init__(self, folder, endpoint, entities, table, environment):
        self.process = subprocess.Popen([PYTHON, "-W", "ignore", "-c", FEAST, folder, endpoint, str(entities), table], cwd=folder, env=environment, text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.answer()

    def answer(self):
        """The next line of JSON; what else Feast prints is left out."""
        lines = []
        for line in self.process.stderr:
            if line[:1] in "{[":
                try:
                    return json.loads(line)
                except ValueError:
                    pass
            lines.append(line)
        sys.exit("".join(lines))

    def tell(self, line):
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return self.answer()

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def fill(binary, folder, endpoint, table, environment):
    """Seconds of a `run` that fills a new table."""
    with open(f"{folder}/featurectl.toml", "w") as f:
        f.write(f'[profile.peer]\nonline = "dynamodb://{table}"\nregion = "us-east-1"\nendpoint = "{endpoint}"\n')
    shutil.rmtree(f"{folder}/.featurectl", ignore_errors=True)
    began = time.perf_counter()
    subprocess.run([binary, "--profile", "peer", "run", "job.sql", "-o", "json"], cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def compare(folder, table):
    ours, theirs = (json.load(open(f"{folder}/{name}.json")) for name in ("values", table))
    assert len(ours) == len(theirs) > 0 and ours == theirs, "the two stores have other values"
    print(f"{len(ours)} entities x {len(FEATURES)} features: all values are equal")


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] / 1000


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("featurectl")
    parser.add_argument("online_bench")
    parser.add_argument("--emulator", choices=("dynoxide", "dynalite", "ministack"), default="dynoxide")
    parser.add_argument("--entities", type=int, default=10_000)
    parser.add_argument("--fills", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--reads", type=int, default=200)
    args = parser.parse_args()
    featurectl, bench = os.path.abspath(args.featurectl), os.path.abspath(args.online_bench)
    prepare(args.emulator)
    folder = f"{HERE}/{args.entities}"
    if not os.path.exists(f"{folder}/feast.parquet"):
        os.makedirs(folder, exist_ok=True)
        subprocess.check_call([PYTHON, "-c", GENERATE, folder, str(args.entities)])
    with open(f"{folder}/job.sql", "w") as f:
        f.write(JOB.format(features=", ".join(FEATURES)))
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
    endpoint = f"http://127.0.0.1:{port}"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
    environment |= {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
                    "FEAST_USAGE": "False", "HOME": folder}
    server = start(args.emulator, port)
    try:
        measure(args, featurectl, bench, folder, endpoint, environment)
    finally:
        server.kill()


def measure(args, featurectl, bench, folder, endpoint, environment):
    ours, theirs = [], []
    stamp = os.getpid()
    for number in range(args.fills):
        feast = Feast(folder, endpoint, args.entities, f"feast{stamp}x{number}", environment)
        theirs.append(feast.tell("materialize")["seconds"])
        ours.append(fill(featurectl, folder, endpoint, f"ours{stamp}x{number}", environment))
        if number + 1 < args.fills:
            feast.end()
    print(f"emulator {args.emulator}; {args.entities} entities x {len(FEATURES)} features")
    rates = [statistics.median(args.entities / s for s in side) for side in (ours, theirs)]
    print(f"filled: featurectl {rates[0]:,.0f} entities/s, Feast {rates[1]:,.0f}: {rates[0] / rates[1]:.2f} x")
    took = {size: {} for size in SIZES}
    for _ in range(args.rounds):
        command = [bench, folder, "peer", "inputs", f"{folder}/values.json", str(AT_US), str(args.entities), str(args.reads), *map(str, SIZES)]
        out = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
        for size, ways in json.loads(out).items():
            for way, values in ways.items():
                took[int(size)].setdefault(way, []).extend(values)
        for size in SIZES:
            took[size].setdefault("Feast", []).extend(feast.tell(f"{size} {args.reads}"))
    feast.end()
    compare(folder, f"feast{stamp}x{args.fills - 1}")
    ways = ("service", "store", "get", "query", "Feast")
    print(f"{'ms: p50 / p99':<16}" + "".join(f"{w:>18}" for w in ways))
    for size in SIZES:
        cells = [f"{percentile(took[size][w], 0.5):.2f} / {percentile(took[size][w], 0.99):.2f}" for w in ways]
        print(f"{size:<16}" + "".join(f"{c:>18}" for c in cells))
    for way in ("service", "store"):
        shares = [percentile(took[size][way], 0.5) / percentile(took[size]["Feast"], 0.5) for size in SIZES]
        above = [percentile(took[size][way], 0.5) / percentile(took[size]["get"], 0.5) for size in SIZES]
        print(f"{way}: of Feast's p50 {', '.join(f'{s:.2f}' for s in shares)}; of BatchGetItem's {', '.join(f'{s:.2f}' for s in above)}")


if __name__ == "__main__":
    main()

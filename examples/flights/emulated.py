"""The job with an AWS profile gives what it gives in folders: S3, DynamoDB and Glue are emulators on the loopback address.

Runs the job twice, in folders and with `--profile aws`, and compares every row of every table (read by name from Glue),
the model, the scores, what is shown, and online values of random requests.

Usage: python3 emulated.py PATH_TO_FEATURECTL [REQUESTS [UNTIL]]    (Python 3 alone; works in a temporary folder)

With UNTIL, such as 2013-02-01, views are materialized with the events before it only, and so few enough tiles for the
emulator of DynamoDB that ./test installs. All 1.2 million need one that is faster:

cargo install dynoxide-rs --version 3.2.0 --locked --no-default-features --features native-sqlite,http-server,cli \
  --root ~/.cache/featurectl/dynoxide-3.2.0

FEATURECTL_DYNOXIDE moves that folder.
"""
import atexit
import csv
import io
import json
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

binary = os.path.abspath(sys.argv[1])
requests = int(sys.argv[2]) if len(sys.argv) > 2 else 40
until = sys.argv[3] if len(sys.argv) > 3 else None
here = os.path.dirname(os.path.abspath(__file__))
root = os.path.dirname(os.path.dirname(here))
cache = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "featurectl")
job = open(os.path.join(here, "job.sql")).read().replace("'data/", f"'{here}/data/").replace("'out/", "'${out}/")
if until:
    job = re.sub(r"(MATERIALIZE FEATURE VIEW \w+)", rf"\1 UNTIL '{until}'", job)
views = re.findall(r"MATERIALIZE FEATURE VIEW (\w+)", job)
failed = []


def installed(name, version):
    return os.environ.get(f"FEATURECTL_{name.upper().replace('-', '_')}") or os.path.join(cache, f"{name}-{version}")


def start(folder, name, command, **env):
    """A server of this script's own, on a free port, which ends with this script."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(port) if c == "PORT" else c for c in command]
    env = {**os.environ, **{k: str(port) if v == "PORT" else v for k, v in env.items()}}
    quiet = subprocess.DEVNULL
    server = subprocess.Popen(command, env=env, cwd=folder, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet)
    atexit.register(server.wait)
    atexit.register(server.kill)  # the last registered is called first
    for _ in range(1200):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return f"http://127.0.0.1:{port}"
        except OSError:
            if server.poll() is not None:
                break
            time.sleep(0.05)
    sys.exit(f"{name} does not start: run ./test first, which installs it")


def start_dynamodb(folder):
    fast = os.path.join(installed("dynoxide", "3.2.0"), "bin/dynoxide")
    if os.path.exists(fast):
        return start(folder, "dynoxide", [fast, "--host", "127.0.0.1", "--port", "PORT"])
    script = os.path.join(root, "feature-store/tests/dynamodb/until_closed.js")
    dynalite = os.path.join(installed("dynalite", "4.0.0"), "node_modules/dynalite/cli.js")
    return start(folder, "dynalite", ["node", "-r", script, dynalite, "--host", "127.0.0.1", "--port", "PORT"])


def featurectl(folder, *args):
    done = subprocess.run([binary, "-C", folder, *args], capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"{' '.join(args)}: {done.stderr}")
    return done.stdout


def rows(folder, profile, sql):
    open(os.path.join(folder, "look.sql"), "w").write(sql)
    return list(csv.DictReader(io.StringIO(featurectl(folder, *profile, "run", "look.sql", "-o", "csv"))))


def same(what, a, b):
    print(f"{'same' if a == b else 'DIFFERENT'}: {what}", flush=True)
    if a != b:
        failed.append(what)
        print(f"  in folders: {str(a)[:400]}\n  on AWS:     {str(b)[:400]}")


def table(name, of_folder, order):
    """Whether a table has the same rows: none that only one has, and as many."""
    sql = f"""{of_folder}
        SELECT (SELECT count(*) FROM here) AS here, (SELECT count(*) FROM glue.flights.{name}) AS there,
               (SELECT count(*) FROM (SELECT DISTINCT {order} FROM here)) AS keys,
               (SELECT count(*) FROM (SELECT * FROM here EXCEPT SELECT * FROM glue.flights.{name})) AS only_here,
               (SELECT count(*) FROM (SELECT * FROM glue.flights.{name} EXCEPT SELECT * FROM here)) AS only_there;"""
    found = rows(folder, AWS, sql)[0]
    n = found["here"]
    same(f"{name}, {int(n):,} rows", {"here": n, "there": n, "keys": n, "only_here": "0", "only_there": "0"}, found)


def shown(profile, what):
    """What is shown without what two runs may differ in: their ids, and times."""
    text = featurectl(folder, *profile, "show", what, "-o", "json")
    return re.sub(r'"(run_id|seconds)": [^,\n]+|rows/s|at [0-9,]+ ', "", text.replace("s3://flights/out", "out"))


AWS = ["--profile", "aws"]
with tempfile.TemporaryDirectory() as folder:
    ministack, moto = (os.path.join(installed(*of), "bin/python") for of in (("ministack", "1.5.33"), ("moto", "5.2.5")))
    servers = {
        "S3": start(folder, "ministack", [ministack, os.path.join(root, "aws/tests/until_closed.py")],
                    BIND_HOST="127.0.0.1", GATEWAY_PORT="PORT", SFTP_ENABLED="0", IOT_MTLS_ENABLED="0", LOG_LEVEL="ERROR", TMPDIR=folder),
        "GLUE": start(folder, "moto", [moto, os.path.join(root, "tests/glue/until_closed.py"), "PORT"]),
        "DYNAMODB": start_dynamodb(folder),
    }
    environment = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
    environment |= {f"AWS_ENDPOINT_URL_{name}": endpoint for name, endpoint in servers.items()}
    environment |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true", "HOME": folder}
    urllib.request.urlopen(urllib.request.Request(f"{servers['S3']}/flights", method="PUT")).read()
    open(os.path.join(folder, "featurectl.toml"), "w").write(
        '[profile.default.variables]\nout = "out"\n[profile.aws.variables]\nout = "s3://flights/out"\n'
        '[profile.aws]\nstore = "s3://flights/features"\nonline = "dynamodb://flights"\ncatalog = "glue://flights"\nregion = "us-east-1"\n')
    open(os.path.join(folder, "job.sql"), "w").write(job)
    for profile in ([], AWS):
        began = time.monotonic()
        steps = json.loads(featurectl(folder, *profile, "run", "job.sql", "-o", "json"))["steps"]
        print(f"{' '.join(profile) or 'in folders'}: {time.monotonic() - began:.0f} s")
        for step in steps:
            print(f"  {step['seconds']:6.1f} s  {step['verb']} {step['name']}  {step['detail']}", flush=True)

    delta = "CREATE EXTERNAL TABLE here STORED AS DELTA LOCATION '.featurectl/offline/{}';".format
    for view in views:
        entity = re.search(rf"CREATE FEATURE VIEW {view} ENTITY \(([^)]+)\)", job)[1]
        table(view, delta(view), f"{entity}, tile_us, tile_start")
    table("late_arrivals", delta("late_arrivals"), "flight_id")
    table("scores", "CREATE EXTERNAL TABLE here STORED AS PARQUET LOCATION 'out/scores';", "flight_id")
    for what in ("tables", "views", "services", "training-sets", "models"):
        same(f"show {what}", shown([], what), shown(AWS, what))
    version = json.loads(featurectl(folder, "show", "models", "-o", "json"))[0]["state"]["version"]
    model = open(os.path.join(folder, ".featurectl/models/late_arrival", version, "model.txt"), "rb").read()
    there = urllib.request.urlopen(f"{servers['S3']}/flights/features/models/late_arrival/{version}/model.txt").read()
    same(f"model {version}, {len(model):,} bytes", model, there)

    random.seed(1)
    keys = rows(folder, [], job[: job.index("CREATE FEATURE VIEW")] +
                "SELECT DISTINCT carrier, origin, dest, tailnum, distance FROM flights WHERE tailnum IS NOT NULL ORDER BY 1, 2, 3, 4;")
    ats = [f"{until or '2014-01-02'}T{hour}:10:00Z" for hour in ("00", "03", "09")]
    get = [[f"{k}={v}" for k, v in key.items()] + ["--at", random.choice(ats), f"sched_arr={random.choice(ats)}"] for key in random.sample(keys, requests)]
    values = [[featurectl(folder, *profile, "get", "late_arrival_inputs", *g, "-o", "csv") for g in get] for profile in ([], AWS)]
    same(f"{requests} requests online, {len(set(values[0]))} different answers", *values)
    again = json.loads(featurectl(folder, *AWS, "run", "job.sql", "-o", "json"))["steps"]
    same("run again: nothing to do", [True] * len(again), [step["unchanged"] for step in again])
sys.exit(bool(failed))

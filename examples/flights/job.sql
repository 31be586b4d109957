-- Will a flight arrive more than 15 minutes late? Asked when it is scheduled to leave, answered from what was known
-- then: delays of flights that had landed, and the weather of the hour that had passed.
CREATE EXTERNAL TABLE flights STORED AS PARQUET LOCATION 'data/flights.parquet';
CREATE EXTERNAL TABLE weather STORED AS PARQUET LOCATION 'data/weather.parquet';

-- Delays by carrier, origin, route and aircraft. A delay is known when the flight has landed, not earlier.
CREATE FEATURE VIEW carrier_delay ENTITY (carrier) EVENT TIME landed_at WITH (online = true, ttl = '90 days') AS
SELECT count(*) OVER h6 AS carrier_flights_6h, avg(arr_delay) OVER h6 AS carrier_delay_6h,
       avg(arr_delay) OVER d1 AS carrier_delay_1d, avg(arr_delay) OVER d7 AS carrier_delay_7d,
       avg(arr_delay) OVER d30 AS carrier_delay_30d, stddev(arr_delay) OVER d30 AS carrier_spread_30d,
       approx_percentile_cont(arr_delay, 0.9) OVER d30 AS carrier_delay_p90_30d
FROM flights WHERE arr_delay IS NOT NULL
WINDOW h6 AS (RANGE INTERVAL '6 hours' PRECEDING), d1 AS (RANGE INTERVAL '1 day' PRECEDING),
       d7 AS (RANGE INTERVAL '7 days' PRECEDING), d30 AS (RANGE INTERVAL '30 days' PRECEDING);

CREATE FEATURE VIEW origin_delay ENTITY (origin) EVENT TIME landed_at WITH (online = true, ttl = '90 days') AS
SELECT count(*) OVER h1 AS origin_landed_1h, avg(arr_delay) OVER h1 AS origin_delay_1h,
       max(dep_delay) OVER h1 AS origin_dep_delay_max_1h, avg(dep_delay) OVER h3 AS origin_dep_delay_3h,
       count(*) FILTER (WHERE arr_delay > 15) OVER h3 AS origin_late_3h, avg(arr_delay) OVER d1 AS origin_delay_1d
FROM flights WHERE arr_delay IS NOT NULL
WINDOW h1 AS (RANGE INTERVAL '1 hour' PRECEDING), h3 AS (RANGE INTERVAL '3 hours' PRECEDING),
       d1 AS (RANGE INTERVAL '1 day' PRECEDING);

CREATE FEATURE VIEW route_delay ENTITY (origin, dest) EVENT TIME landed_at WITH (online = true, ttl = '90 days') AS
SELECT count(*) OVER d30 AS route_flights_30d, avg(arr_delay) OVER d1 AS route_delay_1d,
       avg(arr_delay) OVER d30 AS route_delay_30d, min(air_time) OVER d30 AS route_air_time_min_30d,
       approx_distinct(carrier) OVER d30 AS route_carriers_30d,
       count(*) FILTER (WHERE arr_delay > 15) OVER d30 AS route_late_30d
FROM flights WHERE arr_delay IS NOT NULL
WINDOW d1 AS (RANGE INTERVAL '1 day' PRECEDING), d30 AS (RANGE INTERVAL '30 days' PRECEDING);

CREATE FEATURE VIEW aircraft_delay ENTITY (tailnum) EVENT TIME landed_at WITH (online = true, ttl = '90 days') AS
SELECT last_value(arr_delay) OVER d1 AS aircraft_last_delay_1d, count(*) OVER d1 AS aircraft_flights_1d,
       avg(arr_delay) OVER d7 AS aircraft_delay_7d, sum(air_time) OVER d7 AS aircraft_air_time_7d,
       count(*) OVER ever AS aircraft_flights
FROM flights WHERE arr_delay IS NOT NULL AND tailnum IS NOT NULL
WINDOW d1 AS (RANGE INTERVAL '1 day' PRECEDING), d7 AS (RANGE INTERVAL '7 days' PRECEDING),
       ever AS (RANGE UNBOUNDED PRECEDING);

-- The latest weather at the origin. A row sums up the hour from `observed_at` on, so it is known when that has passed.
CREATE FEATURE VIEW origin_weather ENTITY (origin) EVENT TIME known_at WITH (online = true, ttl = '6 hours') AS
SELECT temp, humid, wind_speed, wind_gust, precip, pressure, visib
FROM (SELECT *, observed_at + INTERVAL '1 hour' AS known_at FROM weather);

-- What the model sees, in training, scoring and serving.
CREATE FEATURE SERVICE late_arrival_inputs (carrier VARCHAR, origin VARCHAR, dest VARCHAR, tailnum VARCHAR,
                                            distance DOUBLE, sched_dep TIMESTAMP, sched_arr TIMESTAMP) AS
SELECT r.distance, date_part('hour', r.sched_dep) AS hour, date_part('dow', r.sched_dep) AS weekday,
       date_part('doy', r.sched_dep) AS day_of_year,
       (CAST(r.sched_arr AS BIGINT) - CAST(r.sched_dep AS BIGINT)) / 60000000 AS scheduled_minutes,
       c.*, o.*, d.*, a.*, w.*
FROM request r
ASOF JOIN carrier_delay  c MATCH_CONDITION (r.sched_dep >  c.landed_at) ON r.carrier = c.carrier
ASOF JOIN origin_delay   o MATCH_CONDITION (r.sched_dep >  o.landed_at) ON r.origin = o.origin
ASOF JOIN route_delay    d MATCH_CONDITION (r.sched_dep >  d.landed_at) ON r.origin = d.origin AND r.dest = d.dest
ASOF JOIN aircraft_delay a MATCH_CONDITION (r.sched_dep >  a.landed_at) ON r.tailnum = a.tailnum
ASOF JOIN origin_weather w MATCH_CONDITION (r.sched_dep >= w.known_at)  ON r.origin = w.origin;

MATERIALIZE FEATURE VIEW carrier_delay;
MATERIALIZE FEATURE VIEW origin_delay;
MATERIALIZE FEATURE VIEW route_delay;
MATERIALIZE FEATURE VIEW aircraft_delay;
MATERIALIZE FEATURE VIEW origin_weather;

CREATE TRAINING SET late_arrivals FROM SERVICE late_arrival_inputs AS
SELECT flight_id, carrier, origin, dest, tailnum, distance, sched_dep, sched_arr, arr_delay > 15 AS label
FROM flights WHERE arr_delay IS NOT NULL;

CREATE MODEL late_arrival FROM TRAINING SET late_arrivals LABEL label
SPLIT BY TIME sched_dep (train 0.7, validation 0.15, test 0.15)
USING gbdt OPTIONS (rounds 300, learning_rate 0.1, max_depth 6);

COPY (SELECT flight_id, sched_dep, predict('late_arrival', *) AS p FROM service_inputs('late_arrival_inputs', flights))
TO 'out/scores' STORED AS PARQUET;

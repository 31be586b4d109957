CREATE EXTERNAL TABLE payments (id BIGINT, customer VARCHAR, paid_at TIMESTAMP, amount DOUBLE, fraud BOOLEAN)
STORED AS CSV LOCATION 'payments.csv' OPTIONS ('format.has_header' 'true');
CREATE FEATURE VIEW v ENTITY (customer) EVENT TIME paid_at AS
SELECT sum(customer) OVER d1 AS a, approx_percentile_cont(amount, 2) OVER d1 AS b, avg(amount, id) OVER d1 AS c FROM payments WINDOW d1 AS (RANGE INTERVAL '1 day' PRECEDING);

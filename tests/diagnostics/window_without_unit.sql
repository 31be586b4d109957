CREATE EXTERNAL TABLE payments (id BIGINT, customer VARCHAR, paid_at TIMESTAMP, amount DOUBLE, fraud BOOLEAN)
STORED AS CSV LOCATION 'payments.csv' OPTIONS ('format.has_header' 'true');
CREATE FEATURE VIEW v ENTITY (customer) EVENT TIME paid_at AS
SELECT sum(amount) OVER d7 AS a, sum(amount) OVER (RANGE 7 PRECEDING) AS b FROM payments WINDOW d7 AS (RANGE INTERVAL '7' PRECEDING);

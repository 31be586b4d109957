CREATE EXTERNAL TABLE payments (id BIGINT, customer VARCHAR, paid_at TIMESTAMP, amount DOUBLE, fraud BOOLEAN)
STORED AS CSV LOCATION 'payments.csv' OPTIONS ('format.has_header' 'true');
CREATE FEATURE VIEW v0 ENTITY (customer) EVENT TIME paid_at AS SELECT amount FROM payments LIMIT 3;
CREATE FEATURE VIEW v1 ENTITY (customer) EVENT TIME paid_at AS SELECT sum(amount) AS a FROM payments GROUP BY id;
CREATE FEATURE VIEW v2 ENTITY (customer) EVENT TIME paid_at AS SELECT * FROM payments;
CREATE FEATURE VIEW v3 ENTITY (customer) EVENT TIME paid_at AS SELECT sum(amount) OVER d1 AS a, amount AS b FROM payments WINDOW d1 AS (RANGE INTERVAL '1 day' PRECEDING);
CREATE FEATURE VIEW v4 ENTITY (customer) EVENT TIME paid_at AS SELECT sum(amount) OVER d1 FROM payments WINDOW d1 AS (RANGE INTERVAL '1 day' PRECEDING);

CREATE EXTERNAL TABLE payments (id BIGINT, customer VARCHAR, paid_at TIMESTAMP, amount DOUBLE, fraud BOOLEAN)
STORED AS CSV LOCATION 'payments.csv' OPTIONS ('format.has_header' 'true');
CREATE FEATURE VIEW spending ENTITY (customer) EVENT TIME paid_at AS
SELECT sum(amount) OVER d1 AS spent_1d FROM payments WINDOW d1 AS (RANGE INTERVAL '1 day' PRECEDING);
CREATE FEATURE SERVICE a (id BIGINT) AS SELECT id FROM payments;
CREATE FEATURE SERVICE b (id BIGINT) AS SELECT count(*) AS n FROM request GROUP BY id;
CREATE FEATURE SERVICE c (id BIGINT) AS SELECT r.id FROM request r JOIN payments p ON r.id = p.id;

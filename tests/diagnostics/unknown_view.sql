CREATE EXTERNAL TABLE payments (id BIGINT, customer VARCHAR, paid_at TIMESTAMP, amount DOUBLE, fraud BOOLEAN)
STORED AS CSV LOCATION 'payments.csv' OPTIONS ('format.has_header' 'true');
CREATE FEATURE VIEW spending ENTITY (customer) EVENT TIME paid_at AS
SELECT sum(amount) OVER d1 AS spent_1d FROM payments WINDOW d1 AS (RANGE INTERVAL '1 day' PRECEDING);
CREATE FEATURE SERVICE inputs (customer VARCHAR, paid_at TIMESTAMP, amount DOUBLE) AS
SELECT r.amount, s.spent_1d FROM request r
ASOF JOIN spending s MATCH_CONDITION (r.paid_at > s.paid_at) ON r.customer = s.customer;
MATERIALIZE FEATURE VIEW spendin;

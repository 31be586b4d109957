CREATE EXTERNAL TABLE payments (id BIGINT, customer VARCHAR, paid_at TIMESTAMP, amount DOUBLE, fraud BOOLEAN)
STORED AS CSV LOCATION 'payments.csv' OPTIONS ('format.has_header' 'true');
CREATE FEATURE VIEW spending ENTITY (customer) EVENT TIME paid_at AS
SELECT sum(amount) OVER d1 AS spent_1d FROM payments WINDOW d1 AS (RANGE INTERVAL '1 day' PRECEDING);
SELECT * FROM payments p ASOF JOIN spending s MATCH_CONDITION (p.paid_at < s.paid_at) ON p.customer = s.customer;

-- A small project: which card payments are fraud?
-- Run it:  featurectl run job.sql        Look:  featurectl show models
CREATE EXTERNAL TABLE payments (payment_id BIGINT, customer VARCHAR, paid_at TIMESTAMP, amount DOUBLE, fraud BOOLEAN)
STORED AS CSV LOCATION 'data/payments.csv' OPTIONS ('format.has_header' 'true');

-- What is known about a customer at any instant, kept in the online store.
CREATE FEATURE VIEW customer_spending ENTITY (customer) EVENT TIME paid_at WITH (online = true) AS
SELECT count(*) OVER d1 AS payments_1d, sum(amount) OVER d1 AS spent_1d,
       avg(amount) OVER d7 AS avg_7d, max(amount) OVER d7 AS max_7d, last_value(amount) OVER ever AS last_amount
FROM payments
WINDOW d1 AS (RANGE INTERVAL '1 day' PRECEDING), d7 AS (RANGE INTERVAL '7 days' PRECEDING),
       ever AS (RANGE UNBOUNDED PRECEDING);

-- The inputs of the model, for training, scoring and serving alike.
CREATE FEATURE SERVICE fraud_inputs (customer VARCHAR, paid_at TIMESTAMP, amount DOUBLE) AS
SELECT r.amount, s.*, r.amount / s.avg_7d AS ratio_7d
FROM request r ASOF JOIN customer_spending s MATCH_CONDITION (r.paid_at > s.paid_at) ON r.customer = s.customer;

MATERIALIZE FEATURE VIEW customer_spending;

CREATE TRAINING SET fraud_set FROM SERVICE fraud_inputs AS
SELECT payment_id, customer, paid_at, amount, fraud FROM payments;

CREATE MODEL fraud FROM TRAINING SET fraud_set LABEL fraud
SPLIT BY TIME paid_at (train 0.7, validation 0.15, test 0.15) USING gbdt OPTIONS (rounds 100);

COPY (SELECT payment_id, predict('fraud', *) AS p FROM service_inputs('fraud_inputs', payments))
TO '${out}/scores' STORED AS PARQUET;

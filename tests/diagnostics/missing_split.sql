CREATE EXTERNAL TABLE payments (id BIGINT, customer VARCHAR, paid_at TIMESTAMP, amount DOUBLE, fraud BOOLEAN)
STORED AS CSV LOCATION 'payments.csv' OPTIONS ('format.has_header' 'true');
CREATE FEATURE SERVICE inputs (amount DOUBLE) AS SELECT r.amount FROM request r;
CREATE TRAINING SET rows FROM SERVICE inputs AS SELECT id, amount, fraud FROM payments;
CREATE MODEL m FROM TRAINING SET rows LABEL fraud USING gbdt;

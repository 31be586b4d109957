CREATE EXTERNAL TABLE payments (id BIGINT, customer VARCHAR, paid_at TIMESTAMP, amount DOUBLE, fraud BOOLEAN)
STORED AS CSV LOCATION 'payments.csv' OPTIONS ('format.has_header' 'true');
CREATE FEATURE VIEW v ENTITY (customer) EVENT TIME paid_at AS
SELECT sum(amount) OVER (RANGE INTERVAL '-7 days' PRECEDING) AS a FROM payments;

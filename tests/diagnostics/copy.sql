CREATE EXTERNAL TABLE payments (id BIGINT, customer VARCHAR, paid_at TIMESTAMP, amount DOUBLE, fraud BOOLEAN)
STORED AS CSV LOCATION 'payments.csv' OPTIONS ('format.has_header' 'true');
COPY (SELECT id, amont FROM payments) TO 'out/x' STORED AS PARQUET;
COPY (SELECT id FROM payments) TO 'out/x';
COPY (SELECT id FROM payments) TO 'out/x' STORED AS PARQUET PARTITIONED BY (idd);

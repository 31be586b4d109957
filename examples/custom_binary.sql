-- For examples/custom_binary.rs: cargo run --example custom_binary -- run examples/custom_binary.sql
CREATE VIEW growth AS
SELECT * FROM (VALUES ('a', TIMESTAMP '2024-01-01', 2.0), ('a', TIMESTAMP '2024-01-02', 8.0)) AS g (shop, day, factor);
CREATE FEATURE VIEW shop_growth ENTITY (shop) EVENT TIME day AS
SELECT geo_mean(factor) OVER (RANGE INTERVAL '7 days' PRECEDING) AS factor_7d FROM growth;
SELECT r.shop, round(g.factor_7d, 6) AS factor_7d                                            -- 4: the root of 2 × 8
FROM (SELECT 'a' AS shop, TIMESTAMP '2024-01-03' AS at) r
ASOF JOIN shop_growth g MATCH_CONDITION (r.at > g.day) ON r.shop = g.shop;

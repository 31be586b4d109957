//! What DynamoDB costs: a dated file of prices, and an estimate in dollars.

use std::collections::BTreeMap;
use std::path::Path;

use featurectl_core::{Error, Result};
use featurectl_feature_store::dynamodb::Usage;
use serde::{Deserialize, Serialize};

/// The prices that are built in.
const PRICES: &str = include_str!("prices.toml");
/// The region of the built-in prices.
const REGION: &str = "us-east-1";
/// The service counts sizes by powers of two.
const GB: f64 = (1 << 30) as f64;

/// A file of prices.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Prices {
    date: String,
    source: String,
    region: BTreeMap<String, Rates>,
}

/// The prices of a region, US dollars.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rates {
    million_write_units: f64,
    million_read_units: f64,
    storage_gb_month: f64,
    recovery_gb_month: f64,
    import_gb: f64,
}

/// What a view's tiles cost in the online table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Cost {
    /// Tiles in the offline table.
    pub tiles: u64,
    /// Those whose sizes were taken; the others are held to be like them.
    pub measured_tiles: u64,
    /// Of writing each tile once.
    pub write_units: u64,
    pub write_dollars: f64,
    /// Of an import of all tiles instead.
    pub import_dollars: f64,
    /// Of the features of one entity.
    pub read_units_per_entity: u64,
    /// Beside those, however many entities a request has.
    pub read_units_per_request: u64,
    /// Of a million requests of one entity each.
    pub million_reads_dollars: f64,
    pub stored_bytes: u64,
    pub storage_dollars_per_month: f64,
    /// Of point-in-time recovery, if the profile asks for it.
    pub recovery_dollars_per_month: f64,
    /// Whose prices these are, of which day, and from where.
    pub prices_region: String,
    pub prices_date: String,
    pub prices_source: String,
}

impl Prices {
    /// The prices of a file, or the built-in ones.
    ///
    /// Errors: [`Invalid`](featurectl_core::ErrorKind::Invalid) for a file that is no such file.
    pub(crate) fn read(file: Option<&Path>) -> Result<Self> {
        let (text, name) = match file {
            Some(file) => {
                let text = std::fs::read_to_string(file);
                let name = file.display().to_string();
                (text.map_err(|e| Error::from(e).context(format!("reading the prices {name}")))?, name)
            }
            None => (PRICES.to_string(), "prices.toml".to_string()),
        };
        let prices: Self = toml::from_str(&text).map_err(|e| Error::invalid(format!("prices {name}: {e}")))?;
        match prices.region.is_empty() {
            true => Err(Error::invalid(format!("prices {name}: there is no [region.NAME]"))),
            false => Ok(prices),
        }
    }

    /// What `usage` of `tiles` tiles costs in a region; if the file has none of it, in another one, which the cost names.
    pub(crate) fn cost(&self, region: Option<&str>, tiles: u64, usage: &Usage, recovery: bool) -> Result<Cost> {
        let named = region.and_then(|r| self.region.get_key_value(r));
        let found = named.or_else(|| self.region.get_key_value(REGION)).or_else(|| self.region.first_key_value());
        let (name, rates) = found.ok_or_else(|| Error::internal("prices of no region"))?;
        let million = |units: u64, price: f64| units as f64 * price / 1e6;
        let gb = |bytes: u64, price: f64| bytes as f64 / GB * price;
        let pointer = 1;
        Ok(Cost {
            tiles,
            measured_tiles: usage.measured,
            write_units: usage.write_units,
            write_dollars: million(usage.write_units, rates.million_write_units),
            import_dollars: gb(usage.import_bytes, rates.import_gb),
            read_units_per_entity: usage.read_units,
            read_units_per_request: pointer,
            million_reads_dollars: (usage.read_units + pointer) as f64 * rates.million_read_units,
            stored_bytes: usage.stored_bytes,
            storage_dollars_per_month: gb(usage.stored_bytes, rates.storage_gb_month),
            recovery_dollars_per_month: if recovery { gb(usage.stored_bytes, rates.recovery_gb_month) } else { 0.0 },
            prices_region: name.clone(),
            prices_date: self.date.clone(),
            prices_source: self.source.clone(),
        })
    }
}

/// Dollars with as many digits as say something: `$1,234.50`, `$0.0123`.
pub(crate) fn dollars(amount: f64) -> String {
    match amount {
        0.0 => "$0".to_string(),
        a if a < 0.0001 => "less than $0.0001".to_string(),
        a if a < 1.0 => format!("${a:.4}"),
        a => {
            let cents = (a * 100.0).round() as u64;
            format!("${}.{:02}", crate::run::thousands(cents / 100), cents % 100)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage() -> Usage {
        Usage {
            measured: 20_000,
            write_units: 100_000_000,
            stored_bytes: 100 << 30,
            import_bytes: 120 << 30,
            read_units: 3,
        }
    }

    #[test]
    fn usage_comes_to_dollars_by_the_built_in_prices() {
        let prices = Prices::read(None).expect("prices");
        let cost = prices.cost(Some("us-east-1"), 100_000_000, &usage(), true).expect("a cost");
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} is not {b}");
        near(cost.write_dollars, 62.5);
        near(cost.import_dollars, 18.0);
        near(cost.million_reads_dollars, 0.5);
        near(cost.storage_dollars_per_month, 25.0);
        near(cost.recovery_dollars_per_month, 20.0);
        assert!(cost.prices_date.starts_with("20") && cost.prices_source.starts_with("https://aws.amazon.com/"));
        let cost = prices.cost(Some("eu-west-1"), 1, &usage(), false).expect("a cost");
        assert_eq!((cost.prices_region.as_str(), cost.recovery_dollars_per_month), ("us-east-1", 0.0));
    }

    #[test]
    fn amounts_are_short() {
        let texts = [0.0, 0.00001, 0.01234, 0.5, 62.5, 1234.5, 0.99999].map(dollars);
        let wanted = ["$0", "less than $0.0001", "$0.0123", "$0.5000", "$62.50", "$1,234.50", "$1.0000"];
        assert_eq!(texts, wanted);
    }
}

//! Types of columns: those of Arrow, and their names in the catalog, which are Hive's.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, TimeUnit};
use featurectl_core::{Error, Result};

/// The digits that a decimal has in Hive at most.
const DECIMAL_DIGITS_MAX: u8 = 38;
/// Types within types, at most.
const DEPTH_MAX: usize = 64;

/// The name of a type in the catalog: `array<struct<a:bigint>>`.
///
/// Errors: [`Invalid`](featurectl_core::ErrorKind::Invalid) for a type that Hive has none for.
pub(super) fn to_hive(arrow: &DataType) -> Result<String> {
    let none = |fix: &str| Err(Error::invalid(format!("the type {arrow} has none in Glue: {fix}")));
    Ok(match arrow {
        DataType::Boolean => "boolean".into(),
        DataType::Int8 => "tinyint".into(),
        DataType::Int16 | DataType::UInt8 => "smallint".into(),
        DataType::Int32 | DataType::UInt16 => "int".into(),
        DataType::Int64 | DataType::UInt32 => "bigint".into(),
        DataType::UInt64 => return none("CAST it to BIGINT or DECIMAL(20, 0)"),
        DataType::Float32 => "float".into(),
        DataType::Float64 => "double".into(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "string".into(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            "binary".into()
        }
        DataType::Date32 | DataType::Date64 => "date".into(),
        DataType::Timestamp(..) => "timestamp".into(),
        DataType::Decimal32(p, s)
        | DataType::Decimal64(p, s)
        | DataType::Decimal128(p, s)
        | DataType::Decimal256(p, s)
            if *p <= DECIMAL_DIGITS_MAX && *s >= 0 =>
        {
            format!("decimal({p},{s})")
        }
        DataType::Dictionary(_, values) => to_hive(values)?,
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _) => format!("array<{}>", to_hive(item.data_type())?),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) if fields.len() == 2 => {
                format!("map<{},{}>", to_hive(fields[0].data_type())?, to_hive(fields[1].data_type())?)
            }
            _ => return none("CAST it"),
        },
        DataType::Struct(fields) => {
            let field = |f: &Arc<Field>| {
                if f.name().is_empty() || f.name().contains([':', ',', '<', '>', '`', ' ']) {
                    return Err(Error::invalid(format!("Glue has no field `{}` of a struct: rename it", f.name())));
                }
                Ok(format!("{}:{}", f.name(), to_hive(f.data_type())?))
            };
            format!("struct<{}>", fields.iter().map(field).collect::<Result<Vec<_>>>()?.join(","))
        }
        _ => return none("CAST it to VARCHAR or a number"),
    })
}

/// The type that a name of the catalog stands for. Times are microseconds.
///
/// Errors: [`Invalid`](featurectl_core::ErrorKind::Invalid) for a name that is none, or of a type that can't be read.
pub(super) fn to_arrow(hive: &str) -> Result<DataType> {
    let mut rest = Parser { text: hive, at: 0 };
    let found = rest.data_type(0)?;
    if rest.word().is_empty() && rest.at == hive.len() { Ok(found) } else { Err(rest.wrong()) }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn data_type(&mut self, depth: usize) -> Result<DataType> {
        if depth > DEPTH_MAX {
            return Err(self.wrong());
        }
        let name = self.word().to_lowercase();
        let item = |name: &str, of: DataType| Arc::new(Field::new(name, of, true));
        Ok(match name.as_str() {
            "boolean" => DataType::Boolean,
            "tinyint" | "byte" => DataType::Int8,
            "smallint" | "short" => DataType::Int16,
            "int" | "integer" => DataType::Int32,
            "bigint" | "long" => DataType::Int64,
            "float" | "real" => DataType::Float32,
            "double" | "double precision" => DataType::Float64,
            "string" => DataType::Utf8View,
            "varchar" | "char" => {
                self.numbers()?;
                DataType::Utf8View
            }
            "binary" => DataType::Binary,
            "date" => DataType::Date32,
            "timestamp" => DataType::Timestamp(TimeUnit::Microsecond, None),
            "timestamp with local time zone" => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            "decimal" | "numeric" => {
                let (p, s) = match self.numbers()?.as_slice() {
                    [] => (10, 0),
                    [p] => (*p, 0),
                    [p, s] => (*p, *s),
                    _ => return Err(self.wrong()),
                };
                if p == 0 || p > u64::from(DECIMAL_DIGITS_MAX) || s > p {
                    return Err(self.wrong());
                }
                DataType::Decimal128(p as u8, s as i8)
            }
            "array" => {
                self.expect('<')?;
                let of = self.data_type(depth + 1)?;
                self.expect('>')?;
                DataType::List(item("item", of))
            }
            "map" => {
                self.expect('<')?;
                let key = self.data_type(depth + 1)?;
                self.expect(',')?;
                let value = self.data_type(depth + 1)?;
                self.expect('>')?;
                let entries = vec![Arc::new(Field::new("key", key, false)), item("value", value)];
                DataType::Map(Arc::new(Field::new("key_value", DataType::Struct(entries.into()), false)), false)
            }
            "struct" => {
                self.expect('<')?;
                let mut fields = Vec::new();
                while fields.is_empty() || self.takes(',') {
                    let name = self.word().to_string();
                    self.expect(':')?;
                    fields.push(item(&name, self.data_type(depth + 1)?));
                }
                self.expect('>')?;
                DataType::Struct(fields.into())
            }
            _ => return Err(self.wrong()),
        })
    }

    /// All up to the next sign of the grammar.
    fn word(&mut self) -> &'a str {
        let rest = &self.text[self.at..];
        let end = rest.find(['<', '>', '(', ')', ',', ':']).unwrap_or(rest.len());
        self.at += end;
        rest[..end].trim().trim_matches('`')
    }

    /// `(10, 2)`, or nothing.
    fn numbers(&mut self) -> Result<Vec<u64>> {
        let mut found = Vec::new();
        if self.takes('(') {
            while found.is_empty() || self.takes(',') {
                found.push(self.word().parse().map_err(|_| self.wrong())?);
            }
            self.expect(')')?;
        }
        Ok(found)
    }

    fn takes(&mut self, sign: char) -> bool {
        let rest = &self.text[self.at..];
        let there = rest.trim_start().starts_with(sign);
        if there {
            self.at += rest.len() - rest.trim_start().len() + 1;
        }
        there
    }

    fn expect(&mut self, sign: char) -> Result<()> {
        if self.takes(sign) { Ok(()) } else { Err(self.wrong()) }
    }

    fn wrong(&self) -> Error {
        Error::invalid(format!("its type `{}` can't be read (at character {})", self.text, self.at + 1))
    }
}

/// `declared` with the names that a file has for the fields of its structs: the catalog knows no case.
pub(super) fn named_as_in(declared: &DataType, found: &DataType) -> DataType {
    let renamed = |d: &Arc<Field>, f: &Arc<Field>| {
        let of = named_as_in(d.data_type(), f.data_type());
        Arc::new(d.as_ref().clone().with_data_type(of))
    };
    match (declared, found) {
        (DataType::Struct(declared), DataType::Struct(found)) => {
            let field = |d: &Arc<Field>| match found.iter().find(|f| f.name().eq_ignore_ascii_case(d.name())) {
                Some(f) => Arc::new(renamed(d, f).as_ref().clone().with_name(f.name())),
                None => Arc::clone(d),
            };
            DataType::Struct(declared.iter().map(field).collect())
        }
        (DataType::List(d), DataType::List(f) | DataType::LargeList(f)) => DataType::List(renamed(d, f)),
        (DataType::Map(d, sorted), DataType::Map(f, _)) => DataType::Map(renamed(d, f), *sorted),
        _ => declared.clone(),
    }
}

/// A part of a path without its percent codes.
pub(super) fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_of_the_catalog_are_read_and_written_back() {
        for name in [
            "boolean",
            "tinyint",
            "smallint",
            "int",
            "bigint",
            "float",
            "double",
            "string",
            "binary",
            "date",
            "timestamp",
            "decimal(38,10)",
            "array<decimal(5,2)>",
            "map<string,array<bigint>>",
            "struct<a:int,B_c:struct<d:map<string,date>>,e:array<array<double>>>",
        ] {
            let arrow = to_arrow(name).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(to_hive(&arrow).expect("a name"), name);
        }
        let same = |a: &str, b: &str| assert_eq!(to_arrow(a).expect(a), to_arrow(b).expect(b));
        same("VARCHAR(20)", "string");
        same("decimal", "decimal(10,0)");
        same("struct< `a` : int , b:array< string > >", "struct<a:int,b:array<string>>");
    }

    #[test]
    fn other_names_are_refused_with_the_place() {
        for name in [
            "",
            "uniontype<int>",
            "interval_day_time",
            "array<int",
            "array<int>>",
            "decimal(39,0)",
            "decimal(3,4)",
            "map<int>",
            "struct<a>",
            "struct<>",
            "int int",
            "varchar(x)",
            "array<int> x",
            &"array<".repeat(5000),
        ] {
            let e = to_arrow(name).map(|t| panic!("{name}: {t}")).expect_err("refused");
            assert!(e.to_string().contains("can't be read"), "{e}");
        }
        for (arrow, part) in [
            (DataType::UInt64, "CAST it to BIGINT"),
            (DataType::Time64(TimeUnit::Microsecond), "CAST it to VARCHAR"),
            (DataType::Null, "CAST it to VARCHAR"),
            (DataType::Decimal256(50, 2), "CAST it"),
            (DataType::Struct(vec![Field::new("a:b", DataType::Int8, true)].into()), "rename it"),
        ] {
            let e = to_hive(&arrow).expect_err("refused");
            assert!(e.to_string().contains(part), "{e}");
        }
    }

    #[test]
    fn fields_get_the_case_that_files_have() {
        let declared = to_arrow("array<struct<userid:int,rest:struct<x:int>,new:int>>").expect("a type");
        let found = to_arrow("array<struct<other:int,userId:bigint,rest:struct<X:int>>>").expect("a type");
        let wanted = to_arrow("array<struct<userId:int,rest:struct<X:int>,new:int>>").expect("a type");
        assert_eq!(named_as_in(&declared, &found), wanted);
    }
}

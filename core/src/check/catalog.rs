//! `CREATE EXTERNAL CATALOG`.

use std::collections::BTreeMap;

use super::{Analyzer, Checked, Found, Options};
use crate::diagnostic::Diagnostic;
use crate::sql::CreateExternalCatalog;

/// What a catalog of Glue can be told.
const OPTIONS: &[&str] = &["region", "catalog_id", "profile", "endpoint"];

impl Analyzer {
    /// Makes the catalog's tables known to the session. None of them is looked up yet.
    pub(super) fn external_catalog(&self, create: &CreateExternalCatalog) -> Found<Checked> {
        let place = self.place(&create.name);
        let name = match create.name.quote_style {
            Some(_) => create.name.value.clone(),
            None => create.name.value.to_lowercase(),
        };
        if self.ctx.catalog(&name).is_some() {
            if create.if_not_exists {
                return Ok(Checked::Session);
            }
            let d = Diagnostic::error("duplicate-name", format!("there is a catalog `{name}` already"), place);
            return Err(vec![d.help("give it another name")]);
        }
        let mut problems = Vec::new();
        if !create.stored_as.value.eq_ignore_ascii_case("glue") {
            let text = format!("`{}` is no catalog that can be read", create.stored_as.value);
            problems.push(
                Diagnostic::error("unknown-catalog", text, self.place(&create.stored_as)).help("write STORED AS GLUE"),
            );
        }
        let _ = Options::new(&self.source, &create.options, OPTIONS, &mut problems);
        if !problems.is_empty() {
            return Err(problems);
        }
        let options: BTreeMap<_, _> =
            create.options.iter().map(|o| (o.key.value.to_lowercase(), o.value.clone())).collect();
        let refused = |e: crate::Error| {
            let text = e.to_string();
            let of = create.options.iter().find(|o| text.contains(&format!("`{}`", o.key.value.to_lowercase())));
            vec![Diagnostic::error("bad-option", text, of.map_or(place, |o| o.span))]
        };
        self.outside.add_catalog(&name, &options).map_err(refused)?;
        Ok(Checked::Session)
    }
}

//! `CREATE MODEL`.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::logical_expr::sqlparser::ast::Ident;

use super::{Analyzer, Found, Options};
use crate::definition::{Model, TrainingSet};
use crate::diagnostic::{Diagnostic, closest};
use crate::sql::{Algorithm, CreateModel, ObjectKind, Split};

impl Analyzer {
    pub(super) fn model(&mut self, create: &CreateModel) -> Found<Arc<Model>> {
        let mut problems = Vec::new();
        self.check_algorithm(create, &mut problems);
        let Some(set) = self.known.training_sets.get(&create.training_set.value).cloned() else {
            problems.extend(self.unknown(
                ObjectKind::TrainingSet,
                &create.training_set,
                self.known.training_sets.keys(),
            ));
            return Err(problems);
        };
        let label_type = self.check_label(&set, &create.label, &mut problems);
        match &create.split {
            Some(split) => self.check_split(&set, split, &mut problems),
            None => {
                let d = Diagnostic::error(
                    "missing-split",
                    "a model needs data to be measured on",
                    self.place(&create.name),
                );
                problems.push(d.help("add SPLIT BY TIME column (train 0.7, validation 0.15, test 0.15)"));
            }
        }
        self.check_features(&set, create, &mut problems);
        if !problems.is_empty() {
            return Err(problems);
        }
        let model = Arc::new(Model {
            name: create.name.value.clone(),
            training_set: set.name.clone(),
            label: create.label.value.clone(),
            label_type,
            split: create.split.as_ref().map(|s| (s.time.value.clone(), s.shares)),
            features: set.features.clone(),
            algorithm: create.algorithm.clone(),
            options: create.options.iter().map(|o| (o.key.value.clone(), o.value.clone())).collect(),
            sql: canonical(create),
        });
        self.outside.declare_model(&model.name, &model.features);
        Ok(model)
    }

    fn check_algorithm(&self, create: &CreateModel, problems: &mut Vec<Diagnostic>) {
        let Algorithm::BuiltIn(name) = &create.algorithm else { return };
        let key = name.value.to_lowercase();
        match self.outside.hyperparameters(&key) {
            Some(known) => drop(Options::new(&self.source, &create.options, known, problems)),
            None => {
                let d =
                    Diagnostic::error("unknown-algorithm", format!("no algorithm `{}`", name.value), self.place(name));
                let known = self.outside.algorithms();
                let all = format!("known: {}, or USING script 'train.py'", known.join(", "));
                problems.push(Diagnostic {
                    help: closest(&key, known).map(|k| format!("did you mean `{k}`?")).or(Some(all)),
                    ..d
                });
            }
        }
    }

    fn check_label(&self, set: &TrainingSet, label: &Ident, problems: &mut Vec<Diagnostic>) -> DataType {
        let place = self.place(label);
        if set.features.contains(&label.value) {
            let message = format!("the label `{label}` is among the features of service `{}`", set.service);
            problems.push(
                Diagnostic::error("label-is-feature", message, place)
                    .help("a model that sees its label learns nothing: take it out of the service"),
            );
        }
        match self.column(set, label, problems) {
            Some(t) if t.is_numeric() || t == DataType::Boolean => t,
            Some(t) => {
                let d = Diagnostic::error("label-type", format!("the label `{label}` is {t}"), place);
                problems.push(d.help("a label is BOOLEAN (classification) or a number (regression)"));
                t
            }
            None => DataType::Null,
        }
    }

    fn check_split(&self, set: &TrainingSet, split: &Split, problems: &mut Vec<Diagnostic>) {
        let sum: f64 = split.shares.iter().sum();
        if (sum - 1.0).abs() > 1e-9 || split.shares.iter().any(|s| *s < 0.0) || split.shares[0] <= 0.0 {
            let d = Diagnostic::error("bad-split", format!("the shares add up to {sum}, not to 1"), split.span);
            problems.push(d.help("like (train 0.7, validation 0.15, test 0.15)"));
        }
        let t = self.column(set, &split.time, problems);
        if let Some(t) = t.filter(|t| !matches!(t, DataType::Timestamp(..) | DataType::Date32 | DataType::Date64)) {
            let d = Diagnostic::error("bad-split", format!("`{}` is {t}", split.time), self.place(&split.time));
            problems.push(d.help("split by a TIMESTAMP or DATE column"));
        }
    }

    fn check_features(&self, set: &TrainingSet, create: &CreateModel, problems: &mut Vec<Diagnostic>) {
        if matches!(create.algorithm, Algorithm::Script { .. }) {
            return;
        }
        for name in &set.features {
            let Ok(field) = set.schema.field_with_name(name) else { continue };
            let t = field.data_type();
            if !(t.is_numeric() || matches!(t, DataType::Boolean | DataType::Null)) {
                let message = format!("feature `{name}` is {t}: this algorithm takes numbers and booleans");
                let help = format!("leave it out of service `{}`, or turn it into a number there", set.service);
                problems.push(Diagnostic::error("feature-type", message, self.place(&create.training_set)).help(help));
            }
        }
    }

    fn column(&self, set: &TrainingSet, name: &Ident, problems: &mut Vec<Diagnostic>) -> Option<DataType> {
        match set.schema.field_with_name(&name.value) {
            Ok(field) => Some(field.data_type().clone()),
            Err(_) => {
                let message = format!("training set `{}` has no column `{}`", set.name, name.value);
                let names = set.schema.fields().iter().map(|f| f.name().as_str());
                problems.push(
                    Diagnostic::error("unknown-column", message, self.place(name)).did_you_mean(&name.value, names),
                );
                None
            }
        }
    }
}

fn canonical(create: &CreateModel) -> String {
    let algorithm = match &create.algorithm {
        Algorithm::BuiltIn(name) => name.value.to_lowercase(),
        Algorithm::Script { path, .. } => format!("script '{path}'"),
    };
    let split = create.split.as_ref().map_or(String::new(), |s| format!(" SPLIT BY TIME {} {:?}", s.time, s.shares));
    let mut options: Vec<_> =
        create.options.iter().map(|o| format!("{} '{}'", o.key.value.to_lowercase(), o.value)).collect();
    options.sort();
    format!(
        "MODEL {} FROM TRAINING SET {} LABEL {}{split} USING {algorithm} OPTIONS ({})",
        create.name,
        create.training_set,
        create.label,
        options.join(", ")
    )
}

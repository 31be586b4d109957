//! What stands behind a frame, by a decoder that knows of none.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use featurectl_core::Result;

use super::{Decode, Framing, Rows, Schemas};

/// Reads framed payloads by a decoder of plain ones.
#[derive(Debug)]
pub struct FramedDecoder<D> {
    plain: D,
    framing: Framing,
    schemas: Option<Arc<Schemas>>,
}

impl<D: Decode> FramedDecoder<D> {
    /// A decoder of what `plain` reads. With `schemas`, the schema that a payload names must be one of them; it says
    /// nothing of how the payload is read.
    pub fn new(plain: D, framing: Framing, schemas: Option<Arc<Schemas>>) -> Self {
        Self { plain, framing, schemas }
    }
}

impl<D: Decode> Decode for FramedDecoder<D> {
    fn schema(&self) -> SchemaRef {
        self.plain.schema()
    }

    fn decode(&self, payloads: &[&[u8]]) -> Result<Rows> {
        let opened: Vec<_> = payloads.iter().map(|p| self.framing.open(p)).collect::<Result<_>>()?;
        if let Some(schemas) = &self.schemas {
            opened.iter().filter_map(|(id, _)| *id).try_for_each(|id| schemas.check(id))?;
        }
        let bodies: Vec<&[u8]> = opened.iter().map(|(_, body)| body.as_ref()).collect();
        self.plain.decode(&bodies)
    }
}

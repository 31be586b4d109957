//! Plans as bytes: operators of featurectl, then those of Ballista; `predict` with the models it may name.

use std::sync::Arc;

use ballista_core::serde::BallistaPhysicalExtensionCodec;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{AggregateUDF, ScalarUDF, WindowUDF};
use datafusion::physical_plan::ExecutionPlan;
use datafusion_proto::physical_plan::{
    PhysicalExtensionCodec, PhysicalPlanDecodeContext, PhysicalProtoConverterExtension,
};
use featurectl_core::aggregate::Functions;
use featurectl_core::codec;

use super::models::Models;
use crate::score::{Fetch, Predict};

/// What the bytes of our own operators begin with; Ballista's are a message, whose first byte is never this.
const OURS: &[u8] = b"\0featurectl";

/// The codec of all roles of a cluster.
#[derive(Debug, Default)]
pub struct ClusterCodec {
    functions: Functions,
    models: Models,
    ballista: BallistaPhysicalExtensionCodec,
}

impl ClusterCodec {
    /// One that knows these aggregations, and reads models at URLs by `fetch`.
    pub fn new(functions: Functions, fetch: Fetch) -> Self {
        Self { functions, models: Models::new(fetch), ..Self::default() }
    }
}

impl PhysicalExtensionCodec for ClusterCodec {
    fn try_decode(
        &self,
        buf: &[u8],
        inputs: &[Arc<dyn ExecutionPlan>],
        ctx: &TaskContext,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match buf.strip_prefix(OURS) {
            Some(bytes) => {
                let context = PhysicalPlanDecodeContext::new(ctx, self);
                codec::decode(bytes, inputs, &self.functions, &context, converter)
            }
            None => self.ballista.try_decode(buf, inputs, ctx, converter),
        }
    }

    fn try_encode(
        &self,
        node: Arc<dyn ExecutionPlan>,
        buf: &mut Vec<u8>,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<()> {
        match codec::encode(node.as_ref(), self, converter)? {
            Some(bytes) => {
                buf.extend(OURS);
                buf.extend(bytes);
                Ok(())
            }
            None => self.ballista.try_encode(node, buf, converter),
        }
    }

    fn try_encode_udf(&self, node: &ScalarUDF, buf: &mut Vec<u8>) -> Result<()> {
        let inner: &dyn std::any::Any = node.inner().as_ref();
        match inner.downcast_ref::<Predict>() {
            Some(predict) => Models::encode(predict.models(), buf).map_err(DataFusionError::from),
            None => self.ballista.try_encode_udf(node, buf),
        }
    }

    fn try_decode_udf(&self, name: &str, buf: &[u8]) -> Result<Arc<ScalarUDF>> {
        match Predict::output_of(name) {
            Some(output) => Ok(Arc::new(crate::score::predict_udf(self.models.decode(buf)?, output))),
            None => Err(unknown("function", name)),
        }
    }

    fn try_decode_udaf(&self, name: &str, _: &[u8]) -> Result<Arc<AggregateUDF>> {
        Err(unknown("aggregate function", name))
    }

    fn try_decode_udwf(&self, name: &str, _: &[u8]) -> Result<Arc<WindowUDF>> {
        Err(unknown("window function", name))
    }
}

fn unknown(kind: &str, name: &str) -> DataFusionError {
    featurectl_core::Error::invalid(format!(
        "this process knows no {kind} `{name}`: start every role of the cluster with the binary that brings it"
    ))
    .into()
}

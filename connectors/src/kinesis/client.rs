//! The calls to the service. Everything that knows the SDK of Kinesis is in this file.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_kinesis::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_sdk_kinesis::config::timeout::TimeoutConfig;
use aws_sdk_kinesis::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_kinesis::error::{BoxError, ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::operation::get_records::GetRecordsOutput;
use aws_sdk_kinesis::primitives::{Blob, DateTime, DateTimeFormat};
use aws_sdk_kinesis::types::{self as aws, PutRecordsRequestEntry, ShardIteratorType};
use bytes::Bytes;
use featurectl_aws::{Access, told};
use featurectl_core::{Error, ErrorKind, Result};

use super::plan::Shard;
use super::position::{digits, sequence};
use super::shard::{Batch, Failure, IteratorAt, RawRecord};

/// A record to be put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its partition key.
    pub partition_key: String,
    /// The hash key that chooses its shard, instead of the partition key's own.
    pub explicit_hash_key: Option<u128>,
    /// Its payload.
    pub data: Bytes,
}

/// One stream.
#[derive(Debug, Clone)]
pub struct Kinesis {
    client: aws_sdk_kinesis::Client,
    stream: String,
}

impl Kinesis {
    /// The stream of this name or ARN, by the standard configuration chain. Nothing is asked of the service yet.
    pub async fn connect(stream: &str, access: &Access) -> Self {
        Self::new(&access.config().await, stream)
    }

    /// The stream of this name or ARN, reached as `config` says.
    pub fn new(config: &SdkConfig, stream: &str) -> Self {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(Duration::from_secs(5))
            .operation_attempt_timeout(Duration::from_secs(30))
            .build();
        // Readers and writers retry themselves: what follows a failure depends on what was read or put.
        let builder = aws_sdk_kinesis::config::Builder::from(config);
        let config = builder.retry_config(RetryConfig::disabled()).timeout_config(timeouts).build();
        Self { client: aws_sdk_kinesis::Client::from_conf(config), stream: stream.to_string() }
    }

    /// Its name or ARN.
    pub fn stream(&self) -> &str {
        &self.stream
    }

    fn name(&self) -> Option<String> {
        (!self.stream.starts_with("arn:")).then(|| self.stream.clone())
    }

    fn arn(&self) -> Option<String> {
        self.stream.starts_with("arn:").then(|| self.stream.clone())
    }

    /// One page of the stream's shards, the token of the next page, and the service's time, microseconds UTC.
    pub async fn list_shards(&self, token: Option<String>) -> Result<(Vec<Shard>, Option<String>, i64), Failure> {
        let mut call = self.client.list_shards();
        call = match token {
            Some(token) => call.next_token(token),
            None => call.set_stream_name(self.name()).set_stream_arn(self.arn()),
        };
        let time = ServiceTime::default();
        let sent = call.customize().interceptor(time.clone()).send().await;
        let page = sent.map_err(|e| self.failure(e))?;
        let shards = page.shards().iter().map(shard).collect::<Result<_>>().map_err(Failure::Fatal)?;
        Ok((shards, page.next_token, time.get()?))
    }

    /// An iterator of a shard; it is good for five minutes.
    pub async fn iterator(&self, shard: &str, at: IteratorAt) -> Result<String, Failure> {
        let call = self.client.get_shard_iterator().set_stream_name(self.name()).set_stream_arn(self.arn());
        let call = call.shard_id(shard);
        let call = match at {
            IteratorAt::Horizon => call.shard_iterator_type(ShardIteratorType::TrimHorizon),
            IteratorAt::Time(micros) => call
                .shard_iterator_type(ShardIteratorType::AtTimestamp)
                .timestamp(DateTime::from_millis(micros.max(0) / 1_000)),
            IteratorAt::At(position) => {
                call.shard_iterator_type(ShardIteratorType::AtSequenceNumber).starting_sequence_number(digits(position))
            }
            IteratorAt::After(position) => call
                .shard_iterator_type(ShardIteratorType::AfterSequenceNumber)
                .starting_sequence_number(digits(position)),
        };
        let answer = call.send().await.map_err(|e| self.failure(e))?;
        answer.shard_iterator.ok_or_else(|| Failure::Transient("the service gave no iterator".into()))
    }

    /// Up to `limit` records.
    pub async fn fetch(&self, iterator: String, limit: i32) -> Result<Batch, Failure> {
        let call = self.client.get_records().shard_iterator(iterator).limit(limit).set_stream_arn(self.arn());
        let time = ServiceTime::default();
        let answer = call.customize().interceptor(time.clone()).send().await.map_err(|e| self.failure(e))?;
        let now = time.get()?;
        batch(answer, now).map_err(Failure::Fatal)
    }

    /// Puts up to 500 records. For each, in order: `None` if it is in the stream, else why not.
    pub async fn put(&self, entries: &[Entry]) -> Result<Vec<Option<String>>, Failure> {
        let entry = |e: &Entry| {
            PutRecordsRequestEntry::builder()
                .partition_key(&e.partition_key)
                .set_explicit_hash_key(e.explicit_hash_key.map(|k| k.to_string()))
                .data(Blob::new(e.data.as_ref()))
                .build()
                .map_err(|e| Failure::Fatal(Error::internal(e.to_string())))
        };
        let entries: Vec<_> = entries.iter().map(entry).collect::<Result<_, _>>()?;
        let count = entries.len();
        let call = self.client.put_records().set_stream_name(self.name()).set_stream_arn(self.arn());
        let answer = call.set_records(Some(entries)).send().await.map_err(|e| self.failure(e))?;
        if answer.records().len() != count {
            let got = answer.records().len();
            let message = format!("the service answered for {got} of {count} records: which ones are put is unknown");
            return Err(Failure::Fatal(Error::data(message)));
        }
        let reason = |r: &aws::PutRecordsResultEntry| {
            let code = r.error_code()?;
            Some(format!("{code}: {}", r.error_message().unwrap_or("no message")))
        };
        Ok(answer.records().iter().map(reason).collect())
    }

    /// What a failed call means for the reader or writer.
    fn failure<E>(&self, e: SdkError<E>) -> Failure
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let status = e.raw_response().map_or(0, |r| r.status().as_u16());
        let code = e.code().unwrap_or_default();
        let text = told(e.code(), e.message(), &e);
        match code {
            "ExpiredIteratorException" => Failure::Expired,
            "ProvisionedThroughputExceededException"
            | "LimitExceededException"
            | "KMSThrottlingException"
            | "ThrottlingException"
            | "Throttling"
            | "RequestLimitExceeded" => Failure::Throttled(text),
            "InternalFailure" | "InternalFailureException" | "ServiceUnavailable" => Failure::Transient(text),
            _ if status >= 500 || status == 429 => Failure::Transient(text),
            _ if status > 0 => Failure::Fatal(self.refused(code, &text)),
            _ => disturbed(&e, text),
        }
    }

    /// What the service said no to, with what to do.
    fn refused(&self, code: &str, text: &str) -> Error {
        let stream = &self.stream;
        match code {
            "ResourceNotFoundException" => Error::not_found(format!(
                "stream `{stream}` is not in this account and region, or a shard or record of it is past the retention: \
                 correct the name, set the region, or read from a time ({text})"
            )),
            "AccessDeniedException" | "AccessDenied" => Error::invalid(format!(
                "not allowed on stream `{stream}`: give the role the actions that docs/kinesis.md lists ({text})"
            )),
            "ExpiredTokenException" | "ExpiredToken" => {
                Error::invalid(format!("the session's token has expired: sign in again ({text})"))
            }
            "UnrecognizedClientException" | "InvalidSignatureException" | "InvalidClientTokenId" => Error::invalid(
                format!("the credentials are not accepted: check them, the account, and this machine's clock ({text})"),
            ),
            _ => Error::invalid(format!("the service refused a call on stream `{stream}`: {text}")),
        }
    }
}

/// A call that had no answer: of the network, or it could not be made.
fn disturbed<E: std::error::Error + Send + Sync + 'static>(e: &SdkError<E>, text: String) -> Failure {
    let invalid = |message: &str| Failure::Fatal(Error::invalid(format!("{message} ({text})")));
    let lower = text.to_lowercase();
    if lower.contains("region") {
        return invalid("no AWS region is set: set AWS_REGION, a profile, or the option `region`");
    }
    if lower.contains("credential") || lower.contains("identity") {
        return invalid("no AWS credentials were found: set a profile, sign in, or give the machine a role");
    }
    match e {
        SdkError::ConstructionFailure(_) => invalid("the call could not be made"),
        _ => Failure::Transient(text),
    }
}

fn shard(s: &aws::Shard) -> Result<Shard> {
    let parents = [s.parent_shard_id(), s.adjacent_parent_shard_id()];
    Ok(Shard {
        id: s.shard_id().to_string(),
        parents: parents.into_iter().flatten().map(str::to_string).collect(),
        hash_keys: hash_keys(s.hash_key_range())?,
        closed: s.sequence_number_range().is_some_and(|r| r.ending_sequence_number().is_some()),
    })
}

fn hash_keys(range: Option<&aws::HashKeyRange>) -> Result<(u128, u128)> {
    let number = |n: &str| n.parse::<u128>().map_err(|e| Error::data(format!("`{n}` is no hash key: {e}")));
    let range = range.ok_or_else(|| Error::data("the service lists a shard without its hash keys"))?;
    Ok((number(range.starting_hash_key())?, number(range.ending_hash_key())?))
}

fn batch(answer: GetRecordsOutput, now: i64) -> Result<Batch> {
    let children = answer.child_shards().iter().map(|c| c.shard_id().to_string()).collect();
    let records = answer.records.into_iter().map(record).collect::<Result<_>>()?;
    let behind_ms = answer.millis_behind_latest.unwrap_or(0);
    Ok(Batch { records, next: answer.next_shard_iterator, children, behind_ms, now })
}

fn record(r: aws::Record) -> Result<RawRecord> {
    let arrival = r.approximate_arrival_timestamp.as_ref().and_then(micros);
    Ok(RawRecord {
        sequence: sequence(&r.sequence_number)?,
        arrival: arrival.ok_or_else(|| Error::data("the service gives a record without its arrival time"))?,
        partition_key: r.partition_key.unwrap_or_default(),
        data: Bytes::from(r.data.into_inner()),
    })
}

fn micros(at: &DateTime) -> Option<i64> {
    // The wire has seconds with a fraction in floating point: round, for the nearest number may be just below.
    i64::try_from((at.as_nanos() + 500).div_euclid(1_000)).ok()
}

/// The time at which the service answered one call, from the answer's `Date`. All of a read's decisions are by this
/// clock, so this machine's may be wrong.
#[derive(Debug, Clone)]
struct ServiceTime(Arc<AtomicI64>);

impl Default for ServiceTime {
    fn default() -> Self {
        Self(Arc::new(AtomicI64::new(i64::MIN)))
    }
}

impl ServiceTime {
    fn get(&self) -> Result<i64, Failure> {
        match self.0.load(Ordering::Acquire) {
            i64::MIN => Err(Failure::Fatal(Error::new(ErrorKind::Data, "the service's answer has no `Date`"))),
            now => Ok(now),
        }
    }
}

impl Intercept for ServiceTime {
    fn name(&self) -> &'static str {
        "ServiceTime"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context.response().headers().get("date");
        if let Some(at) = date.and_then(|d| DateTime::from_str(d, DateTimeFormat::HttpDate).ok()) {
            self.0.store(micros(&at).unwrap_or(i64::MIN), Ordering::Release);
        }
        Ok(())
    }
}

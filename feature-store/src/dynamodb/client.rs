//! The calls to the service. Everything that knows the SDK of DynamoDB is in this file, and in `imports` below it.

mod imports;

use std::collections::HashMap;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::error::{BuildError, ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{self as aws, AttributeValue, ReturnValue, ReturnValuesOnConditionCheckFailure};
use featurectl_aws::{Access, told};
use featurectl_core::{Error, Result};

use super::failure::{Failure, Place, Said};
use super::item::{FORMAT, Item, Key, Span, Value};

pub(super) use imports::ImportState;

type Attributes = HashMap<String, AttributeValue>;

/// One table of the service, which need not be there yet.
#[derive(Debug, Clone)]
pub struct Table {
    client: aws_sdk_dynamodb::Client,
    place: Place,
}

/// What became of a tile's header.
#[derive(Debug)]
pub(super) enum Written {
    /// It is stored, in place of this one.
    Stored(Option<Item>),
    /// This one is not older. Compatible services may leave it out.
    Refused(Option<Item>),
}

/// What becomes of an item, whatever was there.
#[derive(Debug)]
pub(super) enum Change {
    Put(Item),
    Delete(Key),
}

/// A part of an answer, and where the next begins.
#[derive(Debug)]
pub(super) struct Page<T> {
    pub found: Vec<T>,
    pub next: Option<Key>,
}

/// What the service says of a table.
#[derive(Debug)]
pub(super) struct Description {
    pub arn: String,
    pub status: String,
    /// What is wrong with its keys, if anything.
    pub other_keys: Option<String>,
    pub deletion_protection: bool,
}

impl Table {
    /// The table of this name or ARN, by the standard configuration chain. Nothing is asked of the service yet.
    pub async fn connect(name: &str, access: &Access) -> Self {
        Self::new(&access.config().await, name)
    }

    /// The table of this name or ARN, reached as `config` says.
    pub fn new(config: &SdkConfig, name: &str) -> Self {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(Duration::from_secs(3))
            .operation_attempt_timeout(Duration::from_secs(10))
            .build();
        // The store makes calls again itself: it slows down all calls when one is throttled.
        let builder = aws_sdk_dynamodb::config::Builder::from(config);
        let config_of_service = builder.retry_config(RetryConfig::disabled()).timeout_config(timeouts).build();
        let region = config.region().map_or("no region", |r| r.as_ref());
        let place = Place { table: name.to_string(), service: config.endpoint_url().unwrap_or(region).to_string() };
        Self { client: aws_sdk_dynamodb::Client::from_conf(config_of_service), place }
    }

    /// Another table of the same service.
    pub(super) fn beside(&self, name: &str) -> Self {
        Self { client: self.client.clone(), place: Place { table: name.to_string(), ..self.place.clone() } }
    }

    /// Its name or ARN.
    pub fn name(&self) -> &str {
        &self.place.table
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Stores a header if the table has none of its key, or one with an older position.
    pub(super) async fn put_newer(&self, header: &Item) -> Result<Written, Failure> {
        let position = header.position.unwrap_or_default();
        let call = self.client.put_item().table_name(self.name()).set_item(Some(attributes(header)));
        let call = call
            .condition_expression("attribute_not_exists(pk) OR (v = :v AND pos < :pos)")
            .expression_attribute_values(":v", AttributeValue::N(FORMAT.to_string()))
            .expression_attribute_values(":pos", AttributeValue::B(Blob::new(position.0)))
            .return_values(ReturnValue::AllOld)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        match call.send().await {
            Ok(stored) => Ok(Written::Stored(stored.attributes.map(item).transpose()?)),
            Err(SdkError::ServiceError(e)) if e.err().is_conditional_check_failed_exception() => match e.into_err() {
                PutItemError::ConditionalCheckFailedException(e) => Ok(Written::Refused(e.item.map(item).transpose()?)),
                other => Err(Error::internal(other.to_string()).into()),
            },
            Err(e) => Err(self.failure(&e)),
        }
    }

    /// Stores an item, whatever was there.
    pub(super) async fn put(&self, stored: &Item) -> Result<(), Failure> {
        let call = self.client.put_item().table_name(self.name()).set_item(Some(attributes(stored)));
        call.send().await.map(|_| ()).map_err(|e| self.failure(&e))
    }

    /// One item, as the last write left it.
    pub(super) async fn get(&self, key: &Key) -> Result<Option<Item>, Failure> {
        let call = self.client.get_item().table_name(self.name()).set_key(Some(key_attributes(key)));
        let got = call.consistent_read(true).send().await.map_err(|e| self.failure(&e))?;
        Ok(got.item.map(item).transpose()?)
    }

    /// Items of a span in order, as the last writes left them.
    pub(super) async fn query(&self, span: &Span, from: Option<Key>) -> Result<Page<Item>, Failure> {
        let page = self.span(span, from).send().await.map_err(|e| self.failure(&e))?;
        let found = page.items.unwrap_or_default().into_iter().map(item).collect::<Result<_>>()?;
        Ok(Page { found, next: page.last_evaluated_key.map(key).transpose()? })
    }

    /// Keys of a span in order.
    pub(super) async fn query_keys(&self, span: &Span, from: Option<Key>) -> Result<Page<Key>, Failure> {
        let call = self.span(span, from).projection_expression("pk, sk");
        let page = call.send().await.map_err(|e| self.failure(&e))?;
        keys(page.items, page.last_evaluated_key)
    }

    fn span(&self, span: &Span, from: Option<Key>) -> QueryFluentBuilder {
        self.client
            .query()
            .table_name(self.name())
            .key_condition_expression("pk = :pk AND sk BETWEEN :low AND :high")
            .expression_attribute_values(":pk", AttributeValue::B(Blob::new(span.pk.as_slice())))
            .expression_attribute_values(":low", AttributeValue::B(Blob::new(span.low.as_slice())))
            .expression_attribute_values(":high", AttributeValue::B(Blob::new(span.high.as_slice())))
            .consistent_read(true)
            .set_exclusive_start_key(from.as_ref().map(key_attributes))
    }

    /// Keys, among those of one of `segments` equal shares of the table, whose partition key starts with one of two
    /// prefixes. The service reads all that is there.
    pub(super) async fn scan_keys(
        &self,
        [one, other]: &[Vec<u8>; 2],
        (segment, segments): (i32, i32),
        from: Option<Key>,
    ) -> Result<Page<Key>, Failure> {
        let call = self.client.scan().table_name(self.name()).segment(segment).total_segments(segments);
        let call = call
            .filter_expression("begins_with(pk, :one) OR begins_with(pk, :other)")
            .expression_attribute_values(":one", AttributeValue::B(Blob::new(one.as_slice())))
            .expression_attribute_values(":other", AttributeValue::B(Blob::new(other.as_slice())))
            .projection_expression("pk, sk")
            .consistent_read(true)
            .set_exclusive_start_key(from.as_ref().map(key_attributes));
        let page = call.send().await.map_err(|e| self.failure(&e))?;
        keys(page.items, page.last_evaluated_key)
    }

    /// Makes up to 25 changes, of different items, and returns those that are left.
    pub(super) async fn change(&self, changes: &[Change]) -> Result<Vec<Change>, Failure> {
        let requests = changes.iter().map(write_request).collect::<Result<Vec<_>>>()?;
        let call = self.client.batch_write_item().request_items(self.name(), requests);
        let answer = call.send().await.map_err(|e| self.failure(&e))?;
        let left = answer.unprocessed_items.unwrap_or_default().into_values().flatten();
        let change = |left: aws::WriteRequest| match (left.put_request, left.delete_request) {
            (Some(put), _) => item(put.item).map(Change::Put).map(Some),
            (None, Some(delete)) => key(delete.key).map(Change::Delete).map(Some),
            (None, None) => Ok(None),
        };
        Ok(left.filter_map(|w| change(w).transpose()).collect::<Result<_>>()?)
    }

    /// Those of up to 100 items that are there, in any order, as the last writes left them; and the keys that are left.
    pub(super) async fn get_many(&self, keys: &[Key]) -> Result<(Vec<Item>, Vec<Key>), Failure> {
        let wanted = keys.iter().map(key_attributes).collect();
        let wanted = aws::KeysAndAttributes::builder().set_keys(Some(wanted)).consistent_read(true).build();
        let call = self.client.batch_get_item().request_items(self.name(), wanted.map_err(unbuilt)?);
        let answer = call.send().await.map_err(|e| self.failure(&e))?;
        let found = answer.responses.unwrap_or_default().into_values().flatten().map(item);
        let left = answer.unprocessed_keys.unwrap_or_default().into_values().flat_map(|left| left.keys).map(key);
        Ok((found.collect::<Result<_>>()?, left.collect::<Result<_>>()?))
    }

    /// Makes the table, paid by request.
    pub(super) async fn create(&self, tags: &[(String, String)], deletion_protection: bool) -> Result<(), Failure> {
        let (attributes, keys) = schema()?;
        let call = self.client.create_table().table_name(self.name());
        let call = call
            .set_attribute_definitions(Some(attributes))
            .set_key_schema(Some(keys))
            .billing_mode(aws::BillingMode::PayPerRequest)
            .set_deletion_protection_enabled(deletion_protection.then_some(true))
            .set_tags(if tags.is_empty() { None } else { Some(self::tags(tags)?) });
        call.send().await.map(|_| ()).map_err(|e| self.failure(&e))
    }

    pub(super) async fn describe(&self) -> Result<Description, Failure> {
        let answer = self.client.describe_table().table_name(self.name()).send().await;
        let answer = answer.map_err(|e| self.failure(&e))?;
        let table = answer.table.ok_or_else(|| Error::data("the service describes no table"))?;
        let keys: Vec<_> = table.key_schema().iter().map(|k| (k.attribute_name(), k.key_type().as_str())).collect();
        let types: HashMap<_, _> =
            table.attribute_definitions().iter().map(|a| (a.attribute_name(), a.attribute_type().as_str())).collect();
        let found: Vec<_> =
            keys.iter().map(|(name, kind)| format!("{name} {kind} {}", types.get(name).unwrap_or(&"?"))).collect();
        let found = found.join(", ");
        Ok(Description {
            arn: table.table_arn().unwrap_or_default().to_string(),
            status: table.table_status().map_or("", |s| s.as_str()).to_string(),
            other_keys: (found != "pk HASH B, sk RANGE B").then_some(found),
            deletion_protection: table.deletion_protection_enabled().unwrap_or(false),
        })
    }

    pub(super) async fn tag(&self, arn: &str, tags: &[(String, String)]) -> Result<(), Failure> {
        let call = self.client.tag_resource().resource_arn(arn).set_tags(Some(self::tags(tags)?));
        call.send().await.map(|_| ()).map_err(|e| self.failure(&e))
    }

    pub(super) async fn protect(&self) -> Result<(), Failure> {
        let call = self.client.update_table().table_name(self.name()).deletion_protection_enabled(true);
        call.send().await.map(|_| ()).map_err(|e| self.failure(&e))
    }

    /// The attribute by which the service deletes items.
    pub(super) async fn ttl_attribute(&self) -> Result<Option<String>, Failure> {
        let answer = self.client.describe_time_to_live().table_name(self.name()).send().await;
        let ttl = answer.map_err(|e| self.failure(&e))?.time_to_live_description;
        Ok(ttl
            .filter(|t| matches!(t.time_to_live_status(), Some(s) if s.as_str().starts_with("ENABL")))
            .and_then(|t| t.attribute_name))
    }

    pub(super) async fn set_ttl_attribute(&self, name: &str) -> Result<(), Failure> {
        let ttl =
            aws::TimeToLiveSpecification::builder().enabled(true).attribute_name(name).build().map_err(unbuilt)?;
        let call = self.client.update_time_to_live().table_name(self.name()).time_to_live_specification(ttl);
        call.send().await.map(|_| ()).map_err(|e| self.failure(&e))
    }

    /// Whether the table can be restored as of a point in time.
    pub(super) async fn has_recovery(&self) -> Result<bool, Failure> {
        let answer = self.client.describe_continuous_backups().table_name(self.name()).send().await;
        let backups = answer.map_err(|e| self.failure(&e))?.continuous_backups_description;
        let recovery = backups.and_then(|b| b.point_in_time_recovery_description);
        let status = recovery.and_then(|r| r.point_in_time_recovery_status);
        Ok(status == Some(aws::PointInTimeRecoveryStatus::Enabled))
    }

    pub(super) async fn set_recovery(&self) -> Result<(), Failure> {
        let on = aws::PointInTimeRecoverySpecification::builder().point_in_time_recovery_enabled(true);
        let call = self.client.update_continuous_backups().table_name(self.name());
        let call = call.point_in_time_recovery_specification(on.build().map_err(unbuilt)?);
        call.send().await.map(|_| ()).map_err(|e| self.failure(&e))
    }

    fn failure<E>(&self, e: &SdkError<E>) -> Failure
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let said = e.as_service_error().and_then(|s| Some((s.code()?, s.message().unwrap_or(""))));
        self.place.failure(&Said {
            code: said.map(|(code, _)| code.to_string()).unwrap_or_default(),
            status: if let SdkError::ServiceError(e) = e { e.raw().status().as_u16() } else { 0 },
            text: told(said.map(|(code, _)| code), said.map(|(_, message)| message), e),
            unsent: matches!(e, SdkError::ConstructionFailure(_)),
        })
    }
}

fn unbuilt(e: BuildError) -> Error {
    Error::internal(e.to_string())
}

/// The keys of the layout, as a new table is told them.
fn schema() -> Result<(Vec<aws::AttributeDefinition>, Vec<aws::KeySchemaElement>)> {
    let keys = [("pk", aws::KeyType::Hash), ("sk", aws::KeyType::Range)];
    let attribute = |(name, _): &(&str, _)| {
        let binary = aws::ScalarAttributeType::B;
        aws::AttributeDefinition::builder().attribute_name(*name).attribute_type(binary).build().map_err(unbuilt)
    };
    let part = |(name, kind): &(&str, aws::KeyType)| {
        aws::KeySchemaElement::builder().attribute_name(*name).key_type(kind.clone()).build().map_err(unbuilt)
    };
    Ok((keys.iter().map(attribute).collect::<Result<_>>()?, keys.iter().map(part).collect::<Result<_>>()?))
}

fn tags(tags: &[(String, String)]) -> Result<Vec<aws::Tag>> {
    tags.iter().map(|(key, value)| aws::Tag::builder().key(key).value(value).build().map_err(unbuilt)).collect()
}

fn write_request(change: &Change) -> Result<aws::WriteRequest> {
    let request = aws::WriteRequest::builder();
    Ok(match change {
        Change::Put(item) => {
            let put = aws::PutRequest::builder().set_item(Some(attributes(item))).build().map_err(unbuilt)?;
            request.put_request(put).build()
        }
        Change::Delete(key) => {
            let delete = aws::DeleteRequest::builder().set_key(Some(key_attributes(key))).build().map_err(unbuilt)?;
            request.delete_request(delete).build()
        }
    })
}

fn attributes(item: &Item) -> Attributes {
    let typed = |value| match value {
        Value::Binary(bytes) => AttributeValue::B(Blob::new(bytes)),
        Value::Number(n) => AttributeValue::N(n.to_string()),
    };
    item.attributes().map(|(name, value)| (name.to_string(), typed(value))).collect()
}

fn item(attributes: Attributes) -> Result<Item> {
    let value = |value| match value {
        AttributeValue::B(bytes) => Some(Value::Binary(bytes.into_inner())),
        AttributeValue::N(n) => n.parse().ok().map(Value::Number),
        _ => None,
    };
    Item::from_attributes(attributes.into_iter().filter_map(|(name, v)| Some((name, value(v)?))))
}

fn key_attributes(key: &Key) -> Attributes {
    let binary = |bytes: &[u8]| AttributeValue::B(Blob::new(bytes));
    [("pk".to_string(), binary(&key.pk)), ("sk".to_string(), binary(&key.sk))].into()
}

fn key(mut attributes: Attributes) -> Result<Key> {
    let mut take = |name| match attributes.remove(name) {
        Some(AttributeValue::B(bytes)) => Ok(bytes.into_inner()),
        _ => Err(Error::data(format!("an item of the online table has no binary key `{name}`: name another table"))),
    };
    Ok(Key { pk: take("pk")?, sk: take("sk")? })
}

fn keys(items: Option<Vec<Attributes>>, next: Option<Attributes>) -> Result<Page<Key>, Failure> {
    let found = items.unwrap_or_default().into_iter().map(key).collect::<Result<_>>()?;
    Ok(Page { found, next: next.map(key).transpose()? })
}

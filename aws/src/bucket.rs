//! One bucket, which says what its errors mean.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_types::service_config::ServiceConfigKey;
use featurectl_core::Error;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryFutureExt, TryStreamExt};
use object_store::aws::{AmazonS3, AmazonS3Builder, S3ConditionalPut};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, RetryConfig, UploadPart,
};
use tokio::sync::OnceCell;

use crate::access::Access;
use crate::credentials::{Credentials, as_store_error};
use crate::failure::{Doing, Place, code};

/// The configuration that all buckets share, loaded when the first of them is used.
#[derive(Debug)]
pub(crate) struct Chain {
    access: Access,
    retries: RetryConfig,
    loaded: OnceCell<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    region: Option<String>,
    endpoint: Option<String>,
    credentials: Arc<Credentials>,
}

impl Chain {
    /// That of `access`, with up to ten retries in three minutes, after waits that double and have a random part.
    pub(crate) fn new(access: Access) -> Self {
        Self { access, retries: RetryConfig::default(), loaded: OnceCell::new() }
    }

    /// That of a configuration which is there already.
    pub(crate) fn of(config: &SdkConfig, retries: RetryConfig) -> Self {
        Self { access: Access::default(), retries, loaded: OnceCell::new_with(Some(Loaded::of(config, None))) }
    }

    async fn load(&self) -> Loaded {
        Loaded::of(&self.access.config().await, self.access.endpoint.clone())
    }
}

impl Loaded {
    /// `endpoint` goes before that of the service in the environment or the profile, which goes before that of all services.
    fn of(config: &SdkConfig, endpoint: Option<String>) -> Self {
        let key = ServiceConfigKey::builder().service_id("S3").env("AWS_ENDPOINT_URL").profile("endpoint_url").build();
        let of_service = || config.service_config()?.load_config(key.ok()?);
        Self {
            region: config.region().map(ToString::to_string),
            endpoint: endpoint.or_else(of_service).or_else(|| config.endpoint_url().map(str::to_string)),
            credentials: Arc::new(Credentials::new(config.credentials_provider())),
        }
    }
}

/// A bucket of S3, or of a service like it.
#[derive(Debug)]
pub(crate) struct Bucket {
    name: String,
    chain: Arc<Chain>,
    opened: Arc<OnceCell<Opened>>,
}

/// A client, and what its errors say of it.
#[derive(Debug, Clone)]
struct Opened {
    s3: AmazonS3,
    place: Place,
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}", self.name)
    }
}

impl Bucket {
    pub(crate) fn new(name: &str, chain: Arc<Chain>) -> Self {
        Self { name: name.into(), chain, opened: Arc::default() }
    }

    /// The client, made when it is first needed.
    fn opened(&self) -> impl Future<Output = Result<Opened>> + Send + 'static {
        let (cell, chain, name) = (Arc::clone(&self.opened), Arc::clone(&self.chain), self.name.clone());
        async move { cell.get_or_try_init(|| open(name, &chain)).await.cloned() }
    }
}

async fn open(name: String, chain: &Chain) -> Result<Opened> {
    let Loaded { region, endpoint, credentials } = chain.loaded.get_or_init(|| chain.load()).await;
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&name)
        .with_credentials(Arc::clone(credentials) as _)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_retry(chain.retries.clone());
    let region = match (region, endpoint) {
        (Some(region), _) => region.as_str(),
        // Services like S3 have no regions; this is what they are asked by.
        (None, Some(_)) => "us-east-1",
        (None, None) => {
            return Err(as_store_error(Error::invalid(format!(
                "no AWS region is set for s3://{name}: set AWS_REGION, or `region` in the profile"
            ))));
        }
    };
    builder = builder.with_region(region);
    builder = match endpoint {
        Some(endpoint) => builder.with_endpoint(endpoint).with_allow_http(true),
        // A name with dots has no certificate as a host.
        None => builder.with_virtual_hosted_style_request(!name.contains('.')),
    };
    let service = endpoint.clone().unwrap_or_else(|| region.to_string());
    let place = Place { bucket: name, region: region.into(), service };
    let s3 = builder.build().map_err(|e| place.explained("", Doing::Read, &e))?;
    Ok(Opened { s3, place })
}

impl Opened {
    fn explained(&self, location: &Path, doing: Doing, e: &object_store::Error) -> object_store::Error {
        self.place.explained(location.as_ref(), doing, e)
    }

    /// The answer to a HEAD has no body, so that an error has no name: a GET of a byte has one.
    async fn named(&self, location: &Path, e: object_store::Error) -> object_store::Error {
        let byte = GetOptions { range: Some(GetRange::Bounded(0..1)), ..GetOptions::default() };
        match self.s3.get_opts(location, byte).await {
            Err(named) if code(&named).is_some() => named,
            _ => e,
        }
    }
}

#[async_trait]
impl ObjectStore for Bucket {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let opened = self.opened().await?;
        let put = opened.s3.put_opts(location, payload, opts).await;
        put.map_err(|e| opened.explained(location, Doing::Write, &e))
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let opened = self.opened().await?;
        match opened.s3.put_multipart_opts(location, opts).await {
            Ok(upload) => Ok(Box::new(Upload { upload, opened, location: location.clone() })),
            Err(e) => Err(opened.explained(location, Doing::Write, &e)),
        }
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let opened = self.opened().await?;
        let head = options.head;
        let mut result = match opened.s3.get_opts(location, options).await {
            Ok(result) => result,
            Err(e) => {
                let unconditional =
                    !matches!(e, object_store::Error::Precondition { .. } | object_store::Error::NotModified { .. });
                let e = if head && unconditional { opened.named(location, e).await } else { e };
                return Err(opened.explained(location, Doing::Read, &e));
            }
        };
        if let GetResultPayload::Stream(bytes) = result.payload {
            let location = location.clone();
            let explained = move |e| opened.explained(&location, Doing::Read, &e);
            result.payload = GetResultPayload::Stream(bytes.map_err(explained).boxed());
        }
        Ok(result)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let deleted = self.opened().map_ok(|opened| {
            let deleted = opened.s3.delete_stream(locations);
            deleted.map_err(move |e| opened.place.explained("", Doing::Delete, &e)).boxed()
        });
        deleted.into_stream().try_flatten().boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let prefix = prefix.cloned();
        let found = self.opened().map_ok(|opened| {
            let found = opened.s3.list(prefix.as_ref());
            let prefix = prefix.unwrap_or_default();
            found.map_err(move |e| opened.explained(&prefix, Doing::List, &e)).boxed()
        });
        found.into_stream().try_flatten().boxed()
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        let (prefix, offset) = (prefix.cloned(), offset.clone());
        let found = self.opened().map_ok(move |opened| {
            let found = opened.s3.list_with_offset(prefix.as_ref(), &offset);
            let prefix = prefix.unwrap_or_default();
            found.map_err(move |e| opened.explained(&prefix, Doing::List, &e)).boxed()
        });
        found.into_stream().try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let opened = self.opened().await?;
        let found = opened.s3.list_with_delimiter(prefix).await;
        found.map_err(|e| opened.explained(prefix.unwrap_or(&Path::default()), Doing::List, &e))
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let opened = self.opened().await?;
        opened.s3.copy_opts(from, to, options).await.map_err(|e| opened.explained(to, Doing::Write, &e))
    }
}

/// An upload in parts that says what its errors mean.
#[derive(Debug)]
struct Upload {
    upload: Box<dyn MultipartUpload>,
    opened: Opened,
    location: Path,
}

impl Upload {
    fn explained(&self, e: &object_store::Error) -> object_store::Error {
        self.opened.explained(&self.location, Doing::Write, e)
    }
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (opened, location) = (self.opened.clone(), self.location.clone());
        let explained = move |e| opened.explained(&location, Doing::Write, &e);
        self.upload.put_part(data).map_err(explained).boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.upload.complete().await.map_err(|e| self.explained(&e))
    }

    async fn abort(&mut self) -> Result<()> {
        self.upload.abort().await.map_err(|e| self.explained(&e))
    }
}

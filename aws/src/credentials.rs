//! The chain's credentials for requests to S3.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use featurectl_core::{Error, ErrorKind};
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use tokio::sync::Mutex;

use crate::failure::cause;

/// Credentials are asked for again this long before they expire, so that a request with retries ends before.
const AHEAD: Duration = Duration::from_secs(300);

/// Credentials of the standard chain, asked for when they are needed and held until shortly before they expire.
#[derive(Debug)]
pub(crate) struct Credentials {
    provider: Option<SharedCredentialsProvider>,
    held: Mutex<Option<Held>>,
}

struct Held {
    credential: Arc<AwsCredential>,
    until: Option<SystemTime>,
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Held").field("until", &self.until).finish_non_exhaustive()
    }
}

impl Credentials {
    pub(crate) fn new(provider: Option<SharedCredentialsProvider>) -> Self {
        Self { provider, held: Mutex::default() }
    }
}

#[async_trait]
impl CredentialProvider for Credentials {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let mut held = self.held.lock().await;
        if let Some(held) = held.as_ref().filter(|h| h.until.is_none_or(|until| until > now() + AHEAD)) {
            return Ok(Arc::clone(&held.credential));
        }
        let provider = self.provider.as_ref().ok_or_else(|| none("there is no provider"))?;
        let found = provider.provide_credentials().await.map_err(|e| failed(&e))?;
        let credential = Arc::new(AwsCredential {
            key_id: found.access_key_id().to_string(),
            secret_key: found.secret_access_key().to_string(),
            token: found.session_token().map(str::to_string),
        });
        *held = Some(Held { credential: Arc::clone(&credential), until: found.expiry() });
        Ok(credential)
    }
}

#[expect(clippy::disallowed_methods, reason = "credentials expire by this machine's clock, whatever a run's time is")]
fn now() -> SystemTime {
    SystemTime::now()
}

fn none(text: &str) -> object_store::Error {
    as_store_error(Error::invalid(format!(
        "no AWS credentials were found: set AWS_PROFILE or `aws_profile` in the profile, sign in with `aws sso login`, or \
         give this machine a role ({text})"
    )))
}

fn failed(e: &CredentialsError) -> object_store::Error {
    let text = cause(e);
    match e {
        CredentialsError::CredentialsNotLoaded(_) => none(&text),
        _ if text.to_lowercase().contains("expired") => as_store_error(Error::invalid(format!(
            "the session has expired: sign in again with `aws sso login` ({text})"
        ))),
        CredentialsError::ProviderTimedOut(_) => as_store_error(Error::new(
            ErrorKind::Unavailable,
            format!("no AWS credentials in time: try again, or set AWS_PROFILE ({text})"),
        )),
        _ => as_store_error(Error::invalid(format!(
            "the AWS credentials can't be had: correct the profile, or sign in again ({text})"
        ))),
    }
}

pub(crate) fn as_store_error(error: Error) -> object_store::Error {
    object_store::Error::Generic { store: "S3", source: Box::new(error) }
}

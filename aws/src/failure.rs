//! What an error of S3 means, in words that say what to do.
//!
//! Of an answer only its code and its message are kept. The rest can hold a secret: S3 repeats the request's session
//! token where it does not accept it.

use featurectl_core::{Error, ErrorKind};

/// What a request was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doing {
    Read,
    Write,
    List,
    Delete,
}

impl Doing {
    fn verb(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::List => "list",
            Self::Delete => "delete",
        }
    }

    fn action(self) -> &'static str {
        match self {
            Self::Read => "s3:GetObject, and s3:ListBucket to be told that a key is missing",
            Self::Write => "s3:PutObject",
            Self::List => "s3:ListBucket on the bucket",
            Self::Delete => "s3:DeleteObject",
        }
    }
}

/// Which bucket was asked, and where.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) bucket: String,
    pub(crate) region: String,
    /// Address of the service, or its region.
    pub(crate) service: String,
}

impl Place {
    /// The same error, with what to do instead of what was answered. Errors that decide what a caller does, such as that
    /// a key is missing or there already, stay what they are.
    pub(crate) fn explained(&self, key: &str, doing: Doing, e: &object_store::Error) -> object_store::Error {
        use object_store::Error as Store;
        // It is explained already: it is of the credentials, or of a retried call.
        if let Some(known) = Error::within(e) {
            return Store::Generic { store: "S3", source: Box::new(Error::new(known.kind(), known.to_string())) };
        }
        let said = Said::of(e);
        let place = format!("s3://{}/{key}", self.bucket);
        let source = self.meaning(&place, doing, &said);
        let path = key.to_string();
        match e {
            Store::NotFound { .. } if !said.is("NoSuchBucket") => {
                let missing = Error::not_found(format!("no object {place}")).into();
                Store::NotFound { path, source: missing }
            }
            Store::AlreadyExists { .. } => Store::AlreadyExists { path, source: source.into() },
            Store::Precondition { .. } => Store::Precondition { path, source: source.into() },
            Store::NotModified { .. } => Store::NotModified { path, source: source.into() },
            Store::NotSupported { .. } => Store::NotSupported { source: source.into() },
            _ => Store::Generic { store: "S3", source: source.into() },
        }
    }

    fn meaning(&self, place: &str, doing: Doing, said: &Said) -> Error {
        let Self { bucket, region, service } = self;
        let verb = doing.verb();
        let told = said.told();
        match (said.code.as_deref().unwrap_or_default(), said.status) {
            ("NoSuchBucket", _) => Error::not_found(format!(
                "no bucket `{bucket}` in {service}: correct its name or the account, or make it ({place})"
            )),
            (
                "PermanentRedirect"
                | "TemporaryRedirect"
                | "AuthorizationHeaderMalformed"
                | "IllegalLocationConstraintException",
                _,
            )
            | (_, 300..400) => {
                let right = match &said.region {
                    Some(right) => format!("it is in {right}: set AWS_REGION or `region` in the profile to that"),
                    None => format!(
                        "set AWS_REGION or `region` in the profile to the one that `aws s3api get-bucket-location --bucket \
                         {bucket}` tells"
                    ),
                };
                Error::invalid(format!("bucket `{bucket}` is not in region {region}: {right} ({place})"))
            }
            ("RequestTimeTooSkewed" | "RequestExpired", _) => Error::invalid(format!(
                "this machine's clock is wrong, so S3 refuses to {verb} {place}: set it, and keep it right with chrony or \
                 systemd-timesyncd ({told})"
            )),
            ("ExpiredToken" | "TokenRefreshRequired" | "ExpiredTokenException", _) => Error::invalid(format!(
                "can't {verb} {place}: the session's token has expired: sign in again with `aws sso login`, or renew the \
                 credentials ({told})"
            )),
            ("InvalidAccessKeyId" | "SignatureDoesNotMatch" | "InvalidToken" | "InvalidClientTokenId", _)
            | (_, 401) => Error::invalid(format!(
                "can't {verb} {place}: the credentials are not accepted: check them and the account ({told})"
            )),
            ("SlowDown" | "ServiceUnavailable" | "RequestLimitExceeded" | "Throttling" | "TooManyRequests", _)
            | (_, 429 | 503) => Error::new(
                ErrorKind::Unavailable,
                format!(
                    "S3 takes no more requests for `{bucket}` at present, also after retries: go on later, or with fewer \
                     threads ({verb} {place}; {told})"
                ),
            ),
            ("AccessDenied" | "AccessDeniedException" | "AllAccessDisabled", _) | (_, 403) => {
                Error::invalid(format!("not allowed to {verb} {place}: give the role {} ({told})", doing.action()))
            }
            ("EntityTooLarge", _) => Error::invalid(format!("{place} is larger than S3 takes ({told})")),
            ("ConditionalRequestConflict" | "OperationAborted" | "PreconditionFailed", _) | (_, 409 | 412) => {
                Error::conflict(format!("another writer was faster with {place} ({told})"))
            }
            (_, 500..) => Error::new(
                ErrorKind::Unavailable,
                format!("S3 is disturbed, also after retries: go on later ({verb} {place}; {told})"),
            ),
            (_, 1..) => Error::invalid(format!("S3 refused to {verb} {place}: {told}")),
            (_, 0) if said.is_of_the_network => Error::new(
                ErrorKind::Unavailable,
                format!(
                    "no answer for {place} from {service}: check the network, the region and the endpoint ({told})"
                ),
            ),
            (_, 0) => Error::invalid(format!("can't {verb} {place}: {told}")),
        }
    }
}

/// What is known of a failed request.
#[derive(Debug, Default)]
struct Said {
    /// Status of the answer; 0 if there was none.
    status: u16,
    code: Option<String>,
    message: Option<String>,
    region: Option<String>,
    /// What the client says, where nothing was answered.
    text: String,
    is_of_the_network: bool,
}

impl Said {
    fn of(e: &object_store::Error) -> Self {
        let text = cause(e);
        let status = ["status code: ", "status "].iter().find_map(|before| {
            let digits: String = text.split_once(before)?.1.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().ok().filter(|s| (100..600).contains(s))
        });
        // What the client says of an answer that leads elsewhere without saying where.
        let redirected = text.contains("redirect without LOCATION").then_some(301);
        let code = code(e);
        let answered = status.or(redirected).or(code.is_some().then_some(400));
        let lower = text.to_lowercase();
        let network = ["error sending request", "connect", "timed out", "timeout", "connection", "dns"];
        Self {
            status: answered.unwrap_or(0),
            message: between(&text, "<Message>", "</Message>").or_else(|| between(&text, "message: ", " (code")),
            region: between(&text, "<Region>", "</Region>"),
            is_of_the_network: network.iter().any(|n| lower.contains(n)),
            text: if answered.is_some() { String::new() } else { text },
            code,
        }
    }

    fn is(&self, code: &str) -> bool {
        self.code.as_deref() == Some(code)
    }

    fn told(&self) -> String {
        match (&self.code, &self.message, self.status) {
            (Some(code), Some(message), _) => format!("{code}: {message}"),
            (Some(code), None, _) => code.clone(),
            (None, _, 1..) => format!("status {}", self.status),
            (None, ..) => self.text.clone(),
        }
    }
}

/// The name that S3 gave an error.
pub(crate) fn code(e: &object_store::Error) -> Option<String> {
    let text = cause(e);
    between(&text, "<Code>", "</Code>").or_else(|| between(&text, "(code: ", ")"))
}

/// An error with all that caused it, in one line.
pub(crate) fn cause(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut next = e.source();
    while let Some(inner) = next {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        next = inner.source();
    }
    text
}

fn between(text: &str, before: &str, after: &str) -> Option<String> {
    let (_, rest) = text.split_once(before)?;
    let (found, _) = rest.split_once(after)?;
    Some(found.trim().to_string())
}

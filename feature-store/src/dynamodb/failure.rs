//! What a failed call means: whether to make it again, and what to tell the user.

use featurectl_core::{Error, ErrorKind};

/// Why a call was not carried out, or has no answer.
#[derive(Debug)]
pub(super) struct Failure {
    /// Whether it helps to make it again.
    pub again: Again,
    /// What is said when it is not made again.
    pub error: Error,
}

/// Whether a call is made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// It would fail again.
    Never,
    /// The service or the network is disturbed. The call may have been carried out.
    Soon,
    /// The table takes no more at present. The call was not carried out.
    Slower,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { again: Again::Never, error }
    }
}

/// Which table a call was for.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// Name of the table.
    pub table: String,
    /// Region or address of the service.
    pub service: String,
}

/// What is known of a failed call.
#[derive(Debug, Clone, Default)]
pub(super) struct Said {
    /// Name of the service's error; empty if it gave none.
    pub code: String,
    /// Status of the answer; 0 if there was none, or not the whole of it.
    pub status: u16,
    /// All that was said.
    pub text: String,
    /// The call could not be built, so nothing was sent.
    pub unsent: bool,
}

impl Place {
    /// What a failed call means.
    pub fn failure(&self, said: &Said) -> Failure {
        let Said { code, status, text, unsent } = said;
        match (code.as_str(), status) {
            (
                "ProvisionedThroughputExceededException"
                | "ThrottlingException"
                | "Throttling"
                | "RequestLimitExceeded"
                | "LimitExceededException",
                _,
            ) => self.throttled(text),
            // Backups can't be set for a moment after a table was made.
            ("ContinuousBackupsUnavailableException", _) => disturbed(text),
            (_, 429 | 500..) => disturbed(text),
            (code, 400..500) => self.refused(code, text).into(),
            _ => self.unreached(text, *unsent),
        }
    }

    /// The table takes no more at present.
    pub fn throttled(&self, text: &str) -> Failure {
        let table = &self.table;
        let message = format!(
            "table `{table}` is throttled: go on later or with less at once, or raise its capacity and the limits of the \
             account ({text})"
        );
        Failure { again: Again::Slower, error: Error::new(ErrorKind::Unavailable, message) }
    }

    /// What the service said no to, with what to do.
    fn refused(&self, code: &str, text: &str) -> Error {
        let Self { table, service } = self;
        match code {
            "ResourceNotFoundException" | "TableNotFoundException" => Error::not_found(format!(
                "no table `{table}` in {service}: create it, or correct its name, the region or the account ({text})"
            )),
            "ResourceInUseException" => Error::conflict(format!(
                "table `{table}` is being made, changed or deleted: try again when that is done ({text})"
            )),
            "AccessDeniedException" | "AccessDenied" => Error::invalid(format!(
                "not allowed on table `{table}`: give the role the actions that docs/dynamodb.md lists ({text})"
            )),
            "ExpiredTokenException" | "ExpiredToken" => {
                Error::invalid(format!("the session's token has expired: sign in again ({text})"))
            }
            "UnrecognizedClientException"
            | "InvalidSignatureException"
            | "InvalidClientTokenId"
            | "IncompleteSignatureException"
            | "MissingAuthenticationTokenException" => Error::invalid(format!(
                "the credentials are not accepted: check them, the account, and this machine's clock ({text})"
            )),
            "UnknownOperationException" => Error::invalid(format!(
                "the service at {service} does not know this operation: leave out the option that needs it ({text})"
            )),
            "ValidationException" if is_of_the_keys(text) => self.keys_are_others(text),
            _ => Error::invalid(format!("DynamoDB refused a call on table `{table}`: {text}")),
        }
    }

    /// The keys of the table are not those of the layout.
    pub fn keys_are_others(&self, found: &str) -> Error {
        Error::invalid(format!(
            "table `{}` has not the keys `pk` and `sk`, both binary: name another table, or one that is not there, to \
             be made ({found})",
            self.table
        ))
    }

    /// A call that got no answer: of the network, or it could not be made.
    fn unreached(&self, text: &str, unsent: bool) -> Failure {
        let invalid = |message: &str| Error::invalid(format!("{message} ({text})")).into();
        let lower = text.to_lowercase();
        if ["region must be set", "missing region", "signing region"].iter().any(|t| lower.contains(t)) {
            return invalid("no AWS region is set: set AWS_REGION or a profile, or name the region");
        }
        if lower.contains("credential") || lower.contains("identity") {
            return invalid("no AWS credentials were found: set a profile, sign in, or give the machine a role");
        }
        if unsent {
            return invalid("the call could not be made");
        }
        let service = &self.service;
        unavailable(format!("no answer from {service}: check the network, the region and the endpoint ({text})"))
    }
}

/// The service has an error of its own.
fn disturbed(text: &str) -> Failure {
    unavailable(format!("DynamoDB is disturbed: go on later ({text})"))
}

fn unavailable(message: String) -> Failure {
    Failure { again: Again::Soon, error: Error::new(ErrorKind::Unavailable, message) }
}

fn is_of_the_keys(text: &str) -> bool {
    ["key schema", "match the schema", "Missing the key", "Type mismatch for key"].iter().any(|t| text.contains(t))
}

#[cfg(test)]
mod tests;

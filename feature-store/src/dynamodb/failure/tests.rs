//! What the service and the network say, and what becomes of it.

use super::*;

fn failure(code: &str, status: u16, text: &str) -> Failure {
    let place = Place { table: "features".into(), service: "eu-west-1".into() };
    let text = if code.is_empty() { text.to_string() } else { format!("{code}: {text}") };
    place.failure(&Said { code: code.into(), status, text, unsent: false })
}

#[test]
fn failures_say_what_to_do() {
    use Again::{Never, Slower, Soon};
    use ErrorKind::{Conflict, Invalid, NotFound, Unavailable};
    for (code, status, text, again, kind, wanted) in [
        ("ThrottlingException", 400, "", Slower, Unavailable, "table `features` is throttled"),
        ("ThrottlingException", 503, "", Slower, Unavailable, "raise its capacity"),
        ("LimitExceededException", 400, "too many tables at once", Slower, Unavailable, "too many tables at once"),
        ("InternalServerError", 500, "", Soon, Unavailable, "DynamoDB is disturbed: go on later"),
        ("", 503, "an HTML page", Soon, Unavailable, "DynamoDB is disturbed: go on later"),
        ("ContinuousBackupsUnavailableException", 400, "", Soon, Unavailable, "go on later"),
        (
            "",
            0,
            "dispatch failure: dns error",
            Soon,
            Unavailable,
            "no answer from eu-west-1: check the network, the region",
        ),
        ("", 0, "failed to load credentials", Never, Invalid, "no AWS credentials were found"),
        ("", 0, "A region must be set when sending requests", Never, Invalid, "set AWS_REGION"),
        ("ResourceNotFoundException", 400, "", Never, NotFound, "no table `features` in eu-west-1"),
        ("ResourceInUseException", 400, "", Never, Conflict, "is being made, changed or deleted"),
        ("AccessDeniedException", 400, "", Never, Invalid, "not allowed on table `features`"),
        ("ExpiredTokenException", 400, "", Never, Invalid, "sign in again"),
        ("InvalidSignatureException", 400, "", Never, Invalid, "this machine's clock"),
        ("UnknownOperationException", 400, "", Never, Invalid, "does not know this operation"),
        (
            "ValidationException",
            400,
            "Type mismatch for key pk expected: S actual: B",
            Never,
            Invalid,
            "has not the keys",
        ),
        (
            "ValidationException",
            400,
            "Query condition missed key schema element: id",
            Never,
            Invalid,
            "has not the keys",
        ),
        ("ValidationException", 400, "Item size has exceeded", Never, Invalid, "refused a call on table `features`"),
        ("", 403, "a proxy's page", Never, Invalid, "refused a call on table `features`: a proxy's page"),
    ] {
        let Failure { again: found, error } = failure(code, status, text);
        assert_eq!((found, error.kind()), (again, kind), "{error}");
        assert!(error.to_string().contains(wanted), "{error}");
    }
}

#[test]
fn a_call_that_could_not_be_built_is_not_made_again() {
    let place = Place { table: "features".into(), service: "eu-west-1".into() };
    let failure = place.failure(&Said { text: "no name".into(), unsent: true, ..Said::default() });
    assert_eq!(failure.again, Again::Never);
    assert_eq!(failure.error.to_string(), "the call could not be made (no name)");
}

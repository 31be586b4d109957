//! What a service said of a call that failed.

/// Code and message of a service's error; without a code, the error and what caused it.
///
/// Only the first line of each: where a service does not accept a signature, the next lines repeat the request that it
/// should have been for, and the session's token with it.
pub fn told(code: Option<&str>, message: Option<&str>, error: &(dyn std::error::Error + 'static)) -> String {
    let line = |text: &str| text.lines().next().unwrap_or_default().trim_end().to_string();
    match code.filter(|code| !code.is_empty()) {
        Some(code) => format!("{code}: {}", line(message.unwrap_or_default())),
        None => {
            let all: Vec<_> =
                std::iter::successors(Some(error), |e| e.source()).map(|e| line(&e.to_string())).collect();
            all.join(": ")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_lines_are_told() {
        let inner = std::io::Error::other("no route\nx-amz-security-token:abc");
        let error = featurectl_core::Error::invalid("outer").with_source(inner);
        assert_eq!(told(None, None, &error), "outer: no route");
        let message =
            "The signature does not match.\n\nThe Canonical String should have been\nx-amz-security-token:abc";
        assert_eq!(told(Some("C"), Some(message), &error), "C: The signature does not match.");
        assert_eq!(told(Some(""), Some("m"), &error), "outer: no route");
    }
}

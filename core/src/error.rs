//! The one error type of the workspace.

use std::fmt;

/// What the caller should do about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The input is wrong: change it and try again.
    Invalid,
    /// A named thing does not exist: create it or correct the name.
    NotFound,
    /// Somebody else holds or changed it: wait, or look at the newer state, and decide again.
    Conflict,
    /// A service did not answer: the same call may be retried as it is. The only kind that is retried.
    Unavailable,
    /// Stored or read bytes are damaged or of another format: repair or remove the data.
    Data,
    /// A defect of this program: report it.
    Internal,
}

/// An error that says what was being done, what went wrong and, by its [kind](ErrorKind), what to do.
///
/// ```
/// use featurectl_core::{Error, ErrorKind};
/// let e = Error::new(ErrorKind::NotFound, "no file `flights.parquet`").context("reading table `flights`");
/// assert_eq!(e.to_string(), "reading table `flights`: no file `flights.parquet`");
/// ```
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    /// What was being done, the innermost first.
    context: Vec<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The result of every fallible call in the workspace.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind`; `message` names the place and the fix, without a full stop.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), context: Vec::new(), source: None }
    }

    /// [`ErrorKind::Invalid`].
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// [`ErrorKind::NotFound`].
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// [`ErrorKind::Conflict`].
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, message)
    }

    /// [`ErrorKind::Data`].
    pub fn data(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Data, message)
    }

    /// [`ErrorKind::Internal`].
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// Adds what was being done when the error came up.
    pub fn context(mut self, doing: impl Into<String>) -> Self {
        self.context.push(doing.into());
        self
    }

    /// Keeps the error that caused this one.
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The error of this workspace that an error is, or was caused by: what a library passes on from a part of ours.
    pub fn within<'a>(e: &'a (dyn std::error::Error + 'static)) -> Option<&'a Self> {
        std::iter::successors(Some(e), |e| e.source()).find_map(|e| e.downcast_ref())
    }

    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for doing in self.context.iter().rev() {
            write!(f, "{doing}: ")?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|e| e as _)
    }
}

impl From<std::io::Error> for Error {
    fn from(e: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let kind = match e.kind() {
            Io::NotFound => ErrorKind::NotFound,
            Io::PermissionDenied | Io::StorageFull | Io::ReadOnlyFilesystem | Io::QuotaExceeded => ErrorKind::Invalid,
            Io::WouldBlock | Io::AlreadyExists => ErrorKind::Conflict,
            Io::TimedOut | Io::Interrupted => ErrorKind::Unavailable,
            Io::InvalidData | Io::UnexpectedEof => ErrorKind::Data,
            _ => ErrorKind::Internal,
        };
        Self::new(kind, e.to_string()).with_source(e)
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(e: arrow::error::ArrowError) -> Self {
        Self::new(ErrorKind::Data, e.to_string()).with_source(e)
    }
}

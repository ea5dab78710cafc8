//! What goes wrong, in words.

use alloc::format;
use alloc::string::{String, ToString};

use capos::{ClientError, ExceptionType, TransportError};
use service::ServerError;
use shell_core::{LineError, printable};

/// Why a command was not carried out.
pub(crate) enum Trouble {
    /// Something in the line, with its place.
    Line(LineError),
    /// Anything else.
    Text(String),
}

impl Trouble {
    /// The shell holds nothing called `name`.
    pub(crate) fn held(name: &str) -> Self {
        Self::Text(format!("this shell holds no @{name}"))
    }

    pub(crate) fn text(text: &str) -> Self {
        Self::Text(text.to_string())
    }
}

impl From<LineError> for Trouble {
    fn from(error: LineError) -> Self {
        Self::Line(error)
    }
}

impl From<ClientError> for Trouble {
    fn from(error: ClientError) -> Self {
        Self::Text(describe(&error))
    }
}

impl From<ServerError> for Trouble {
    fn from(error: ServerError) -> Self {
        Self::Text(format!("stdio cannot be served: {error:?}"))
    }
}

/// The class of an exception as the schema names it.
fn class(kind: ExceptionType) -> &'static str {
    match kind {
        ExceptionType::Failed => "failed",
        ExceptionType::Overloaded => "overloaded",
        ExceptionType::Disconnected => "disconnected",
        ExceptionType::Unimplemented => "unimplemented",
        ExceptionType::InvalidArgument => "invalidArgument",
    }
}

/// What a call came to, for whoever asked for it.
pub(crate) fn describe(error: &ClientError) -> String {
    match error {
        ClientError::Application(exception) => {
            let class = class(exception.exception_type());
            format!(
                "application error: {class}: {}",
                printable(exception.message())
            )
        }
        ClientError::Transport(TransportError::InvokeFailed) => {
            "the capability is stale: released or never there".to_string()
        }
        ClientError::Transport(TransportError::TransferNotSupported) => {
            "a capability may not go there".to_string()
        }
        other => format!("the call failed: {other:?}"),
    }
}

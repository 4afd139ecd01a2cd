//! What a kernel says when it cannot run. The TypeScript side builds the error that a person reads.

use std::fmt;

/// A refusal of one command: the operand or parameter it is about, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelError {
    /// Name of the operand or parameter as in the table of ops; `None` if the command as a whole is wrong.
    pub param: Option<&'static str>,
    /// One sentence with the actual values.
    pub message: String,
}

impl KernelError {
    /// An error about one operand or parameter.
    pub fn new(param: &'static str, message: impl Into<String>) -> KernelError {
        KernelError {
            param: Some(param),
            message: message.into(),
        }
    }

    /// An error about the command as a whole.
    pub fn command(message: impl Into<String>) -> KernelError {
        KernelError {
            param: None,
            message: message.into(),
        }
    }
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.param {
            Some(param) => write!(f, "{param}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for KernelError {}

//! What a failed link means for a script: kinds of failures, and their exit codes.

use super::LinkError;

/// What a failure means for a script that calls the command line: its exit code. 1 is any other
/// failure, 2 a mistake in the arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Severity {
    /// No device could be reached: connect one, or choose another link.
    Unreachable = 3,
    /// The device is not the one that was asked for: wrong chip, board, build, or locked.
    Refused = 4,
    /// The device was there and failed, or fell silent.
    Failed = 5,
}

impl LinkError {
    /// What kind of failure this is.
    pub fn severity(&self) -> Option<Severity> {
        Some(match self {
            LinkError::Start { .. } | LinkError::Replay(_) => Severity::Unreachable,
            LinkError::Mismatch { .. } => Severity::Refused,
            LinkError::Timeout { .. }
            | LinkError::Gone { .. }
            | LinkError::Frame { .. }
            | LinkError::Device { .. }
            | LinkError::Unexpected { .. } => Severity::Failed,
            LinkError::Probe(error) => error.severity(),
            LinkError::Model(_) => return None,
        })
    }
}

//! The words of the Black Magic Debug remote protocol, version 3: packets and replies as text.
//!
//! A packet is `!` words `#`, a reply `&`, a letter for the outcome, data and `#`. Source: the
//! protocol's description in the probe's firmware, `src/remote.h` (blackmagic-debug/blackmagic).
//! Must not know what a command does.

use std::fmt::Write;

/// What a probe answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// It was done; the number is the result.
    Value(u64),
    /// It was done; a text is the result.
    Text(String),
    /// It was done; bytes are the result.
    Bytes(Vec<u8>),
    /// It was tried and failed.
    Failed,
    /// The command makes no sense.
    BadParameter,
    /// The probe does not know the command.
    Unsupported,
}

impl Reply {
    /// Done, with nothing to say.
    pub const DONE: Reply = Reply::Value(0);

    /// The reply as it is sent.
    pub fn encode(&self) -> String {
        match self {
            Reply::Value(value) => format!("&K{value:x}#"),
            Reply::Text(text) => format!("&K{text}#"),
            Reply::Bytes(bytes) => {
                let mut text = String::from("&K");
                for byte in bytes {
                    // Writing to a string does not fail.
                    let _ = write!(text, "{byte:02x}");
                }
                text.push('#');
                text
            }
            Reply::Failed => "&E0#".into(),
            Reply::BadParameter => "&P0#".into(),
            Reply::Unsupported => "&N0#".into(),
        }
    }
}

/// The hexadecimal fields of a command, read from the left.
pub struct Fields<'a>(pub &'a str);

impl Fields<'_> {
    /// The next field of `digits` digits.
    pub fn take(&mut self, digits: usize) -> Option<u32> {
        let field = self.0.get(..digits)?;
        self.0 = &self.0[digits..];
        u32::from_str_radix(field, 16).ok()
    }

    /// All that is left, as one number.
    pub fn rest(&mut self) -> Option<u64> {
        u64::from_str_radix(std::mem::take(&mut self.0), 16).ok()
    }

    /// All that is left, as bytes.
    pub fn bytes(&mut self) -> Option<Vec<u8>> {
        unhex(std::mem::take(&mut self.0))
    }
}

/// Bytes from pairs of hexadecimal digits.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

/// Splits a stream of bytes into packets.
#[derive(Default)]
pub struct Packets(Vec<u8>);

impl Packets {
    /// Takes bytes as they come; returns the words of every packet they complete. What is not
    /// between `!` and `#` is no packet.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut packets = Vec::new();
        for byte in bytes {
            match byte {
                b'!' => {
                    self.0.clear();
                    self.0.push(b'!');
                }
                b'#' => {
                    if let Some((b'!', words)) = self.0.split_first() {
                        packets.push(String::from_utf8_lossy(words).into_owned());
                    }
                    self.0.clear();
                }
                byte => self.0.push(*byte),
            }
        }
        packets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_come_out_whole_however_the_stream_is_cut() {
        let mut packets = Packets::default();
        assert_eq!(packets.push(b"+#!G"), Vec::<String>::new());
        assert_eq!(packets.push(b"A#!HC#!"), ["GA", "HC"]);
        assert_eq!(packets.push(b"Am00#noise#"), ["Am00"]);
    }

    #[test]
    fn fields_end_with_the_text() {
        let mut fields = Fields("0aff12");
        assert_eq!((fields.take(2), fields.take(2)), (Some(10), Some(255)));
        assert_eq!(fields.take(4), None);
        assert_eq!(fields.bytes(), Some(vec![0x12]));
        assert_eq!(Reply::Bytes(vec![1, 0xab]).encode(), "&K01ab#");
    }
}

//! Bit widths of weights and activations, and their notation `W<weight>A<activation>[:O<output>]`.

use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

/// A supported operand width.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
#[repr(u8)]
pub enum Bits {
    /// 2 bits.
    B2 = 2,
    /// 3 bits.
    B3 = 3,
    /// 4 bits.
    B4 = 4,
    /// 8 bits.
    B8 = 8,
}

impl Bits {
    /// Every width, ascending.
    pub const ALL: [Bits; 4] = [Bits::B2, Bits::B3, Bits::B4, Bits::B8];

    /// The width as a number.
    pub const fn get(self) -> u32 {
        self as u32
    }

    /// Bits an *activation* of this width takes in RAM: 3-bit activations live in nibbles.
    /// (Weights are stored at exactly [`Bits::get`] bits.)
    pub const fn storage(self) -> u32 {
        match self {
            Bits::B3 => 4,
            other => other as u32,
        }
    }

    /// Largest unsigned code, `2^b - 1`.
    pub const fn max_unsigned(self) -> u32 {
        (1 << self.get()) - 1
    }

    /// Offset that makes a signed code unsigned, `2^(b-1)`.
    pub const fn half(self) -> u32 {
        1 << (self.get() - 1)
    }
}

impl TryFrom<u8> for Bits {
    type Error = ParseBitsError;
    fn try_from(value: u8) -> Result<Self, ParseBitsError> {
        match value {
            2 => Ok(Bits::B2),
            3 => Ok(Bits::B3),
            4 => Ok(Bits::B4),
            8 => Ok(Bits::B8),
            _ => Err(ParseBitsError),
        }
    }
}

impl From<Bits> for u8 {
    fn from(bits: Bits) -> u8 {
        bits as u8
    }
}

impl fmt::Display for Bits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.get())
    }
}

/// Widths of one layer's weights, input activations and output activations.
///
/// Written `W2A4`, or `W2A4:O8` where the output differs from the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LayerBits {
    /// Width of the weights.
    pub weight: Bits,
    /// Width of the input activations.
    pub input: Bits,
    /// Width of the output activations.
    pub output: Bits,
}

impl LayerBits {
    /// `weight` and `activation` bits, output as wide as the input.
    pub const fn uniform(weight: Bits, activation: Bits) -> Self {
        LayerBits { weight, input: activation, output: activation }
    }
}

impl fmt::Display for LayerBits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "W{}A{}", self.weight, self.input)?;
        if self.output != self.input {
            write!(f, ":O{}", self.output)?;
        }
        Ok(())
    }
}

/// The text or number names no supported width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseBitsError;

impl fmt::Display for ParseBitsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected W<w>A<a> or W<w>A<a>:O<o> with widths 2, 3, 4 or 8, for example W2A4")
    }
}

impl core::error::Error for ParseBitsError {}

impl FromStr for LayerBits {
    type Err = ParseBitsError;
    fn from_str(text: &str) -> Result<Self, ParseBitsError> {
        let number = |s: &str| s.parse::<u8>().map_err(|_| ParseBitsError).and_then(Bits::try_from);
        let (pair, output) = match text.split_once(":O") {
            Some((pair, output)) => (pair, Some(number(output)?)),
            None => (text, None),
        };
        let (weight, input) =
            pair.strip_prefix('W').and_then(|rest| rest.split_once('A')).ok_or(ParseBitsError)?;
        let (weight, input) = (number(weight)?, number(input)?);
        Ok(LayerBits { weight, input, output: output.unwrap_or(input) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn notation_round_trips() {
        for text in ["W2A2", "W3A4:O8", "W8A2"] {
            assert_eq!(text.parse::<LayerBits>().unwrap().to_string(), text);
        }
        assert_eq!("W2A4:O4".parse::<LayerBits>().unwrap().to_string(), "W2A4");
        for text in ["", "W2", "A2W2", "W5A2", "W2A2:O7", "W2A2:O"] {
            assert!(text.parse::<LayerBits>().is_err(), "{text}");
        }
    }
}

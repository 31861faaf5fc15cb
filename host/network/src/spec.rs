//! The layer notation of every command: `conv3x3s2:32x32x3-16`, `dw3x3:16x16x64`,
//! `pw:16x16x64-64`, `fc:256-64`, `add:16x16x32`, `avgpool7:7x7x64`; `+` joins a fused block.

use std::fmt;
use std::str::FromStr;

use jaq_shared::format::{LayerBits, LayerShape, Op, Pads, Shape, Window};

/// A layer without widths, or a fused block of several, as written on the command line.
///
/// `<pad>` is one number, `<top>,<bottom>,<left>,<right>`, or `same`, the default. Pools default
/// to stride = window and no padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerSpec {
    text: String,
    layers: Vec<(Op, Shape, u16)>,
}

/// The text is no layer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "layer `{text}`: {reason} (forms: conv3x3s2:32x32x3-16, dw3x3:16x16x64, pw:16x16x64-64, fc:256-64, add:16x16x32, avgpool7:7x7x64; `+` joins a fused block)"
)]
pub struct SpecError {
    text: String,
    reason: String,
}

impl LayerSpec {
    /// The layers at the given widths; inside a block every tensor has the input's width but the
    /// last, which has the output's.
    pub fn shapes(&self, bits: LayerBits) -> Vec<LayerShape> {
        let last = self.layers.len() - 1;
        let at = |i| if i == last { bits } else { LayerBits { output: bits.input, ..bits } };
        let shape = |(i, &(op, input, channels)): (usize, &(Op, Shape, u16))| {
            LayerShape::new(op, input, channels, at(i)).expect("checked when parsed")
        };
        self.layers.iter().enumerate().map(shape).collect()
    }

    /// The single layer at the given widths, or `None` for a block.
    pub fn shape(&self, bits: LayerBits) -> Option<LayerShape> {
        (self.layers.len() == 1).then(|| self.shapes(bits)[0])
    }

    /// The notation of a layer.
    pub fn of(layer: &LayerShape) -> LayerSpec {
        let text = layer_text(layer);
        LayerSpec { text, layers: vec![(layer.op, layer.input, layer.output.c)] }
    }
}

fn layer_text(layer: &LayerShape) -> String {
    let Shape { h, w, c } = layer.input;
    let oc = layer.output.c;
    let window = |name: &str, win: Window, pool: bool| {
        let stride = match win.stride {
            s if pool && s == win.kh => String::new(),
            1 if !pool => String::new(),
            s => format!("s{s}"),
        };
        let Pads { top, bottom, left, right } = win.pads;
        let default = if pool {
            Pads::default()
        } else {
            Window::same(win.kh, win.kw, win.stride, h, w).pads
        };
        let pads = if win.pads == default {
            String::new()
        } else if top == bottom && left == right && top == left {
            format!("p{top}")
        } else {
            format!("p{top},{bottom},{left},{right}")
        };
        format!("{name}{}x{}{stride}{pads}:{h}x{w}x{c}", win.kh, win.kw)
    };
    match layer.op {
        Op::Conv(win) if win == Window::POINT => format!("pw:{h}x{w}x{c}-{oc}"),
        Op::Conv(win) => format!("{}-{oc}", window("conv", win, false)),
        Op::Depthwise(win) => window("dw", win, false),
        Op::Linear => format!("fc:{c}-{oc}"),
        Op::Add => format!("add:{h}x{w}x{c}"),
        Op::AvgPool(win) => window("avgpool", win, true),
        Op::MaxPool(win) => window("maxpool", win, true),
    }
}

impl fmt::Display for LayerSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for LayerSpec {
    type Err = SpecError;
    fn from_str(text: &str) -> Result<Self, SpecError> {
        let fail = |reason: &str| SpecError { text: text.to_owned(), reason: reason.to_owned() };
        let mut layers: Vec<(Op, Shape, u16)> = Vec::new();
        let bits = LayerBits::uniform(jaq_shared::format::Bits::B8, jaq_shared::format::Bits::B8);
        let mut previous: Option<Shape> = None;
        for part in text.split('+') {
            let (op, input, channels) = parse_layer(part).map_err(|reason| fail(&reason))?;
            let layer = LayerShape::new(op, input, channels, bits)
                .ok_or_else(|| fail("the window does not fit the input"))?;
            if input.elements() == 0 || layer.output.elements() == 0 {
                return Err(fail("sizes must be at least 1"));
            }
            if previous.is_some_and(|shape| shape != input) {
                return Err(fail("a block's layers must fit one another"));
            }
            previous = Some(layer.output);
            layers.push((op, input, channels));
        }
        Ok(LayerSpec { text: text.to_owned(), layers })
    }
}

fn parse_layer(text: &str) -> Result<(Op, Shape, u16), String> {
    let (head, sizes) = text.split_once(':').ok_or("`:` is missing")?;
    let (sizes, channels) = match sizes.split_once('-') {
        Some((sizes, channels)) => (sizes, Some(number(channels)?)),
        None => (sizes, None),
    };
    let out = || channels.ok_or_else(|| "`-<output channels>` is missing".to_owned());
    if head == "fc" {
        return Ok((Op::Linear, Shape::new(1, 1, number(sizes)?), out()?));
    }
    let mut parts = sizes.split('x').map(number);
    let mut next = || parts.next().unwrap_or_else(|| Err("<H>x<W>x<C> is wanted".to_owned()));
    let shape = Shape::new(next()?, next()?, next()?);
    if parts.next().is_some() {
        return Err("<H>x<W>x<C> is wanted".to_owned());
    }
    let names = ["conv", "dw", "avgpool", "maxpool"];
    match head {
        "pw" => return Ok((Op::Conv(Window::POINT), shape, out()?)),
        "add" => return Ok((Op::Add, shape, shape.c)),
        _ => {}
    }
    let (name, window) = names
        .iter()
        .find_map(|name| head.strip_prefix(name).map(|rest| (*name, rest)))
        .ok_or_else(|| format!("`{head}` is no operator"))?;
    let window = parse_window(window, shape, name.ends_with("pool"))?;
    Ok(match name {
        "conv" => (Op::Conv(window), shape, out()?),
        "dw" => (Op::Depthwise(window), shape, shape.c),
        "avgpool" => (Op::AvgPool(window), shape, shape.c),
        _ => (Op::MaxPool(window), shape, shape.c),
    })
}

/// `<KH>x<KW>[s<stride>][p<pad>]`, or `<K>` alone for a square window.
fn parse_window(text: &str, input: Shape, pool: bool) -> Result<Window, String> {
    let (text, pads) = match text.split_once('p') {
        Some((text, pads)) => (text, Some(pads)),
        None => (text, None),
    };
    let (size, stride) = match text.split_once('s') {
        Some((size, stride)) => (size, Some(number(stride)?)),
        None => (text, None),
    };
    let (kh, kw) = match size.split_once('x') {
        Some((kh, kw)) => (number(kh)?, number(kw)?),
        None => (number(size)?, number(size)?),
    };
    let stride = stride.unwrap_or(if pool { kh } else { 1 });
    if kh == 0 || kw == 0 || stride == 0 {
        return Err("window and stride must be at least 1".to_owned());
    }
    let same = Window::same(kh, kw, stride, input.h, input.w);
    let pads = match pads {
        None if pool => Pads::default(),
        None | Some("same") => same.pads,
        Some(list) => match list.split(',').map(number).collect::<Result<Vec<u8>, _>>()?[..] {
            [p] => Pads { top: p, bottom: p, left: p, right: p },
            [top, bottom, left, right] => Pads { top, bottom, left, right },
            _ => return Err("padding is one number, four, or `same`".to_owned()),
        },
    };
    Ok(Window { pads, ..same })
}

fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("`{text}` is no number in range"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use jaq_shared::format::Bits;

    #[test]
    fn notation_round_trips() {
        let bits = LayerBits::uniform(Bits::B4, Bits::B4);
        for text in [
            "conv3x3:16x16x32-32",
            "conv3x3s2:32x32x3-16",
            "conv3x3s2p1:32x32x3-16",
            "conv10x4s2p5,5,1,1:49x10x1-64",
            "dw5x5s2:16x16x64",
            "pw:16x16x64-64",
            "fc:256-64",
            "add:16x16x32",
            "avgpool7x7:7x7x64",
            "maxpool3x3s2:9x9x8",
        ] {
            let spec: LayerSpec = text.parse().unwrap();
            assert_eq!(LayerSpec::of(&spec.shape(bits).unwrap()).to_string(), text);
        }
        let block: LayerSpec = "dw3x3:16x16x64+pw:16x16x64-32".parse().unwrap();
        assert_eq!(block.shapes(bits).len(), 2);
        assert_eq!(
            "avgpool7:7x7x64".parse::<LayerSpec>().unwrap().shape(bits).unwrap().output,
            Shape::new(1, 1, 64)
        );
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "pw",
            "pw:16x16x64",
            "conv3x3:16x16-8",
            "conv0x3:4x4x4-4",
            "conv3x3p0:2x2x4-4",
            "dw3x3:4x4x0",
            "dw3x3:4x4x8+pw:4x4x9-4",
            "blur3x3:4x4x4",
            "conv3x3s0:4x4x4-4",
            "pw:99999x1x1-1",
            "conv3x3p1,2:4x4x4-4",
        ] {
            assert!(text.parse::<LayerSpec>().is_err(), "{text}");
        }
    }
}

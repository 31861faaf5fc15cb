//! What the fields of a sum hold.

use super::plan::{Plan, Scheme};
use crate::format::{Bits, LayerBits, LayerShape, Op, Shape, Window};

fn plan(weight: Bits, input: Bits, k: u8, stride: u8) -> Plan {
    let op = Op::Depthwise(Window::same(k, k, stride, 9, 9));
    let bits = LayerBits::uniform(weight, input);
    Plan::new(&LayerShape::new(op, Shape::new(9, 9, 8), 8, bits).unwrap())
}

#[test]
fn no_field_can_spill() {
    for weight in Bits::ALL {
        for input in Bits::ALL {
            for (k, stride) in [(1, 1), (3, 1), (3, 2), (5, 1), (5, 2), (8, 3)] {
                let plan = plan(weight, input, k, stride);
                let most = i64::from(input.max_unsigned()) * i64::from(k) * i64::from(k);
                let (low, high) =
                    (-most * i64::from(weight.half()), most * (i64::from(weight.half()) - 1));
                match plan.scheme {
                    Scheme::Bytes => {
                        let lift = i64::from(plan.lift);
                        assert!(low + lift >= 0 && high + lift < 256);
                    }
                    Scheme::Pairs => {
                        assert!(low >= i64::from(i16::MIN) && high <= i64::from(i16::MAX))
                    }
                    Scheme::Single => assert!(high < i64::from(i32::MAX)),
                }
            }
        }
    }
}

#[test]
fn widths_take_the_densest_scheme() {
    let scheme = |weight, input, k| plan(weight, input, k, 1).scheme;
    assert_eq!(scheme(Bits::B2, Bits::B2, 3), Scheme::Bytes);
    assert_eq!(scheme(Bits::B4, Bits::B4, 3), Scheme::Pairs);
    assert_eq!(scheme(Bits::B4, Bits::B8, 3), Scheme::Pairs);
    assert_eq!(scheme(Bits::B8, Bits::B8, 3), Scheme::Single);
    assert_eq!(scheme(Bits::B4, Bits::B4, 5), Scheme::Pairs);
}

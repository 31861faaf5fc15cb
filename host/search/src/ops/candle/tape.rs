//! Reverse-mode differentiation over candle tensors.
//!
//! candle's own backward pass adds every gradient to a tensor of zeros and keeps the whole graph
//! alive; here a gradient is moved where it has one user, and what an operator kept is freed as
//! soon as its gradient is done.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use candle_core::Tensor;

/// Gradients to the parents, in their order; `None` where a parent wants none.
pub type Backward = Box<dyn FnOnce(&Tensor) -> Vec<Option<Tensor>>>;

/// What made a value.
pub struct Node {
    /// Grows with creation: a node's parents have smaller ones.
    order: u64,
    parents: Vec<Option<Rc<Node>>>,
    /// `None` for a leaf.
    backward: Option<RefCell<Option<Backward>>>,
}

/// A value and, where it depends on a parameter, the node that made it.
#[derive(Clone)]
pub struct Value {
    pub(super) tensor: Tensor,
    node: Option<Rc<Node>>,
}

/// Identifies a leaf among the results of [`differentiate`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct LeafId(u64);

fn next() -> u64 {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    COUNTER.fetch_add(1, Ordering::Relaxed)
}

/// A leaf node, to be shared by all uses of one parameter.
pub fn leaf() -> Rc<Node> {
    Rc::new(Node { order: next(), parents: Vec::new(), backward: None })
}

impl Node {
    /// The name of this leaf.
    pub fn id(&self) -> LeafId {
        LeafId(self.order)
    }
}

impl Value {
    /// No parameter.
    pub fn constant(tensor: Tensor) -> Value {
        Value { tensor, node: None }
    }

    /// The value of a parameter.
    pub fn leaf(tensor: Tensor, node: Rc<Node>) -> Value {
        Value { tensor, node: Some(node) }
    }

    /// Whether a gradient is wanted.
    pub fn tracked(&self) -> bool {
        self.node.is_some()
    }

    /// The result of an operator on `parents`; `backward` is made only if one of them is tracked.
    pub fn made(tensor: Tensor, parents: &[&Value], backward: impl FnOnce() -> Backward) -> Value {
        if !parents.iter().any(|p| p.tracked()) {
            return Value::constant(tensor);
        }
        let node = Node {
            order: next(),
            parents: parents.iter().map(|p| p.node.clone()).collect(),
            backward: Some(RefCell::new(Some(backward()))),
        };
        Value { tensor, node: Some(Rc::new(node)) }
    }
}

/// Gradients of the scalar `loss` to all leaves it depends on. `add` sums two of them.
///
/// Panics where a part of the graph was differentiated before.
pub fn differentiate(
    loss: Value,
    one: Tensor,
    add: impl Fn(&Tensor, &Tensor) -> Tensor,
) -> BTreeMap<LeafId, Tensor> {
    let mut leaves = BTreeMap::new();
    let Some(root) = loss.node else { return leaves };
    drop(loss.tensor);
    // The newest node first: all its users are done by then.
    let mut pending = BTreeMap::from([(root.order, (root, one))]);
    while let Some((order, (node, grad))) = pending.pop_last() {
        let Some(backward) = &node.backward else {
            leaves.insert(LeafId(order), grad);
            continue;
        };
        let backward = backward.take().expect("a graph is differentiated once");
        let grads = backward(&grad);
        drop(grad);
        assert_eq!(grads.len(), node.parents.len());
        for (parent, grad) in node.parents.iter().zip(grads) {
            let (Some(parent), Some(grad)) = (parent, grad) else { continue };
            match pending.entry(parent.order) {
                std::collections::btree_map::Entry::Vacant(entry) => {
                    entry.insert((parent.clone(), grad));
                }
                std::collections::btree_map::Entry::Occupied(mut entry) => {
                    let sum = add(&entry.get().1, &grad);
                    entry.get_mut().1 = sum;
                }
            }
        }
    }
    leaves
}

//! Operations on known numbers: what exporters write to compute shapes.

use std::path::Path;

use rten_onnx::onnx::{DataType, NodeProto};

use super::super::error::GraphError;
use super::attributes::Attributes;
use super::constant::{Constant, Numbers, of_tensor};

/// Elements that a computed constant has at most.
const MOST: usize = 1 << 26;

/// The output of a node whose inputs are all known; `None` where the operation or these inputs are
/// not known here.
pub(super) fn evaluate(
    path: &Path,
    node: &NodeProto,
    inputs: &[Option<Constant>],
) -> Result<Option<Constant>, GraphError> {
    let attributes = Attributes::of(node);
    if node.op_type.as_deref() == Some("Constant")
        && let Some(tensor) = attributes.tensor("value")
    {
        return of_tensor(path, tensor).map(|constant| {
            Some(Constant {
                name: None,
                ..constant
            })
        });
    }
    Ok(compute(
        node.op_type.as_deref().unwrap_or(""),
        attributes,
        inputs,
    ))
}

fn compute(
    operation: &str,
    attributes: Attributes<'_>,
    inputs: &[Option<Constant>],
) -> Option<Constant> {
    let input = |i: usize| inputs.get(i).and_then(Option::as_ref);
    let ints = |i: usize| input(i).and_then(Constant::to_ints);
    Some(match operation {
        "Constant" => literal(attributes)?,
        "Identity" | "CastLike" | "Dropout" => input(0)?.clone(),
        "Cast" => cast(input(0)?, attributes.int("to")?),
        "Shape" => {
            let dims: Vec<i64> = input(0)?.dims.iter().map(|d| *d as i64).collect();
            Constant::ints(between(&dims, attributes))
        }
        "Size" => scalar(input(0)?.len() as i64),
        "Gather" => gather(input(0)?, input(1)?, attributes.int("axis").unwrap_or(0))?,
        "Concat" => concatenated(inputs)?,
        "Unsqueeze" => {
            let axes = ints(1).or_else(|| attributes.ints("axes").map(<[i64]>::to_vec))?;
            unsqueezed(input(0)?, &axes)?
        }
        "Squeeze" => {
            let axes = ints(1).or_else(|| attributes.ints("axes").map(<[i64]>::to_vec));
            squeezed(input(0)?, axes.as_deref())?
        }
        "Reshape" => reshaped(input(0)?, &ints(1)?)?,
        "Flatten" => {
            let length = input(0)?.len() as i64;
            reshaped(input(0)?, &[1, length])?
        }
        "Slice" => sliced(input(0)?, attributes, &ints)?,
        "ConstantOfShape" => {
            let dims = sizes(&ints(0)?)?;
            let value = attributes.tensor("value");
            let of = |t| of_tensor(Path::new(""), t).ok();
            filled(dims, value.and_then(of))?
        }
        "Expand" => expanded(input(0)?, &ints(1)?)?,
        "Transpose" => transposed(input(0)?, attributes.ints("perm"))?,
        "Add" | "Sub" | "Mul" | "Div" | "Max" | "Min" | "Pow" | "Mod" => {
            arithmetic(operation, input(0)?, input(1)?)?
        }
        "Neg" | "Floor" | "Ceil" | "Sqrt" | "Abs" | "Sign" | "Reciprocal" => {
            elementwise(operation, input(0)?)?
        }
        "ReduceProd" => scalar(ints(0)?.iter().product()),
        "Range" => {
            let (start, end, step) = (ints(0)?, ints(1)?, ints(2)?);
            let (start, end, step) = (*start.first()?, *end.first()?, *step.first()?);
            let distance = end.checked_sub(start)?.checked_add(step)?;
            let count = (step != 0).then(|| (distance - step.signum()) / step)?;
            let count = usize::try_from(count).ok().filter(|n| *n <= MOST)?;
            Constant::ints((0..count as i64).map(|i| start + i * step).collect())
        }
        _ => return None,
    })
}

/// Dimensions `start..end` of a shape, as the attributes of `Shape` say.
pub(super) fn between(dims: &[i64], attributes: Attributes<'_>) -> Vec<i64> {
    let rank = dims.len() as i64;
    let place = |v: i64| if v < 0 { v + rank } else { v }.clamp(0, rank) as usize;
    let start = place(attributes.int("start").unwrap_or(0));
    let end = place(attributes.int("end").unwrap_or(rank));
    dims.get(start..end).unwrap_or_default().to_vec()
}

fn scalar(value: i64) -> Constant {
    Constant {
        dims: Vec::new(),
        ..Constant::ints(vec![value])
    }
}

fn literal(attributes: Attributes<'_>) -> Option<Constant> {
    if let Some(value) = attributes.int("value_int") {
        return Some(scalar(value));
    }
    if let Some(value) = attributes.float("value_float") {
        return Some(Constant::floats(Vec::new(), vec![value]));
    }
    if let Some(values) = attributes.floats("value_floats") {
        return Some(Constant::floats(vec![values.len()], values.to_vec()));
    }
    // An empty list of numbers is one too.
    Some(Constant::ints(
        attributes.ints("value_ints").unwrap_or_default().to_vec(),
    ))
}

fn cast(constant: &Constant, to: i64) -> Constant {
    let kind = DataType(to as i32);
    let is_float = matches!(
        kind,
        DataType::FLOAT | DataType::FLOAT16 | DataType::DOUBLE | DataType::BFLOAT16
    );
    let numbers = match (&constant.numbers, is_float) {
        (Numbers::Ints(_), true) => Numbers::Floats(constant.to_floats()),
        (Numbers::Floats(v), false) => Numbers::Ints(v.iter().map(|v| v.trunc() as i64).collect()),
        (same, _) => same.clone(),
    };
    Constant {
        numbers,
        ..constant.clone()
    }
}

fn sizes(values: &[i64]) -> Option<Vec<usize>> {
    let dims: Option<Vec<usize>> = values.iter().map(|v| usize::try_from(*v).ok()).collect();
    let dims = dims?;
    let count = dims.iter().try_fold(1usize, |a, d| a.checked_mul(*d))?;
    (count <= MOST).then_some(dims)
}

/// The elements at `indices` of the flat values.
fn picked(
    constant: &Constant,
    dims: Vec<usize>,
    indices: impl Iterator<Item = usize>,
) -> Option<Constant> {
    let numbers = match &constant.numbers {
        Numbers::Floats(v) => {
            Numbers::Floats(indices.map(|i| v.get(i).copied()).collect::<Option<_>>()?)
        }
        Numbers::Ints(v) => {
            Numbers::Ints(indices.map(|i| v.get(i).copied()).collect::<Option<_>>()?)
        }
    };
    Some(Constant {
        dims,
        numbers,
        name: None,
    })
}

fn axis_of(axis: i64, rank: usize) -> Option<usize> {
    let axis = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(axis).ok().filter(|a| *a < rank)
}

fn gather(data: &Constant, indices: &Constant, axis: i64) -> Option<Constant> {
    let axis = axis_of(axis, data.dims.len())?;
    let length = data.dims[axis] as i64;
    let inner: usize = data.dims[axis + 1..].iter().product();
    let outer: usize = data.dims[..axis].iter().product();
    let wanted: Option<Vec<usize>> = indices
        .to_ints()?
        .into_iter()
        .map(|i| usize::try_from(if i < 0 { i + length } else { i }).ok())
        .collect();
    let wanted = wanted?;
    if wanted.iter().any(|i| *i >= length as usize) {
        return None;
    }
    let dims = [&data.dims[..axis], &indices.dims, &data.dims[axis + 1..]].concat();
    let length = length as usize;
    let flat = (0..outer).flat_map(|o| {
        let wanted = &wanted;
        wanted
            .iter()
            .flat_map(move |i| (0..inner).map(move |k| (o * length + i) * inner + k))
    });
    picked(data, dims, flat)
}

fn concatenated(inputs: &[Option<Constant>]) -> Option<Constant> {
    let all: Option<Vec<&Constant>> = inputs.iter().map(Option::as_ref).collect();
    let all = all?;
    if all.iter().any(|c| c.dims.len() != 1) {
        return None;
    }
    let ints: Option<Vec<Vec<i64>>> = all.iter().map(|c| c.to_ints()).collect();
    Some(Constant::ints(ints?.concat()))
}

fn unsqueezed(constant: &Constant, axes: &[i64]) -> Option<Constant> {
    let rank = constant.dims.len() + axes.len();
    let axes: Option<Vec<usize>> = axes.iter().map(|a| axis_of(*a, rank)).collect();
    let axes = axes?;
    let mut rest = constant.dims.iter();
    let dims: Option<Vec<usize>> = (0..rank)
        .map(|i| {
            if axes.contains(&i) {
                Some(1)
            } else {
                rest.next().copied()
            }
        })
        .collect();
    Some(Constant {
        dims: dims?,
        ..constant.clone()
    })
}

fn squeezed(constant: &Constant, axes: Option<&[i64]>) -> Option<Constant> {
    let rank = constant.dims.len();
    let axes: Option<Vec<usize>> = match axes {
        None => Some((0..rank).filter(|i| constant.dims[*i] == 1).collect()),
        Some(axes) => axes.iter().map(|a| axis_of(*a, rank)).collect(),
    };
    let axes = axes?;
    let kept = (0..rank).filter(|i| !axes.contains(i));
    Some(Constant {
        dims: kept.map(|i| constant.dims[i]).collect(),
        ..constant.clone()
    })
}

fn reshaped(constant: &Constant, to: &[i64]) -> Option<Constant> {
    let known: i64 = to
        .iter()
        .enumerate()
        .map(|(i, d)| match d {
            0 => constant.dims.get(i).map_or(0, |d| *d as i64),
            -1 => 1,
            d => *d,
        })
        .product();
    let total = constant.len() as i64;
    let dims: Option<Vec<usize>> = to
        .iter()
        .enumerate()
        .map(|(i, d)| match d {
            0 => constant.dims.get(i).copied(),
            -1 => (known != 0).then(|| (total / known) as usize),
            d => usize::try_from(*d).ok(),
        })
        .collect();
    let dims = dims?;
    (dims.iter().product::<usize>() == constant.len()).then(|| Constant {
        dims,
        ..constant.clone()
    })
}

fn sliced(
    constant: &Constant,
    attributes: Attributes<'_>,
    ints: &impl Fn(usize) -> Option<Vec<i64>>,
) -> Option<Constant> {
    if constant.dims.len() != 1 {
        return None;
    }
    let of = |i: usize, name: &str| ints(i).or_else(|| attributes.ints(name).map(<[i64]>::to_vec));
    let (starts, ends) = (of(1, "starts")?, of(2, "ends")?);
    let length = constant.dims[0] as i64;
    let place = |v: i64| if v < 0 { v + length } else { v }.clamp(0, length) as usize;
    let (start, end) = (place(*starts.first()?), place(*ends.first()?));
    let step = ints(4).and_then(|s| s.first().copied()).unwrap_or(1);
    let step = usize::try_from(step).ok().filter(|s| *s > 0)?;
    let indices: Vec<usize> = (start..end.max(start)).step_by(step).collect();
    picked(constant, vec![indices.len()], indices.into_iter())
}

fn filled(dims: Vec<usize>, value: Option<Constant>) -> Option<Constant> {
    let count = dims.iter().product();
    let numbers = match value.map(|v| v.numbers) {
        Some(Numbers::Ints(v)) => Numbers::Ints(vec![*v.first()?; count].into()),
        Some(Numbers::Floats(v)) => Numbers::Floats(vec![*v.first()?; count].into()),
        None => Numbers::Floats(vec![0.0; count].into()),
    };
    Some(Constant {
        dims,
        numbers,
        name: None,
    })
}

/// Strides of a shape in a larger one that it is repeated to.
fn broadcast(from: &[usize], to: &[usize]) -> Option<Vec<usize>> {
    let missing = to.len().checked_sub(from.len())?;
    let mut strides = vec![0; to.len()];
    let mut stride = 1;
    for (i, size) in from.iter().enumerate().rev() {
        let target = to[missing + i];
        if *size == target {
            strides[missing + i] = stride;
        } else if *size != 1 {
            return None;
        }
        stride *= size;
    }
    Some(strides)
}

fn indices(dims: &[usize], strides: &[usize]) -> Vec<usize> {
    let count: usize = dims.iter().product();
    (0..count)
        .map(|mut flat| {
            let mut index = 0;
            for (size, stride) in dims.iter().zip(strides).rev() {
                index += flat % size * stride;
                flat /= size;
            }
            index
        })
        .collect()
}

fn joint(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let at = |dims: &[usize], i: usize| (i + dims.len()).checked_sub(rank).map_or(1, |i| dims[i]);
    let dims: Option<Vec<usize>> = (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (x, y) if x == y || y == 1 => Some(x),
            (1, y) => Some(y),
            _ => None,
        })
        .collect();
    dims.filter(|d| {
        d.iter()
            .try_fold(1usize, |a, d| a.checked_mul(*d))
            .is_some_and(|n| n <= MOST)
    })
}

fn expanded(constant: &Constant, to: &[i64]) -> Option<Constant> {
    let dims = joint(&constant.dims, &sizes(to)?)?;
    let strides = broadcast(&constant.dims, &dims)?;
    let all = indices(&dims, &strides);
    picked(constant, dims, all.into_iter())
}

fn transposed(constant: &Constant, order: Option<&[i64]>) -> Option<Constant> {
    let rank = constant.dims.len();
    let order: Option<Vec<usize>> = match order {
        None => Some((0..rank).rev().collect()),
        Some(order) => order.iter().map(|a| axis_of(*a, rank)).collect(),
    };
    let order = order.filter(|o| o.len() == rank)?;
    let own = broadcast(&constant.dims, &constant.dims)?;
    let dims: Vec<usize> = order.iter().map(|i| constant.dims[*i]).collect();
    let strides: Vec<usize> = order.iter().map(|i| own[*i]).collect();
    let all = indices(&dims, &strides);
    let named = picked(constant, dims, all.into_iter())?;
    // The weights of the file in another layout are still those weights.
    Some(Constant {
        name: constant.name.clone(),
        ..named
    })
}

fn arithmetic(operation: &str, a: &Constant, b: &Constant) -> Option<Constant> {
    let dims = joint(&a.dims, &b.dims)?;
    let (i, j) = (
        indices(&dims, &broadcast(&a.dims, &dims)?),
        indices(&dims, &broadcast(&b.dims, &dims)?),
    );
    if let (Numbers::Ints(x), Numbers::Ints(y)) = (&a.numbers, &b.numbers) {
        let of = |x: i64, y: i64| match operation {
            "Add" => x.checked_add(y),
            "Sub" => x.checked_sub(y),
            "Mul" => x.checked_mul(y),
            "Div" => x.checked_div(y),
            "Max" => Some(x.max(y)),
            "Min" => Some(x.min(y)),
            "Mod" => x.checked_rem_euclid(y),
            _ => None,
        };
        let values: Option<Vec<i64>> = i.iter().zip(&j).map(|(i, j)| of(x[*i], y[*j])).collect();
        return Some(Constant {
            dims,
            ..Constant::ints(values?)
        });
    }
    let (x, y) = (a.to_floats(), b.to_floats());
    let of = |x: f32, y: f32| match operation {
        "Add" => x + y,
        "Sub" => x - y,
        "Mul" => x * y,
        "Div" => x / y,
        "Max" => x.max(y),
        "Min" => x.min(y),
        "Mod" => x % y,
        _ => x.powf(y),
    };
    let values = i.iter().zip(&j).map(|(i, j)| of(x[*i], y[*j])).collect();
    Some(Constant::floats(dims, values))
}

fn elementwise(operation: &str, constant: &Constant) -> Option<Constant> {
    if let (Numbers::Ints(v), "Neg" | "Abs" | "Sign") = (&constant.numbers, operation) {
        let of = |v: &i64| match operation {
            "Neg" => v.wrapping_neg(),
            "Abs" => v.wrapping_abs(),
            _ => v.signum(),
        };
        return Some(Constant {
            dims: constant.dims.clone(),
            ..Constant::ints(v.iter().map(of).collect())
        });
    }
    let of = |v: &f32| match operation {
        "Neg" => -v,
        "Abs" => v.abs(),
        "Sign" if *v == 0.0 => 0.0,
        "Sign" => v.signum(),
        "Floor" => v.floor(),
        "Ceil" => v.ceil(),
        "Sqrt" => v.sqrt(),
        _ => v.recip(),
    };
    let values = constant.to_floats().iter().map(of).collect();
    Some(Constant::floats(constant.dims.clone(), values))
}

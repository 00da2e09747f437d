//! One step as a C function: rows of outputs, summed and taken to their levels.

use super::arena::{Arena, Kind};
use super::text::{Text, array, comment};
use crate::graph::Window;
use crate::integers::ExportError;
use crate::integers::levels::Thresholds;
use crate::integers::program::{After, Operation, Program, Step, Stored};

/// Type that a convolution's weights are unpacked to.
pub(super) fn weight_kind(stored: &Stored) -> Kind {
    let bits = if stored.octaves {
        (1u64 << (stored.bits - 1)) as u32 + 1
    } else {
        stored.bits
    } + stored.shift;
    match bits {
        ..=8 => Kind::I8,
        9..=16 => Kind::I16,
        _ => Kind::I32,
    }
}

/// Type of a step's thresholds: a larger number than every sum says never.
pub(super) fn threshold_kind(step: &Step) -> Kind {
    let [low, high] = step.sums;
    let largest = low.unsigned_abs().max(high.unsigned_abs());
    match largest {
        ..0x7fff => Kind::I16,
        0x7fff..0x7fff_ffff => Kind::I32,
        _ => Kind::I64,
    }
}

/// Type of the sums that thresholds of a type are compared with.
pub(super) fn sum_kind_name(thresholds: Kind) -> &'static str {
    if thresholds == Kind::I64 {
        "int64_t"
    } else {
        "int32_t"
    }
}

/// Whether a residual's place has to be looked for: its integers do not follow one another.
pub(super) fn needs_search(table: &Thresholds) -> bool {
    let all = &table.residuals;
    let (Some(first), Some(last)) = (all.first(), all.last()) else {
        return false;
    };
    i64::from(*last) - i64::from(*first) + 1 != all.len() as i64
}

/// Whether levels are not simply counted from the least.
fn has_codes(table: &Thresholds) -> bool {
    !table.codes.is_empty()
        && table
            .codes
            .iter()
            .zip(table.codes[0]..)
            .any(|(code, k)| *code != k)
}

/// A step's thresholds as constants; returns their bytes.
pub(super) fn thresholds(at: usize, step: &Step, table: &Thresholds, out: &mut Text) -> usize {
    let kind = threshold_kind(step);
    let never = match kind {
        Kind::I16 => i64::from(i16::MAX),
        Kind::I32 => i64::from(i32::MAX),
        _ => i64::MAX,
    };
    let values: Vec<i64> = table.at.iter().map(|t| (*t).min(never)).collect();
    let mut bytes = values.len() * kind.bytes();
    out.add(&format!("/* {} */\n", comment(&step.name)));
    out.add(&array(&format!("thresholds{at}"), kind.name(), &values));
    if table.falls.iter().any(|f| *f) {
        let falls: Vec<i64> = table.falls.iter().map(|f| i64::from(*f)).collect();
        bytes += falls.len();
        out.add(&array(&format!("falls{at}"), "uint8_t", &falls));
    }
    let wide = |values: &[i32]| values.iter().map(|v| i64::from(*v)).collect::<Vec<i64>>();
    if has_codes(table) {
        let codes = wide(&table.codes);
        let kind = Kind::of(super::ends(&codes));
        bytes += codes.len() * kind.bytes();
        out.add(&array(&format!("levels{at}"), kind.name(), &codes));
    }
    if needs_search(table) {
        let all = wide(&table.residuals);
        bytes += 4 * all.len();
        out.add(&array(&format!("residuals{at}"), "int32_t", &all));
    }
    bytes
}

/// Writes a step's function; returns the bytes of its row and of its unpacked weights.
pub(super) fn function(
    program: &Program,
    arena: &Arena,
    at: usize,
    out: &mut Text,
) -> Result<usize, ExportError> {
    let step = &program.steps[at];
    // What is summed inside of it.
    let (source, of) = match step.inputs.first() {
        Some(input) if arena.is_inside(*input) => (*input, &program.steps[*input]),
        _ => (at, step),
    };
    let [channels, height, width] = step.shape;
    let sum = sum_type(program, step, of);
    let mut body = Text::default();
    let mut bytes = width * if sum == "int64_t" { 8 } else { 4 };
    let name = comment(&step.name);
    if let Operation::Input { codes } = &step.operation {
        let table = if codes.len() == 1 {
            "table[image[i]]".to_owned()
        } else {
            format!("table[256 * (i / {}) + image[i]]", height * width)
        };
        out.add(&format!(
            "/* {name} */\nstatic void step{at}(const uint8_t *image)\n{{\n\
             \x20   {kind} *y = {place};\n    int i;\n    for (i = 0; i < {count}; i++)\n\
             \x20       y[i] = {table};\n}}\n\n",
            kind = arena.kind(at).name(),
            place = arena.place(at),
            count = step.elements(),
        ));
        return Ok(0);
    }
    for (i, input) in of.inputs.iter().enumerate() {
        body.add(&format!(
            "    const {} *x{i} = {};\n",
            arena.kind(*input).name(),
            arena.place(*input)
        ));
    }
    let residual = step.inputs.last().filter(|_| step.has_residual());
    if let Some(residual) = residual {
        body.add(&format!(
            "    const {} *r = {};\n",
            arena.kind(*residual).name(),
            arena.place(*residual)
        ));
    }
    body.add(&format!(
        "    {} *y = {};\n    int o, i, j;\n    {sum} row[{width}];\n",
        arena.kind(at).name(),
        arena.place(at)
    ));
    if let Operation::Convolution {
        weights, stored, ..
    } = &of.operation
    {
        let kind = weight_kind(stored);
        let taps = weights.len() / of.shape[0].max(1);
        bytes += taps * kind.bytes();
        body.add(&format!("    {} w[{taps}];\n", kind.name()));
    }
    body.add(&format!("    for (o = 0; o < {channels}; o++) {{\n"));
    if let Operation::Convolution {
        weights, stored, ..
    } = &of.operation
    {
        let taps = weights.len() / of.shape[0].max(1);
        let unpack = if stored.octaves {
            "unpack_octaves"
        } else {
            "unpack"
        };
        body.add(&format!(
            "        {unpack}{}(weights{source}, (unsigned long)o * {}ul, {taps}, {}, {}, w);\n",
            weight_kind(stored).bytes() * 8,
            taps * stored.bits as usize,
            stored.bits,
            1u64 << stored.shift,
        ));
    }
    body.add(&format!("        for (i = 0; i < {height}; i++) {{\n"));
    body.add(&row(program, of, source, sum)?);
    body.add(&levels(step, at, sum, arena.kind(at)));
    body.add("        }\n    }\n");
    out.add(&format!(
        "/* {name} */\nstatic void step{at}(void)\n{{\n{}}}\n\n",
        body.0
    ));
    Ok(bytes)
}

/// i32 where no partial sum goes beyond it, in the order that C adds in.
fn sum_type(program: &Program, step: &Step, of: &Step) -> &'static str {
    let magnitude = |[low, high]: [i64; 2]| u128::from(low.unsigned_abs().max(high.unsigned_abs()));
    let largest = match &of.operation {
        Operation::Convolution { weights, bias, .. } => {
            let x = magnitude(program.steps[of.inputs[0]].range);
            let taps = (weights.len() / of.shape[0].max(1)).max(1);
            let rows = weights.chunks(taps).enumerate();
            let bounds = rows.map(|(o, row)| {
                let products = row.iter().map(|w| u128::from(w.unsigned_abs()) * x);
                let bias = bias.get(o).map_or(0, |b| u128::from(b.unsigned_abs()));
                products.sum::<u128>() + bias
            });
            bounds.max().unwrap_or(0)
        }
        Operation::Add { shifts } => {
            let parts = of.inputs.iter().zip(shifts);
            parts
                .map(|(input, shift)| magnitude(program.steps[*input].range) << shift)
                .sum()
        }
        _ => magnitude(of.sums),
    };
    let shifts_up = match step.after {
        After::Shift { right, .. } if right < 0 => -right,
        _ => 0,
    };
    if largest << shifts_up < 1 << 31 {
        "int32_t"
    } else {
        "int64_t"
    }
}

/// Sums one row of outputs: `row[j]` for channel `o` and row `i`.
fn row(program: &Program, of: &Step, source: usize, sum: &str) -> Result<String, ExportError> {
    let [outputs, _, across] = of.shape;
    let input = |i: usize| &program.steps[of.inputs[i]];
    let plane = |i: usize| {
        let [_, h, w] = input(i).shape;
        (h, w)
    };
    let all = |expression: String| {
        format!(
            "            for (j = 0; j < {across}; j++)\n                row[j] = {expression};\n"
        )
    };
    let same = format!("(o * {} + i) * {across} + j", of.shape[1]);
    Ok(match &of.operation {
        Operation::Convolution {
            bias,
            window,
            groups,
            weights,
            ..
        } => {
            let taps = weights.len() / outputs.max(1);
            convolution(
                of,
                source,
                sum,
                !bias.is_empty(),
                window,
                *groups,
                taps,
                input(0).shape,
            )
        }
        Operation::Same => all(format!("x0[{same}]")),
        Operation::Reshape => {
            return Err(ExportError::Unsupported(format!(
                "{}: a quantizer behind a reshape has no form in C",
                of.name
            )));
        }
        Operation::Add { shifts: [a, b] } => all(format!(
            "({sum})x0[{same}] * {} + ({sum})x1[{same}] * {}",
            1u64 << a,
            1u64 << b
        )),
        Operation::Multiply => {
            let second = if input(1).elements() == input(0).elements() {
                same.clone()
            } else {
                "o".to_owned()
            };
            all(format!("({sum})x0[{same}] * x1[{second}]"))
        }
        Operation::Concatenate { shifts } => {
            let mut text = String::new();
            let mut first = 0;
            for (part, shift) in shifts.iter().enumerate() {
                let channels = input(part).shape[0];
                let (h, w) = plane(part);
                let guard = if part == 0 { "if" } else { "else if" };
                text.push_str(&format!(
                    "            {guard} (o < {})\n                for (j = 0; j < {across}; j++)\n\
                     \x20                   row[j] = ({sum})x{part}[((o - {first}) * {h} + i) * {w} + j] * {};\n",
                    first + channels,
                    1u64 << shift,
                ));
                first += channels;
            }
            text
        }
        Operation::MaxPool { window } => pool(window, input(0).shape, across, sum, true),
        Operation::SumPool { window } => pool(window, input(0).shape, across, sum, false),
        Operation::Subsample { stride, .. } => {
            let (h, w) = plane(0);
            let channels = input(0).shape[0];
            let expression = format!("x0[(o * {h} + i * {stride}) * {w} + j * {stride}]");
            if channels == outputs {
                all(expression)
            } else {
                all(format!("o < {channels} ? {expression} : 0"))
            }
        }
        Operation::Shuffle { groups } => {
            let (h, w) = plane(0);
            let per = input(0).shape[0] / groups;
            all(format!(
                "x0[((o % {groups} * {per} + o / {groups}) * {h} + i) * {w} + j]"
            ))
        }
        Operation::Slice { start, .. } => {
            let (h, w) = plane(0);
            all(format!("x0[((o + {start}) * {h} + i) * {w} + j]"))
        }
        Operation::Pad { padding } => {
            let (h, w) = plane(0);
            let [[top, _], [left, _]] = padding;
            all(format!(
                "i >= {top} && i < {} && j >= {left} && j < {} ? x0[(o * {h} + i - {top}) * {w} + j - {left}] : 0",
                top + h,
                left + w
            ))
        }
        Operation::Input { .. } | Operation::Float { .. } => {
            unreachable!("the input is a function of its own, and nothing is in float")
        }
    })
}

#[allow(clippy::too_many_arguments, reason = "the numbers of one loop nest")]
fn convolution(
    of: &Step,
    source: usize,
    sum: &str,
    has_bias: bool,
    window: &Window,
    groups: usize,
    taps: usize,
    [channels, height, width]: [usize; 3],
) -> String {
    let [outputs, _, across] = of.shape;
    let [kh, kw] = window.kernel;
    let [[top, _], [left, _]] = window.padding;
    let [sy, sx] = window.stride;
    let [dy, dx] = window.dilation;
    let per = channels / groups;
    let base = if groups == 1 {
        "c".to_owned()
    } else {
        format!("(o / {}) * {per} + c", outputs / groups)
    };
    let start = if has_bias {
        format!("bias{source}[o]")
    } else {
        "0".to_owned()
    };
    debug_assert_eq!(taps, per * kh * kw);
    format!(
        "            int c, ky, kx;\n            for (j = 0; j < {across}; j++)\n                row[j] = {start};\n\
         \x20           for (c = 0; c < {per}; c++)\n                for (ky = 0; ky < {kh}; ky++) {{\n\
         \x20                   const int iy = i * {sy} + ky * {dy} - {top};\n\
         \x20                   if (iy < 0 || iy >= {height})\n                        continue;\n\
         \x20                   for (kx = 0; kx < {kw}; kx++) {{\n\
         \x20                       const {sum} weight = w[(c * {kh} + ky) * {kw} + kx];\n\
         \x20                       const int shift = kx * {dx} - {left};\n\
         \x20                       const int from = shift < 0 ? (-shift + {sx_less}) / {sx} : 0;\n\
         \x20                       const int beyond = {width} - shift > 0 ? ({width} - shift + {sx_less}) / {sx} : 0;\n\
         \x20                       const int to = beyond < {across} ? beyond : {across};\n\
         \x20                       const int first = (({base}) * {height} + iy) * {width} + shift;\n\
         \x20                       if (weight == 0)\n                            continue;\n\
         \x20                       for (j = from; j < to; j++)\n\
         \x20                           row[j] += weight * x0[first + j * {sx}];\n\
         \x20                   }}\n                }}\n",
        sx_less = sx - 1,
    )
}

fn pool(
    window: &Window,
    [_, height, width]: [usize; 3],
    across: usize,
    sum: &str,
    is_max: bool,
) -> String {
    let [kh, kw] = window.kernel;
    let [[top, _], [left, _]] = window.padding;
    let [sy, sx] = window.stride;
    let [dy, dx] = window.dilation;
    let update = if is_max {
        "if (!seen || v > best)\n                            best = v;\n                        seen = 1;"
    } else {
        "best += v;"
    };
    let seen = if is_max {
        "int ky, kx, seen = 0;"
    } else {
        "int ky, kx;"
    };
    format!(
        "            for (j = 0; j < {across}; j++) {{\n                {sum} best = 0;\n                {seen}\n\
         \x20               for (ky = 0; ky < {kh}; ky++)\n                    for (kx = 0; kx < {kw}; kx++) {{\n\
         \x20                       const int iy = i * {sy} + ky * {dy} - {top}, ix = j * {sx} + kx * {dx} - {left};\n\
         \x20                       {sum} v;\n\
         \x20                       if (iy < 0 || iy >= {height} || ix < 0 || ix >= {width})\n                            continue;\n\
         \x20                       v = x0[(o * {height} + iy) * {width} + ix];\n\
         \x20                       {update}\n                    }}\n                row[j] = best;\n            }}\n"
    )
}

/// Takes a row's sums to what comes out.
fn levels(step: &Step, at: usize, sum: &str, kind: Kind) -> String {
    let [_, height, across] = step.shape;
    let place = format!("(o * {height} + i) * {across} + j");
    let kind = kind.name();
    let body = match &step.after {
        After::Nothing => format!("y[{place}] = ({kind})row[j];"),
        After::Clip { low, high } => format!(
            "y[{place}] = ({kind})(row[j] < {low} ? {low} : row[j] > {high} ? {high} : row[j]);"
        ),
        After::Shift { right, low, high } => {
            let level = match right {
                1.. => format!("shifted(row[j], {right})"),
                0 => "row[j]".to_owned(),
                _ => format!("row[j] * {}", 1u64 << -right),
            };
            format!(
                "const int64_t v = {level};\n                y[{place}] = ({kind})(v < {low} ? {low} : v > {high} ? {high} : v);"
            )
        }
        After::Thresholds { table } => {
            let per_row = table.codes.len() - 1;
            let bits = threshold_kind(step).bytes() * 8;
            let rows = table.residuals.len().max(1);
            let row = if table.residuals.is_empty() {
                "o".to_owned()
            } else if needs_search(table) {
                format!("o * {rows} + place(residuals{at}, {rows}, r[{place}])")
            } else {
                format!("o * {rows} + r[{place}] - ({})", table.residuals[0])
            };
            let turned = if table.falls.iter().any(|f| *f) {
                format!("falls{at}[o] ? -row[j] : row[j]")
            } else {
                "row[j]".to_owned()
            };
            let counted =
                format!("reached{bits}(thresholds{at} + ({row}) * {per_row}, {per_row}, {turned})");
            let level = if has_codes(table) {
                format!("levels{at}[{counted}]")
            } else {
                match table.codes[0] {
                    0 => counted,
                    least => format!("{counted} + ({least})"),
                }
            };
            format!("y[{place}] = ({kind})({level});")
        }
    };
    // (Sums that are wider than the thresholds' type still fit into it: their range does.)
    let body = if sum == "int64_t"
        && matches!(step.after, After::Thresholds { .. })
        && threshold_kind(step) != Kind::I64
    {
        body.replace("-row[j] : row[j]", "(int32_t)-row[j] : (int32_t)row[j]")
            .replace(", row[j])", ", (int32_t)row[j])")
    } else {
        body
    };
    format!(
        "            for (j = 0; j < {across}; j++) {{\n                {body}\n            }}\n"
    )
}

//! A program as one C99 file and its header: integers alone, no library, no allocation.
//!
//! Weights stay packed and are unpacked one output channel at a time; sums of a row of outputs are taken
//! together, which compilers turn into vector code; what batch norm, activation and quantizer do is a
//! search among a channel's thresholds. Values live in one arena whose places are planned from their
//! lifetimes.

mod arena;
mod step;
mod text;

use self::arena::Arena;
use self::text::{Text, array};
use super::program::{After, Operation, Program};
use super::{ExportError, pack};

/// The two files, and what they take.
#[derive(Debug, Clone)]
pub struct Source {
    /// The C file.
    pub code: String,
    /// Its header.
    pub header: String,
    /// Bytes of packed weights.
    pub weights: usize,
    /// Bytes of all other constants: biases, thresholds, tables.
    pub tables: usize,
    /// Bytes of the arena and of the buffers for one row and one channel's weights.
    pub memory: usize,
}

/// Writes a program; functions and constants begin with `prefix`, and the header is called `header`.
///
/// # Errors
/// Where a step is in float, or a number needs more than C's integers have.
pub fn source(program: &Program, prefix: &str, header: &str) -> Result<Source, ExportError> {
    program.require_exact("C")?;
    let prefix = identifier(prefix);
    let arena = Arena::plan(program);
    let mut constants = Text::default();
    let mut functions = Text::default();
    let mut calls = Text::default();
    let (mut weights, mut tables, mut rows) = (0, 0, 0);
    for (at, step) in program.steps.iter().enumerate() {
        if let Operation::Convolution {
            weights: integers,
            bias,
            stored,
            stored_bias,
            ..
        } = &step.operation
        {
            let levels: Vec<i64> = integers
                .iter()
                .map(|w| i64::from(*w) >> stored.shift)
                .collect();
            let packed = pack::pack(stored, &levels).ok_or_else(|| {
                ExportError::Unsupported(format!("{}: a level beyond its bits", stored.name))
            })?;
            weights += packed.len();
            let packed: Vec<i64> = packed.into_iter().map(i64::from).collect();
            constants.add(&array(&format!("weights{at}"), "uint8_t", &packed));
            if let Some(stored) = stored_bias {
                let kind = arena::Kind::of(ends(bias));
                tables += bias.len() * kind.bytes();
                constants.add(&format!("/* {} */\n", text::comment(&stored.name)));
                constants.add(&array(&format!("bias{at}"), kind.name(), bias));
            }
        }
        if let Operation::Input { codes } = &step.operation {
            let all: Vec<i64> = codes.iter().flatten().map(|c| i64::from(*c)).collect();
            let kind = arena::Kind::of(ends(&all));
            tables += all.len() * kind.bytes();
            constants.add(&array("table", kind.name(), &all));
        }
        if let After::Thresholds { table } = &step.after {
            tables += step::thresholds(at, step, table, &mut constants);
        }
        if arena.is_computed(at) {
            let written = step::function(program, &arena, at, &mut functions)?;
            rows = rows.max(written);
            calls.add(&format!(
                "    step{at}({});\n",
                if at == 0 { "image" } else { "" }
            ));
        }
    }
    let memory = arena.bytes + rows;
    let last = program.steps.len() - 1;
    let logits = arena.place(last);
    let classes = program.classes();
    let kind = arena::Kind::of(program.steps[last].range);
    let logit = if kind.bytes() <= 4 {
        "int32_t"
    } else {
        "int64_t"
    };
    let input = program.steps[0].elements();
    let exponent = program.steps[last].exponent;
    let [channels, height, width] = program.steps[0].shape;
    let guard = format!("{}_H", prefix.to_uppercase());
    let upper = prefix.to_uppercase();
    let header_text = format!(
        "/* A quantized network in integers, written by bitscope {version}.\n *\n\
         \x20* Flash: {weights} bytes of packed weights, {tables} bytes of biases, thresholds and tables, and code.\n\
         \x20* RAM: {memory} bytes, {arena} of them the arena of all values; and the stack of one call.\n */\n\
         #ifndef {guard}\n#define {guard}\n\n#include <stdint.h>\n\n\
         /* Bytes of a picture: {channels} channels of {height} rows of {width} pixels. */\n\
         #define {upper}_INPUT {input}\n\
         #define {upper}_CLASSES {classes}\n\
         /* A logit is its integer times 2 to this. */\n\
         #define {upper}_LOGIT_EXPONENT ({exponent})\n\n\
         /* Computes the logits of one picture. Not reentrant: values live in one static arena. */\n\
         void {prefix}_run(const uint8_t image[{upper}_INPUT], {logit} logits[{upper}_CLASSES]);\n\n\
         /* The class of one picture: the first of the largest logits. */\n\
         int {prefix}_classify(const uint8_t image[{upper}_INPUT]);\n\n#endif\n",
        version = env!("CARGO_PKG_VERSION"),
        arena = arena.bytes,
    );
    let code = format!(
        "/* A quantized network in integers, written by bitscope {version}: see {header}. */\n\
         #include \"{header}\"\n\n{runtime}\n{arena}\n{constants}\n{functions}\n\
         void {prefix}_run(const uint8_t image[{upper}_INPUT], {logit} logits[{upper}_CLASSES])\n{{\n\
         \x20   int k;\n{calls}    for (k = 0; k < {upper}_CLASSES; k++)\n\
         \x20       logits[k] = {logits}[k];\n}}\n\n\
         int {prefix}_classify(const uint8_t image[{upper}_INPUT])\n{{\n\
         \x20   {logit} logits[{upper}_CLASSES];\n    int k, best = 0;\n\
         \x20   {prefix}_run(image, logits);\n\
         \x20   for (k = 1; k < {upper}_CLASSES; k++)\n\
         \x20       if (logits[k] > logits[best])\n            best = k;\n    return best;\n}}\n",
        version = env!("CARGO_PKG_VERSION"),
        runtime = runtime(program),
        arena = arena.declaration(),
        constants = constants.0,
        functions = functions.0,
        calls = calls.0,
    );
    Ok(Source {
        code,
        header: header_text,
        weights,
        tables,
        memory,
    })
}

fn ends(values: &[i64]) -> [i64; 2] {
    [values.iter().min(), values.iter().max()].map(|v| v.copied().unwrap_or(0))
}

/// A name that C takes.
pub fn identifier(name: &str) -> String {
    let letters = name.chars().map(|c| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_lowercase()
        } else {
            '_'
        }
    });
    let name: String = letters.collect();
    if name.starts_with(|c: char| c.is_ascii_alphabetic()) {
        name
    } else {
        format!("net_{name}")
    }
}

/// What the steps share; only what some step uses, since a compiler that is asked to warns of the rest.
fn runtime(program: &Program) -> String {
    let mut text = String::new();
    let convolutions = || {
        program.steps.iter().filter_map(|s| match &s.operation {
            Operation::Convolution { stored, .. } => Some(stored),
            _ => None,
        })
    };
    for (octaves, name, doc, value) in [
        (
            false,
            "unpack",
            "Integers in two's complement of `bits` each, the first in the lowest bits.",
            "(int32_t)code - (code & half ? (int32_t)(2 * half) : 0)",
        ),
        (
            true,
            "unpack_octaves",
            "Powers of two: an octave, and the sign in the highest bit.",
            "(code & half ? -1 : 1) * (int32_t)(1ul << (code & (half - 1)))",
        ),
    ] {
        for kind in arena::Kind::SIGNED {
            let uses = convolutions().any(|s| s.octaves == octaves && step::weight_kind(s) == kind);
            if uses {
                text.push_str(&format!(
                    "/* {doc} */\n\
                     static void {name}{bits}(const uint8_t *packed, unsigned long first, int count, int bits, int32_t scale, {kind} *out)\n{{\n\
                     \x20   const unsigned long half = 1ul << (bits - 1);\n    int i, k;\n\
                     \x20   for (i = 0; i < count; i++) {{\n        unsigned long at = first + (unsigned long)i * (unsigned long)bits, code = 0;\n\
                     \x20       for (k = 0; k < bits; k++, at++)\n\
                     \x20           code |= (unsigned long)((packed[at / 8] >> (at % 8)) & 1) << k;\n\
                     \x20       out[i] = ({kind})(({value}) * scale);\n    }}\n}}\n\n",
                    bits = kind.bytes() * 8,
                    kind = kind.name(),
                ));
            }
        }
    }
    for kind in [arena::Kind::I16, arena::Kind::I32, arena::Kind::I64] {
        let uses = program.steps.iter().any(
            |s| matches!(&s.after, After::Thresholds { .. } if step::threshold_kind(s) == kind),
        );
        if uses {
            let sum = step::sum_kind_name(kind);
            text.push_str(&format!(
                "/* How many of ascending thresholds a sum is not below. */\n\
                 static int reached{bits}(const {kind} *at, int count, {sum} sum)\n{{\n\
                 \x20   int low = 0;\n    while (low < count) {{\n\
                 \x20       const int middle = (low + count) / 2;\n\
                 \x20       if (at[middle] <= sum)\n            low = middle + 1;\n\
                 \x20       else\n            count = middle;\n    }}\n    return low;\n}}\n\n",
                bits = kind.bytes() * 8,
                kind = kind.name(),
            ));
        }
    }
    if program
        .steps
        .iter()
        .any(|s| matches!(&s.after, After::Shift { right, .. } if *right > 0))
    {
        text.push_str(
            "/* v / 2^right, rounded half away from zero. */\n\
             static int64_t shifted(int64_t v, int right)\n{\n\
             \x20   const uint64_t half = (uint64_t)1 << (right - 1);\n\
             \x20   return v < 0 ? -(int64_t)(((uint64_t)-v + half) >> right) : (int64_t)(((uint64_t)v + half) >> right);\n}\n\n",
        );
    }
    let residuals = program
        .steps
        .iter()
        .any(|s| matches!(&s.after, After::Thresholds { table } if step::needs_search(table)));
    if residuals {
        text.push_str(
            "/* The place of a residual among those that there are. */\n\
             static int place(const int32_t *all, int count, int32_t r)\n{\n\
             \x20   int low = 0;\n    while (low < count) {\n        const int middle = (low + count) / 2;\n\
             \x20       if (all[middle] < r)\n            low = middle + 1;\n        else\n            count = middle;\n    }\n    return low;\n}\n\n",
        );
    }
    text
}

//! Where values live: one arena, planned from their lifetimes.

use crate::integers::program::{After, Operation, Program};

/// An integer type of C.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    U8,
    I8,
    U16,
    I16,
    I32,
    I64,
}

impl Kind {
    /// The signed ones that weights are unpacked to.
    pub const SIGNED: [Self; 3] = [Self::I8, Self::I16, Self::I32];

    /// The least that holds a range.
    pub fn of([low, high]: [i64; 2]) -> Self {
        let holds = |least: i64, largest: i64| low >= least && high <= largest;
        if holds(i8::MIN.into(), i8::MAX.into()) {
            Self::I8
        } else if holds(0, u8::MAX.into()) {
            Self::U8
        } else if holds(i16::MIN.into(), i16::MAX.into()) {
            Self::I16
        } else if holds(0, u16::MAX.into()) {
            Self::U16
        } else if holds(i32::MIN.into(), i32::MAX.into()) {
            Self::I32
        } else {
            Self::I64
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::U8 => "uint8_t",
            Self::I8 => "int8_t",
            Self::U16 => "uint16_t",
            Self::I16 => "int16_t",
            Self::I32 => "int32_t",
            Self::I64 => "int64_t",
        }
    }

    pub fn bytes(self) -> usize {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 => 2,
            Self::I32 => 4,
            Self::I64 => 8,
        }
    }

    fn member(self) -> &'static str {
        match self {
            Self::U8 => "u8",
            Self::I8 => "i8",
            Self::U16 => "u16",
            Self::I16 => "i16",
            Self::I32 => "i32",
            Self::I64 => "i64",
        }
    }
}

/// How a step's value comes about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Home {
    /// In the arena, from this byte on.
    At(usize),
    /// It is another step's, under another shape.
    Alias(usize),
    /// It is summed inside the step that reads it, and lies nowhere.
    Inside(usize),
}

/// The plan.
pub(super) struct Arena {
    homes: Vec<Home>,
    kinds: Vec<Kind>,
    /// Bytes.
    pub bytes: usize,
}

const ALIGNMENT: usize = 8;

impl Arena {
    pub fn plan(program: &Program) -> Self {
        let steps = &program.steps;
        let readers = |of: usize| {
            let reads = steps
                .iter()
                .enumerate()
                .filter(move |(_, s)| s.inputs.contains(&of));
            reads.map(|(at, _)| at).collect::<Vec<usize>>()
        };
        let mut homes = vec![Home::At(0); steps.len()];
        for (at, step) in steps.iter().enumerate() {
            if step.operation == Operation::Reshape && step.after == After::Nothing {
                homes[at] = Home::Alias(step.inputs[0]);
            }
            // Sums that one step alone thresholds need no place.
            let sums = matches!(
                step.operation,
                Operation::Convolution { .. } | Operation::Add { .. } | Operation::SumPool { .. }
            );
            if let [reader] = readers(at)[..]
                && sums
                && step.after == After::Nothing
                && steps[reader].operation == Operation::Same
                && steps[reader].inputs[0] == at
                && !steps[reader].inputs[1..].contains(&at)
            {
                homes[at] = Home::Inside(reader);
            }
        }
        let mut arena = Self {
            homes,
            kinds: steps.iter().map(|s| Kind::of(s.range)).collect(),
            bytes: 0,
        };
        arena.place_all(program);
        arena
    }

    /// First place that fits, the largest values first.
    fn place_all(&mut self, program: &Program) {
        // A value lives from the step that writes it to the last that reads it, also by another name or
        // from inside another step.
        let mut lives: Vec<[usize; 2]> = (0..self.homes.len()).map(|at| [at, at]).collect();
        for (at, step) in program.steps.iter().enumerate() {
            let runs = match self.homes[at] {
                Home::Inside(reader) => reader,
                _ => at,
            };
            for input in &step.inputs {
                let owner = self.owner(*input);
                lives[owner][1] = lives[owner][1].max(runs);
            }
        }
        if let Some(last) = program.steps.len().checked_sub(1) {
            let owner = self.owner(last);
            lives[owner][1] = usize::MAX;
        }
        // (A step that runs inside another is written there.)
        let size = |at: usize| {
            let bytes = program.steps[at].elements() * self.kinds[at].bytes();
            bytes.next_multiple_of(ALIGNMENT)
        };
        let mut order: Vec<usize> = (0..self.homes.len())
            .filter(|at| matches!(self.homes[*at], Home::At(_)))
            .collect();
        order.sort_by_key(|at| std::cmp::Reverse(size(*at)));
        let mut placed: Vec<usize> = Vec::new();
        let mut homes = self.homes.clone();
        let mut bytes = 0;
        for at in order {
            let mut taken: Vec<[usize; 2]> = placed
                .iter()
                .filter(|other| {
                    lives[**other][0] <= lives[at][1] && lives[at][0] <= lives[**other][1]
                })
                .filter_map(|other| match homes[*other] {
                    Home::At(start) => Some([start, start + size(*other)]),
                    _ => None,
                })
                .collect();
            taken.sort_unstable();
            let mut start = 0;
            for [from, to] in taken {
                if start + size(at) <= from {
                    break;
                }
                start = start.max(to);
            }
            homes[at] = Home::At(start);
            bytes = bytes.max(start + size(at));
            placed.push(at);
        }
        self.homes = homes;
        self.bytes = bytes;
    }

    fn owner(&self, at: usize) -> usize {
        match self.homes[at] {
            Home::Alias(of) => self.owner(of),
            _ => at,
        }
    }

    /// Whether the step is a function of its own.
    pub fn is_computed(&self, at: usize) -> bool {
        matches!(self.homes[at], Home::At(_))
    }

    /// Whether the step is summed inside the one that reads it.
    pub fn is_inside(&self, at: usize) -> bool {
        matches!(self.homes[at], Home::Inside(_))
    }

    /// Type of a step's value.
    pub fn kind(&self, at: usize) -> Kind {
        self.kinds[self.owner(at)]
    }

    /// A step's value in C: a pointer to its first element.
    pub fn place(&self, at: usize) -> String {
        let owner = self.owner(at);
        let kind = self.kinds[owner];
        match self.homes[owner] {
            Home::At(start) => format!("(arena.{} + {})", kind.member(), start / kind.bytes()),
            _ => unreachable!("an owner has a place"),
        }
    }

    /// The arena in C.
    pub fn declaration(&self) -> String {
        let bytes = self.bytes.next_multiple_of(ALIGNMENT);
        let kinds = [
            Kind::U8,
            Kind::I8,
            Kind::U16,
            Kind::I16,
            Kind::I32,
            Kind::I64,
        ];
        let members: String = kinds
            .iter()
            .map(|k| format!("    {} {}[{}];\n", k.name(), k.member(), bytes / k.bytes()))
            .collect();
        format!("/* All values: {bytes} bytes. */\nstatic union {{\n{members}}} arena;\n")
    }
}

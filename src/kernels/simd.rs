//! Run-time choice of the instruction set.

use std::sync::OnceLock;

/// Instruction set of the CPU kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Simd {
    /// What the compiler's target has.
    Portable,
    /// AVX2 and FMA. Only made where the processor has them.
    #[non_exhaustive]
    Avx2,
    /// The bodies for AVX-512 compiled for AVX2: their blocks and lanes can be tested on processors
    /// without it.
    #[cfg(test)]
    WideOnAvx2,
    /// AVX-512 (F, BW, DQ, VL). Only made where the processor has it.
    #[non_exhaustive]
    Avx512,
}

impl Simd {
    /// The best that this processor has, or what `BITSCOPE_SIMD` (`portable`, `avx2`, `avx512`)
    /// asks for where the processor has it. Decided once per process.
    pub fn current() -> Self {
        static CHOSEN: OnceLock<Simd> = OnceLock::new();
        *CHOSEN.get_or_init(|| {
            let best = Self::best();
            match std::env::var("BITSCOPE_SIMD").as_deref() {
                Ok("portable") => Self::Portable,
                Ok("avx2") => best.min(Self::Avx2),
                _ => best,
            }
        })
    }

    /// All that this processor has.
    pub fn available() -> Vec<Self> {
        let has = |simd: &Self| *simd <= Self::best();
        let all = [Self::Portable, Self::Avx2, Self::Avx512];
        let available = all.into_iter().filter(has);
        #[cfg(test)]
        let available =
            available.chain([Self::WideOnAvx2].into_iter().filter(|_| has(&Self::Avx2)));
        available.collect()
    }

    /// The set whose bodies run.
    pub(super) fn bodies(self) -> Self {
        match self {
            #[cfg(test)]
            Self::WideOnAvx2 => Self::Avx512,
            set => set,
        }
    }

    fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            if avx2 && avx512 {
                return Self::Avx512;
            }
            if avx2 {
                return Self::Avx2;
            }
        }
        Self::Portable
    }
}

/// Compiles one body for each instruction set and picks one by the first argument, a [`Simd`].
///
/// The body is an `#[inline(always)]` function, so it is compiled anew inside each wrapper. A
/// second body, for the portable path, is for those that want fused multiply-adds: where the
/// processor has none, `mul_add` would be a call. Three bodies are for loops that depend on how
/// many registers there are and how wide.
macro_rules! multiversion {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:path) => {
        $crate::kernels::simd::multiversion! {
            $(#[$meta])* $vis fn $name($($arg: $ty),*) $(-> $ret)? = $body, $body, $body
        }
    };
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $fused:path, $portable:path) => {
        $crate::kernels::simd::multiversion! {
            $(#[$meta])* $vis fn $name($($arg: $ty),*) $(-> $ret)? = $fused, $fused, $portable
        }
    };
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $avx512:path, $avx2:path, $portable:path) => {
        $(#[$meta])*
        $vis fn $name(simd: $crate::kernels::Simd, $($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $ty),*) $(-> $ret)? { $avx2($($arg),*) }
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn avx512($($arg: $ty),*) $(-> $ret)? { $avx512($($arg),*) }
                #[cfg(test)]
                #[target_feature(enable = "avx2,fma")]
                fn wide($($arg: $ty),*) $(-> $ret)? { $avx512($($arg),*) }
                match simd {
                    // SAFETY: `Simd` values above `Portable` are only made by `Simd::current` and
                    // `Simd::available`, which detected these features on this processor.
                    $crate::kernels::Simd::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    $crate::kernels::Simd::Avx2 => return unsafe { avx2($($arg),*) },
                    // SAFETY: as above.
                    #[cfg(test)]
                    $crate::kernels::Simd::WideOnAvx2 => return unsafe { wide($($arg),*) },
                    $crate::kernels::Simd::Portable => {}
                }
            }
            let _ = simd;
            $portable($($arg),*)
        }
    };
}
pub(crate) use multiversion;

/// Calls `$body!` for a function of this name, with the lanes of a vector, whether its
/// multiply-adds are fused, and so many names for the registers of a block: number, row and three
/// accumulators for each output. (As one array they would not stay in registers.)
macro_rules! with_registers {
    ($body:ident, $name:ident, $lanes:literal, $fused:literal, 3) => {
        $body!($name, $lanes, 3, $fused, [(0, g0, a0, b0, c0), (1, g1, a1, b1, c1), (2, g2, a2, b2, c2)]);
    };
    ($body:ident, $name:ident, $lanes:literal, $fused:literal, 4) => {
        $crate::kernels::simd::with_registers! { @4 $body, $name, $lanes, $fused, 4, [] }
    };
    ($body:ident, $name:ident, $lanes:literal, $fused:literal, 6) => {
        $crate::kernels::simd::with_registers! {
            @4 $body, $name, $lanes, $fused, 6, [(4, g4, a4, b4, c4), (5, g5, a5, b5, c5)]
        }
    };
    ($body:ident, $name:ident, $lanes:literal, $fused:literal, 8) => {
        $crate::kernels::simd::with_registers! { @8 $body, $name, $lanes, $fused, 8, [] }
    };
    ($body:ident, $name:ident, $lanes:literal, $fused:literal, 16) => {
        $crate::kernels::simd::with_registers! {
            @8 $body, $name, $lanes, $fused, 16,
            [
                (8, g8, a8, b8, c8),
                (9, g9, a9, b9, c9),
                (10, g10, a10, b10, c10),
                (11, g11, a11, b11, c11),
                (12, g12, a12, b12, c12),
                (13, g13, a13, b13, c13),
                (14, g14, a14, b14, c14),
                (15, g15, a15, b15, c15)
            ]
        }
    };
    // The first eight, and the first four, before those there are.
    (@8 $body:ident, $name:ident, $lanes:literal, $fused:literal, $count:literal, [$($more:tt),*]) => {
        $crate::kernels::simd::with_registers! {
            @4 $body, $name, $lanes, $fused, $count,
            [
                (4, g4, a4, b4, c4),
                (5, g5, a5, b5, c5),
                (6, g6, a6, b6, c6),
                (7, g7, a7, b7, c7)
                $(, $more)*
            ]
        }
    };
    (@4 $body:ident, $name:ident, $lanes:literal, $fused:literal, $count:literal, [$($more:tt),*]) => {
        $body!(
            $name,
            $lanes,
            $count,
            $fused,
            [
                (0, g0, a0, b0, c0),
                (1, g1, a1, b1, c1),
                (2, g2, a2, b2, c2),
                (3, g3, a3, b3, c3)
                $(, $more)*
            ]
        );
    };
}
pub(crate) use with_registers;

/// `u v + sum`, lane by lane.
#[inline(always)]
pub(super) fn product<const L: usize, const FUSED: bool>(
    u: [f32; L],
    v: [f32; L],
    sum: [f32; L],
) -> [f32; L] {
    let mut out = [0f32; L];
    for l in 0..L {
        out[l] = if FUSED {
            u[l].mul_add(v[l], sum[l])
        } else {
            u[l] * v[l] + sum[l]
        };
    }
    out
}

/// Adds the lanes to the first values of `sums`.
#[inline(always)]
pub(super) fn add<const L: usize>(sums: &mut [f32], lanes: [f32; L]) {
    let sums = &mut sums[..L];
    for l in 0..L {
        sums[l] += lanes[l];
    }
}

/// A vector of a row, from `start` on.
#[inline(always)]
pub(super) fn vector<const L: usize>(row: &[f32], start: usize) -> [f32; L] {
    row[start..start + L]
        .try_into()
        .expect("a slice of that length")
}

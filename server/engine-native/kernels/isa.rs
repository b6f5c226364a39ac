//! Which vector instructions the kernels use, found out once.

use std::fmt;

/// A set of vector instructions that this machine is known to have.
///
/// A value can only be had from [`Isa::detect`] and [`Isa::supported`], so that holding one is the proof that the
/// kernels compiled for it may run. All of them give the same bits: they differ in speed alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Isa(pub(super) Level);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    /// With the integer dot products (VNNI).
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

impl Isa {
    /// The fastest that this machine supports.
    pub fn detect() -> Self {
        Self::supported()[0]
    }

    /// All that this machine supports, fastest first; the last is the portable one.
    pub fn supported() -> Vec<Self> {
        let mut found = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c");
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq");
            if avx2 && avx512 && is_x86_feature_detected!("avx512vnni") {
                found.push(Self(Level::Avx512Vnni));
            }
            if avx2 && avx512 {
                found.push(Self(Level::Avx512));
            }
            if avx2 {
                found.push(Self(Level::Avx2));
            }
        }
        found.push(Self(Level::Portable));
        found
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Vnni => "avx512-vnni",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => "avx2",
            Level::Portable => "portable",
        })
    }
}

/// Calls the instance of a generic kernel that was compiled for an [`Isa`].
///
/// `dispatch!(isa, kernel(argument: Type, ...))` needs an `unsafe fn kernel<V: Lanes>(...)` marked
/// `#[inline(always)]`; it is inlined into one function for each instruction set, whose `target_feature` attribute lets
/// the vector operations inline in turn. The expansion is an unsafe call: `kernel`'s own contract must hold. That the
/// machine has the instructions is what an [`Isa`] proves.
macro_rules! dispatch {
    ($isa:expr, $kernel:ident($($arg:ident : $type:ty),* $(,)?)) => {{
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
        unsafe fn avx512($($arg: $type),*) {
            // SAFETY: the caller keeps the kernel's contract; the features are enabled here.
            unsafe { $kernel::<$crate::kernels::lanes::Zmm>($($arg),*) }
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma,f16c")]
        unsafe fn avx2($($arg: $type),*) {
            // SAFETY: the caller keeps the kernel's contract; the features are enabled here.
            unsafe { $kernel::<$crate::kernels::lanes::Ymm2>($($arg),*) }
        }
        unsafe fn portable($($arg: $type),*) {
            // SAFETY: the caller keeps the kernel's contract; no feature is needed.
            unsafe { $kernel::<$crate::kernels::lanes::Array>($($arg),*) }
        }
        match $isa.0 {
            #[cfg(target_arch = "x86_64")]
            $crate::kernels::isa::Level::Avx512Vnni
            | $crate::kernels::isa::Level::Avx512 => avx512($($arg),*),
            #[cfg(target_arch = "x86_64")]
            $crate::kernels::isa::Level::Avx2 => avx2($($arg),*),
            $crate::kernels::isa::Level::Portable => portable($($arg),*),
        }
    }};
}
pub(super) use dispatch;

/// As [`dispatch`], for kernels over integer dot products: an `unsafe fn kernel<D: Dots>(...)`.
macro_rules! dispatch_dots {
    ($isa:expr, $kernel:ident($($arg:ident : $type:ty),* $(,)?)) => {{
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
        unsafe fn vnni($($arg: $type),*) {
            // SAFETY: the caller keeps the kernel's contract; the features are enabled here.
            unsafe { $kernel::<$crate::kernels::dots::Vnni>($($arg),*) }
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma,f16c")]
        unsafe fn avx2($($arg: $type),*) {
            // SAFETY: the caller keeps the kernel's contract; the features are enabled here.
            unsafe { $kernel::<$crate::kernels::dots::Avx2>($($arg),*) }
        }
        unsafe fn portable($($arg: $type),*) {
            // SAFETY: the caller keeps the kernel's contract; no feature is needed.
            unsafe { $kernel::<$crate::kernels::dots::Scalar>($($arg),*) }
        }
        match $isa.0 {
            #[cfg(target_arch = "x86_64")]
            $crate::kernels::isa::Level::Avx512Vnni => vnni($($arg),*),
            #[cfg(target_arch = "x86_64")]
            $crate::kernels::isa::Level::Avx512
            | $crate::kernels::isa::Level::Avx2 => avx2($($arg),*),
            $crate::kernels::isa::Level::Portable => portable($($arg),*),
        }
    }};
}
pub(super) use dispatch_dots;

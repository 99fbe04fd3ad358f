//! The memory that the C library keeps for this process.

/// Has threads share few heaps: by itself the C library makes eight for each processor, and each keeps what was once
/// needed there. To be called before there are threads; where the C library has no such heaps nothing happens.
pub fn few_heaps() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    gnu::few_heaps();
}

/// Gives memory that is free back to the system, of all heaps. Takes about a millisecond.
pub fn give_back_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    gnu::give_back_memory();
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod gnu {
    use std::ffi::c_int;

    /// `M_ARENA_MAX` of `malloc.h`.
    const ARENA_MAX: c_int = -8;
    /// One for the runtime's threads, one for those that wait for the disk.
    const HEAPS: c_int = 2;

    #[expect(unsafe_code, reason = "the C library has no other door to its heaps")]
    unsafe extern "C" {
        /// See `mallopt(3)`.
        safe fn mallopt(parameter: c_int, value: c_int) -> c_int;
        /// See `malloc_trim(3)`.
        safe fn malloc_trim(pad: usize) -> c_int;
    }

    pub(super) fn few_heaps() {
        if mallopt(ARENA_MAX, HEAPS) == 0 {
            tracing::debug!("the C library does not limit its heaps");
        }
    }

    pub(super) fn give_back_memory() {
        // Whether there was anything to give back does not matter.
        let _ = malloc_trim(0);
    }
}

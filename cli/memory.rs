//! The allocator of programs, and how it is set.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Lets the allocator keep free memory for ten seconds, and give it back by huge pages: the kernel clears every page that
/// comes again, which took a quarter of the time of wide training sets. The environment, such as
/// `MIMALLOC_PURGE_DELAY`, goes first.
pub(super) fn keep_memory() {
    // Places in `mi_option_t` of mimalloc 3, which its Rust crate does not name.
    const PURGE_DELAY_MS: i32 = 15;
    const ALLOW_THP: i32 = 43;
    for (option, usual, wanted) in [(PURGE_DELAY_MS, 1000, 10_000), (ALLOW_THP, 1, 2)] {
        // SAFETY: no other thread is there yet, which is all that these functions ask.
        unsafe {
            if libmimalloc_sys::mi_option_get(option) == usual {
                libmimalloc_sys::mi_option_set(option, wanted);
            }
        }
    }
}

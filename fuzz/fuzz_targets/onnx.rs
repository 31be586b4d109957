//! ONNX: files as they are, and bytes behind what such a file starts with.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    featurectl_fuzz::check(bytes);
    featurectl_fuzz::check(&[&b"\x08"[..], bytes].concat());
});

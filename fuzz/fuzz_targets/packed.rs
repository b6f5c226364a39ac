#![no_main]
//! A packed model's file: as it is, and as a table that lies before data of zeros, with no checksum in its way.

use code_explainer_engine_native::kernels::quantized_weights::LAYOUT;
use code_explainer_weights::packed::Table;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = Table::read(bytes, LAYOUT);
    let data = [0; 4096];
    if let Ok(table) = Table::parse(bytes, &data) {
        for section in &table.sections {
            assert!(section.offset + section.length <= data.len() as u64);
        }
    }
});

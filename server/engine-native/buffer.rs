//! Large, page-aligned buffers of floats, and weights in one or in a mapped file.

use memmap2::MmapMut;

use code_explainer_engine::EngineError;
use code_explainer_weights::packed::Section;

/// Zeroed floats at a page boundary, on huge pages where the system has them: weights are read once per step from end
/// to end, and with small pages the walk of the page table shows.
#[derive(Debug)]
pub struct Buffer {
    map: Option<MmapMut>,
    len: usize,
}

impl Buffer {
    /// A buffer of `len` zeros. Pages become resident as they are written.
    ///
    /// # Errors
    /// [`EngineError::OutOfMemory`], naming `what` was to be stored.
    pub fn zeroed(len: usize, what: &str) -> Result<Self, EngineError> {
        let failed = |reason: &dyn std::fmt::Display| {
            EngineError::OutOfMemory(format!("cannot allocate {len} floats for {what}: {reason}"))
        };
        let bytes = len
            .checked_mul(size_of::<f32>())
            .ok_or_else(|| failed(&"too many"))?;
        if bytes == 0 {
            return Ok(Self { map: None, len });
        }
        let map = MmapMut::map_anon(bytes).map_err(|e| failed(&e))?;
        // A hint: without huge pages the buffer works all the same.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Ok(Self {
            map: Some(map),
            len,
        })
    }

    /// The floats.
    pub fn as_slice(&self) -> &[f32] {
        self.map
            .as_ref()
            .map_or(&[], |map| bytemuck::cast_slice(map))
    }

    /// The floats, to write.
    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        self.map
            .as_mut()
            .map_or(&mut [], |map| bytemuck::cast_slice_mut(map))
    }

    /// Size in bytes.
    pub fn bytes(&self) -> u64 {
        (self.len * size_of::<f32>()) as u64
    }
}

/// Weights, which are only read. Either way they begin at a multiple of 64 bytes.
#[derive(Debug)]
pub enum Weights {
    /// Made at load.
    Owned(Buffer),
    /// A part of a packed file: its pages are the weights.
    Mapped(Section),
}

impl Weights {
    /// The weights, as words of 4 bytes.
    ///
    /// # Panics
    /// If a section is not whole words; whoever maps one has compared its size.
    pub fn as_slice(&self) -> &[f32] {
        match self {
            Self::Owned(buffer) => buffer.as_slice(),
            // It checks alignment and length.
            Self::Mapped(section) => bytemuck::cast_slice(section.bytes()),
        }
    }

    /// Size in bytes.
    pub fn bytes(&self) -> u64 {
        size_of_val(self.as_slice()) as u64
    }
}

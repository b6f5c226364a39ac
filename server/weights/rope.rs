//! Rotary frequencies with the model's scaling applied.

use std::f32::consts::PI;

use super::config::{ModelConfig, RopeScaling};

impl ModelConfig {
    /// The inverse frequencies of the rotary embedding, `[rotary_dim / 2]`, innermost pair first: position `p` turns pair
    /// `i` by `p * inverse_frequencies[i]` radians. Empty for GPT-2.
    ///
    /// `factors` are the values of `rope_freqs.weight` where a file has it; each divides its frequency.
    ///
    /// The arithmetic is transformers' (`modeling_rope_utils.py`), in 32 bits where that is.
    pub fn inverse_frequencies(&self, factors: Option<&[f32]>) -> Vec<f32> {
        let dim = self.rotary_dim;
        let mut frequencies: Vec<f32> = (0..dim / 2)
            .map(|i| {
                let exponent = (2 * i) as f32 / dim as f32;
                // In 64 bits and rounded once: the nearest 32-bit value, whatever libm is below.
                1.0 / f64::from(self.rope_theta).powf(f64::from(exponent)) as f32
            })
            .collect();
        self.rope_scaling.apply(&mut frequencies);
        if let Some(factors) = factors {
            for (frequency, factor) in frequencies.iter_mut().zip(factors) {
                *frequency /= factor;
            }
        }
        frequencies
    }
}

impl RopeScaling {
    fn apply(self, frequencies: &mut [f32]) {
        match self {
            Self::None => {}
            Self::Linear { factor } => frequencies.iter_mut().for_each(|f| *f /= factor),
            Self::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_context,
            } => {
                let context = original_context as f32;
                for frequency in frequencies {
                    let wavelength = 2.0 * PI / *frequency;
                    if wavelength > context / low_freq_factor {
                        *frequency /= factor;
                    } else if wavelength >= context / high_freq_factor {
                        let ramp = (context / wavelength - low_freq_factor)
                            / (high_freq_factor - low_freq_factor);
                        *frequency = (1.0 - ramp) * *frequency / factor + ramp * *frequency;
                    }
                }
            }
        }
    }
}
